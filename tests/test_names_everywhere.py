"""Everything that takes a layer or a unit takes operations, runs and parts by the same names."""

from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import toumei.cnns.objectives as obj
import toumei.cnns.parameterization as param
from toumei import cnns, misc
from toumei.attribution import (
    GradCam,
    InputXGradient,
    IntegratedGradients,
    KernelShap,
    LayerConductance,
    Saliency,
)
from toumei.core import hooked, run
from toumei.core.errors import ToumeiError


class Net(nn.Module):
    """A shared ReLU, a functional one, a residual sum and an output of two parts."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.conv = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.relu, self.both, self.head = nn.ReLU(), Both(), nn.Linear(6, 4)

    def forward(self, images):
        first = self.relu(self.stem(images))
        second = F.relu(self.relu(self.conv(first)) + first)
        maps, _ = self.both(second)
        return self.head(maps.mean((2, 3)))


class Both(nn.Module):
    """Returns a map and its negative."""

    def forward(self, maps):
        return maps, -maps


NAMES = ("/add", "/relu", "relu", "relu#0", "both[1]", "both#0[0]", "stem/conv2d")


@pytest.fixture
def net(watched):
    return watched(Net().eval())


@pytest.fixture
def images():
    return torch.rand(4, 3, 8, 10, generator=torch.Generator().manual_seed(1))


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


@torch.no_grad()
def tensor(net, name, images):
    return run(net, images, record=[name])[name]


def test_objectives_and_pipelines(net, name):
    start = param.PixelImage(1, 3, 8, 10, seed=0)
    pipeline = cnns.Pipeline(start, [obj.Neuron(f"{name}:2:1:3")]).attach(net)
    with torch.no_grad():
        before = tensor(net, name, pipeline.image)[:, 2, 1, 3]
    result = pipeline.optimize(3, verbose=False, seed=0)
    torch.testing.assert_close(-result.losses[0], before)


def test_dataset_examples(net, name, images):
    found = cnns.dataset_examples(net, name, [images], k=4, lowest=False, verbose=False)
    values, order = tensor(net, name, images)[:, 3].amax((1, 2)).sort(descending=True)
    torch.testing.assert_close(found.values(f"{name}:3"), values)
    assert torch.equal(found.indices(f"{name}:3"), order)


def test_methods_from_an_image(net, name, images):
    image = images[0]
    for make in (cnns.caricature, cnns.invert):
        assert make(net, image, name, steps=1, verbose=False, seed=0).images.shape[1:] == image.shape
    cnns.deep_dream(net, image, name, octaves=1, steps=1, verbose=False)
    style = misc.StyleTransfer(image, 1, images[1], 1, content_layers=[name], style_layers=[name])
    style.attach(net).optimize(1, verbose=False)


@pytest.mark.filterwarnings("ignore:there is no score")  # noise is no more like other noise
def test_whole_layers(net, name, images):
    maps = tensor(net, name, images)
    if (maps >= 0).all():
        groups = cnns.group_channels(net, name, images, 2)
        assert groups.directions.shape == (2, 6) and groups.maps.shape == (4, 2, 8, 10)
    atlas = cnns.activation_atlas(
        net, name, [images], per_image=3, grid=1, min_count=1, layout="pca", steps=1, size=8, verbose=False
    )
    assert atlas.directions.shape == (1, 6)
    score = cnns.sanity_check(net, f"{name}:1", images[:1], images[1:3], images[3:], layers=["stem", name])
    assert score.layers == ("stem", name)


@pytest.mark.parametrize("after", ["/add", "relu", "both[1]", "/relu"])
def test_expanded_weights(net, after, images):
    weights = cnns.expanded_weights(net, "conv", after, images[:1], [2]).weights
    sign = -1 if after == "both[1]" else 1
    assert weights.shape == (1, 6, 1, 1)
    torch.testing.assert_close(sign * weights[0, :, 0, 0], torch.eye(6)[2])


def unused(name):
    """A block that warns of the one layer that the score does not use."""
    return pytest.warns(UserWarning, match=r"'both\[1\]'") if name == "both[1]" else nullcontext()


def test_attribution_to_a_layer_and_of_a_unit(net, name, images):
    maps = tensor(net, name, images)
    for method in (Saliency, InputXGradient, IntegratedGradients, LayerConductance):
        if name in ("both[1]", "relu") and method is not Saliency:
            continue  # which the score does not use, or only in part
        with unused(name):
            assert method(net, layer=name)(images, target=1).values.shape == maps.shape
    with unused(name):
        shapley = KernelShap(net, layer=name, samples=1200, seed=0)(images[:1], target=1)
    assert shapley.values.shape == maps[:1].shape
    unit = Saliency(net)(images, f"{name}:2:1:3")
    torch.testing.assert_close(unit.output, maps[:, 2, 1, 3])
    with unused(name):
        assert GradCam(net, name)(images, 1).values.shape == (4, 1, 8, 10)


def test_correlation_graphs(net, name, images):
    graph = misc.correlation_graph(net, [name, "head"], images)
    assert graph.sizes == (6, 4)


WRONG = [
    ("/softmax", "no operation 'softmax'.*add, mean, relu"),
    ("relu#2", r"'relu' ran 2 times.*#0, #1"),
    ("both[2]", r"no part \[2\].*\[0\], \[1\]"),
    ("boht", "no layer 'boht'.*did you mean both"),
    ("both[", "cannot read"),
]


@pytest.mark.parametrize(("wrong", "match"), WRONG)
def test_a_wrong_name_says_what_exists_wherever_it_is_given(net, wrong, match, images):
    calls = [
        lambda: run(net, images, record=[wrong])[wrong],
        lambda: _edited(net, wrong, images),
        lambda: cnns.Pipeline(param.PixelImage(1, 3, 8, 10), f"{wrong}:1").attach(net),
        lambda: cnns.dataset_examples(net, wrong, [images], k=2, verbose=False),
        lambda: cnns.group_channels(net, wrong, images, 2),
        lambda: cnns.activation_atlas(net, wrong, [images], grid=1, steps=1, size=8, verbose=False),
        lambda: cnns.expanded_weights(net, "stem", wrong, images[:1]),
        lambda: cnns.caricature(net, images[0], wrong, steps=1, verbose=False),
        lambda: Saliency(net, layer=wrong)(images, target=1),
        lambda: Saliency(net)(images, f"{wrong}:1"),
        lambda: GradCam(net, wrong)(images, target=1),
        lambda: misc.correlation_graph(net, [wrong], images),
    ]
    for call in calls:
        with pytest.raises(ToumeiError, match=match):
            call()


def _edited(net, name, images):
    with hooked(net, edit={name: torch.abs}):
        net(images)
