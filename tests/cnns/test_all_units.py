"""Pictures of all units of a layer are those of the pipeline, whatever number of jobs makes them."""

from copy import deepcopy

import pytest
import torch
from torch import nn

import toumei.cnns.objectives as obj
import toumei.cnns.parameterization as param
from toumei.cnns import robustness, unit_pictures
from toumei.core.errors import LayerError, UnitError

SETTINGS = {"size": 16, "steps": 4, "batch_size": 4, "verbose": False}


def test_pictures_are_those_of_the_pipeline(small_cnn):
    views = robustness.light()
    found = unit_pictures(small_cnn, "conv1", views=views, seed=3, **SETTINGS)
    assert found.titles == tuple(f"conv1:{channel}" for channel in range(6))
    for some in (range(4), range(4, 6)):
        image = param.Transform(param.FFTImage(len(some), 3, 16, 16, seed=3), views)
        pipeline = obj.Pipeline(image, [obj.Channel(f"conv1:{channel}") for channel in some])
        wanted = pipeline.attach(small_cnn).optimize(4, seed=3, verbose=False)
        assert torch.equal(found.images[some], wanted.images)
        assert torch.equal(found.losses[:, some], wanted.losses)
        assert torch.equal(found.moved[some], wanted.moved)


def test_jobs_and_folders_change_nothing(small_cnn, tmp_path):
    one = unit_pictures(small_cnn, "conv1", folder=tmp_path, **SETTINGS)
    two = unit_pictures(small_cnn, "conv1", jobs=2, **SETTINGS)
    assert len(list(tmp_path.glob("*.result"))) == 2
    other_mode = deepcopy(small_cnn).eval()  # which changes no picture, so they are found
    again = unit_pictures(other_mode, "conv1", folder=tmp_path, **SETTINGS)
    assert torch.equal(one.images, two.images) and torch.equal(one.images, again.images)
    assert len(list(tmp_path.glob("*.result"))) == 2


def test_other_settings_and_weights_are_other_pictures(small_cnn, tmp_path):
    network = deepcopy(small_cnn)

    def kept(**settings):
        unit_pictures(network, "conv1", [2], folder=tmp_path, **(SETTINGS | settings))
        return len(list(tmp_path.glob("*.result")))

    assert [kept(), kept(seed=1), kept(steps=5), kept(objective=obj.Neuron)] == [1, 2, 3, 4]
    assert kept(views=robustness.light()) == 5 and kept(preprocess=nn.Tanh()) == 6
    with torch.no_grad():
        network.conv1.weight[0, 0, 0, 0] += 1
    assert kept() == 7


def test_another_forward_pass_with_the_same_weights_is_another_picture(small_cnn, tmp_path):
    class Doubled(type(small_cnn)):
        """The network with other code."""

        def forward(self, images):
            return super().forward(images**2)

    Doubled.__name__ = type(small_cnn).__name__
    other = deepcopy(small_cnn)
    other.__class__ = Doubled
    one, two = (
        unit_pictures(network, "conv1", [2], folder=tmp_path, **SETTINGS) for network in (small_cnn, other)
    )
    assert repr(small_cnn) == repr(other) and not torch.equal(one.images, two.images)


def test_channels_that_the_layer_does_not_have_are_refused(small_cnn):
    with pytest.raises(UnitError, match=r"conv1 has the channels 0 to 5, got \[6, -1\]"):
        unit_pictures(small_cnn, "conv1", [2, 6, -1], **SETTINGS)
    with pytest.raises(UnitError, match="got none"):
        unit_pictures(small_cnn, "conv1", [], **SETTINGS)
    with pytest.raises(LayerError, match="conv9"):
        unit_pictures(small_cnn, "conv9", **SETTINGS)
