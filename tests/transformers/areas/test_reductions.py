"""Reductions that are fitted to sums over batches, against scikit-learn on all states at once."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA as Components
from sklearn.decomposition import TruncatedSVD
from sklearn.preprocessing import StandardScaler

from toumei.core.errors import ArgumentError, MissingDependencyError
from toumei.transformers.areas import PCA, SVD, UMAP
from toumei.transformers.areas.fitting import constant_layers, coordinates_of, moments_of
from toumei.transformers.areas.moments import Moments
from toumei.transformers.areas.reductions import reduction_of


@pytest.fixture(scope="module")
def states():
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(6, 12, generator=generator)
    return torch.randn(80, 6, generator=generator) @ mixing + 5 * torch.randn(12, generator=generator)


def moments(states, *sizes):
    found = Moments(states.shape[1])
    for part in states.split(sizes or len(states)):
        found.add(part)
    return found


def same_up_to_signs(one, other):
    return np.allclose(np.abs(one), np.abs(other), atol=1e-5) and np.allclose(
        np.abs(np.einsum("nk,nk->k", one, other)), np.einsum("nk,nk->k", one, one), rtol=1e-5
    )


def test_batches_give_the_covariance(states):
    found = moments(states, 1, 30, 49)
    assert np.allclose(found.scatter.numpy() / 79, np.cov(states.double().numpy().T))
    assert torch.allclose(found.second, states.double().T @ states.double())
    large = moments(states.double() + 1e6, 1, 30, 49)
    assert torch.allclose(large.scatter, found.scatter, rtol=1e-4, atol=1e-3)


def test_pca_is_that_of_standardized_states(states):
    projection = PCA(3).projection(moments(states, 20, 60))
    fitted = Components(3).fit(StandardScaler().fit_transform(states.numpy()))
    expected = fitted.transform(StandardScaler().fit_transform(states.numpy()))
    assert same_up_to_signs(projection(states).numpy(), expected)
    assert np.allclose(projection.explained.numpy(), fitted.explained_variance_ratio_, atol=1e-6)
    assert same_up_to_signs(PCA(3).estimator().fit_transform(states.numpy()), expected)


def test_svd_is_that_of_the_states_as_they_are(states):
    projection = SVD(3).projection(moments(states, 20, 60))
    expected = TruncatedSVD(3, algorithm="arpack", random_state=0).fit_transform(states.numpy())
    assert same_up_to_signs(projection(states).numpy(), expected)


def test_one_number_with_a_huge_variance_does_not_take_the_map(states):
    huge = torch.cat([states, 1e4 * torch.randn(80, 1, generator=torch.Generator().manual_seed(3))], 1)
    plain, scaled = PCA(2).projection(moments(states)), PCA(2).projection(moments(huge))
    assert abs(float(scaled.directions[0, -1])) < 0.5
    assert torch.allclose(plain.explained, scaled.explained, atol=0.1)


def test_what_only_rounds_differently_is_constant(states):
    same = states[:1].repeat(40, 1) * (
        1 + 1e-6 * torch.randn(40, 12, generator=torch.Generator().manual_seed(0))
    )
    found = moments_of({"same": same, "other": states[:40]})
    assert constant_layers(found) == ("same",)
    for reduction in (PCA(), SVD()):
        maps = {"same": reduction.projection(found["same"])}
        coordinates = coordinates_of({"same": maps["same"](same)}, maps, ("same",))
        assert (coordinates.values == coordinates.values[:, :1]).all()


def test_layers_do_not_flip(states):
    values = states[:, :2].double()
    found = coordinates_of({"0": values.clone(), "1": -values}, dict.fromkeys("01"), ())
    assert torch.allclose(found.values[0], found.values[1])
    assert found.explained.isnan().all()


def test_settings_that_make_no_sense():
    assert reduction_of("svd") == SVD() and reduction_of(PCA(4)) == PCA(4)
    with pytest.raises(ArgumentError, match="n_components is a whole number from 2 on, got 1"):
        PCA(1)
    with pytest.raises(ArgumentError, match="reduction is one of 'pca', 'svd', 'umap', got 'tsne'"):
        reduction_of("tsne")
    with pytest.raises(
        ArgumentError, match="at most 5 components for 5 texts with states of 12 numbers in layer 'a'"
    ):
        PCA(6).check("a", 5, 12)


def test_umap_needs_its_package(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(MissingDependencyError, match="pip install umap-learn"):
        UMAP()
    with pytest.raises(MissingDependencyError, match="pip install umap-learn"):
        reduction_of("umap")
