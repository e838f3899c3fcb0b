"""Products of oneDNN are those of PyTorch, and take the place only of calls that they can replace."""

import pytest
import torch
from torch import nn
from torch.nn.functional import linear
from torch.nn.utils import parametrizations
from transformers.pytorch_utils import Conv1D

from toumei.core import products
from toumei.core.products import onednn_products


@pytest.fixture
def calls(monkeypatch):
    """The shapes of the vectors that were multiplied by the product, which is one of float64 here."""
    seen = []

    def product(vectors, weight, bias, *rest):
        seen.append(tuple(vectors.shape))
        assert rest == ("none", [], "")
        return linear(vectors.double(), weight.double(), None if bias is None else bias.double()).float()

    monkeypatch.setattr(products, "_product", product)
    return seen


@pytest.mark.parametrize("shape", [(5, 8), (2, 5, 8), (2, 1, 3, 8)])
@pytest.mark.parametrize("layer", [nn.Linear(8, 4), nn.Linear(8, 4, bias=False), Conv1D(4, 8)])
@pytest.mark.parametrize("real", [True, False])
@torch.no_grad()
def test_linear_layers_give_what_they_give_without(shape, layer, real, request):
    seen = None if real else request.getfixturevalue("calls")
    vectors = torch.randn(shape)
    expected = layer(vectors)
    with onednn_products():
        found = layer(vectors)
    assert found.shape == expected.shape
    assert torch.allclose(found, expected, atol=1e-5)
    assert seen is None or len(seen) == 1


@torch.no_grad()
def test_rows_of_a_view_and_of_inference_mode_are_multiplied():
    layer, vectors = nn.Linear(6, 3), torch.randn(4, 10, 12)[:, ::3, ::2]
    with onednn_products():
        assert torch.allclose(layer(vectors), linear(vectors, layer.weight, layer.bias), atol=1e-5)
    with torch.inference_mode(), onednn_products():
        assert torch.allclose(layer(vectors), layer(vectors.clone()), atol=1e-5)


class Marked(torch.Tensor):
    """A subclass, which may mean something else by a product."""


WHERE_TORCH_STAYS = {
    "float64": lambda: (nn.Linear(8, 4).double(), torch.randn(5, 8).double()),
    "bfloat16": lambda: (nn.Linear(8, 4).bfloat16(), torch.randn(5, 8).bfloat16()),
    "one vector": lambda: (nn.Linear(8, 4), torch.randn(8)),
    "no rows": lambda: (nn.Linear(8, 4), torch.randn(0, 8)),
    "meta": lambda: (nn.Linear(8, 4, device="meta"), torch.randn(5, 8, device="meta")),
    "subclass": lambda: (nn.Linear(8, 4), torch.randn(5, 8).as_subclass(Marked)),
    "matrix as bias": lambda: (
        lambda x: torch.addmm(torch.ones(5, 4), x, torch.ones(8, 4)),
        torch.randn(5, 8),
    ),
    "scaled": lambda: (
        lambda x: torch.addmm(torch.ones(4), x, torch.ones(8, 4), beta=2.0),
        torch.randn(5, 8),
    ),
}


@pytest.mark.parametrize("case", WHERE_TORCH_STAYS)
@torch.no_grad()
def test_other_calls_stay_those_of_torch(case, calls):
    call, given = WHERE_TORCH_STAYS[case]()
    expected = call(given)
    with onednn_products():
        found = call(given)
    assert not calls
    assert type(found) is type(expected)
    assert found.is_meta or torch.equal(found, expected)


def test_gradients_and_autocast_stay_those_of_torch(calls):
    layer, vectors = nn.Linear(8, 4), torch.randn(5, 8, requires_grad=True)
    expected = torch.autograd.grad(layer(vectors).square().sum(), vectors)[0]
    with onednn_products():
        assert torch.equal(torch.autograd.grad(layer(vectors).square().sum(), vectors)[0], expected)
    with torch.no_grad(), onednn_products():
        with torch.enable_grad():
            assert torch.equal(torch.autograd.grad(layer(vectors).square().sum(), vectors)[0], expected)
        with torch.autocast("cpu", torch.bfloat16):
            assert layer(vectors).dtype == torch.bfloat16
    assert not calls


@torch.no_grad()
def test_a_block_inside_of_another_one_multiplies_once_and_leaves_the_outer_one(calls):
    layer, vectors = nn.Linear(8, 4), torch.randn(5, 8)
    with onednn_products():
        with onednn_products():
            layer(vectors)
        layer(vectors)
    layer(vectors)
    assert len(calls) == 2


@torch.no_grad()
def test_a_switch_of_torch_turns_it_off(calls, monkeypatch):
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)
    with onednn_products():
        nn.Linear(8, 4)(torch.randn(5, 8))
    assert not calls


@torch.no_grad()
def test_a_parametrized_weight_is_multiplied_as_it_is(calls):
    layer, vectors = parametrizations.weight_norm(nn.Linear(8, 4)), torch.randn(5, 8)
    expected = layer(vectors)
    with onednn_products():
        assert torch.allclose(layer(vectors), expected, atol=1e-5)
    assert calls == [(5, 8)]


@torch.no_grad()
def test_bad_shapes_are_the_errors_of_torch():
    with onednn_products(), pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        nn.Linear(8, 4)(torch.randn(5, 7))
    with onednn_products(), pytest.raises(TypeError, match="linear"):
        linear([1.0], [2.0])
