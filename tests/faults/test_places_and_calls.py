"""Where channels and places are in an activation, and which run of a module is meant, is never guessed."""

import pytest
import torch
import torchvision
from torch import nn

import toumei.cnns.objectives as obj
import toumei.cnns.parameterization as param
from toumei.attribution import GradCam, LayerCam, Saliency
from toumei.cnns import dataset_examples, expanded_weights
from toumei.core import hooked, run, survey
from toumei.core.errors import UnitError

PICTURE = torch.rand(2, 3, 16, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def swin():
    torch.manual_seed(0)
    return torchvision.models.SwinTransformer([4, 4], 24, [1, 1], [2, 2], [4, 4], num_classes=5).eval()


class Tokens(nn.Module):
    """Patches of 4 x 4 pixels after a class token; the score is that of one token."""

    def __init__(self, token):
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.norm, self.token = nn.Conv2d(3, 5, 4, 4), nn.Identity(), token

    def forward(self, pictures):
        patches = self.embed(pictures).flatten(2).mT
        tokens = self.norm(torch.cat([patches.new_zeros(len(patches), 1, 5), patches], 1))
        return tokens[:, self.token].square().sum(1, keepdim=True)


@pytest.mark.parametrize("unit", [0, 5, 23])
def test_maps_with_channels_last_have_their_channels(swin, unit):
    maps = run(swin, PICTURE, record=["features.1"])["features.1"].detach()
    assert maps.shape[-1] == 24 != maps.shape[1]
    found = Saliency(swin)(PICTURE, f"features.1:{unit}").output
    torch.testing.assert_close(found, maps[..., unit].mean((1, 2)))
    examples = dataset_examples(swin, "features.1", [PICTURE], k=1, verbose=False)
    assert len(examples.highest["features.1"].values) == 24
    assert examples.values(f"features.1:{unit}").item() == pytest.approx(
        float(maps[..., unit].amax()), rel=1e-5
    )


def test_inner_layers_of_convnext_have_channels_last():
    torch.manual_seed(0)
    block = torchvision.models.convnext.CNBlock(6, 1.0, 0.0)
    net = nn.Sequential(nn.Conv2d(3, 6, 4, 4), block, nn.Flatten(), nn.Linear(6 * 4 * 8, 2)).eval()
    inner = run(net, PICTURE, record=["1.block.3"])["1.block.3"]
    torch.testing.assert_close(Saliency(net)(PICTURE, "1.block.3:7").output, inner[..., 7].mean((1, 2)))


@pytest.mark.parametrize(("y", "x"), [(0, 0), (2, 3), (3, 7)])
def test_places_on_a_wide_grid_of_tokens(y, x):
    net = Tokens(1 + 8 * y + x).eval()
    found = Saliency(net)(PICTURE, f"norm:4:{y}:{x}").output
    torch.testing.assert_close(found, net.embed(PICTURE)[:, 4, y, x])
    heat = LayerCam(net, "norm", upsample=False)(PICTURE, 0).values
    assert heat.shape == (2, 1, 4, 8)
    assert [divmod(int(one.argmax()), 8) for one in heat] == [(y, x)] * 2


@pytest.mark.parametrize("sizes", [(9,), (5, 6, 7)], ids=["signal", "volume"])
def test_heat_of_signals_and_volumes(sizes):
    torch.manual_seed(0)
    kind = nn.Conv1d if len(sizes) == 1 else nn.Conv3d
    head = nn.Linear(4 * torch.tensor(sizes).sub(2).prod(), 2)
    net, x = nn.Sequential(kind(2, 4, 3), nn.ReLU(), nn.Flatten(), head).eval(), torch.randn(3, 2, *sizes)
    maps = net[0](x).detach().requires_grad_()
    (slope,) = torch.autograd.grad(net[1:](maps)[:, 1].sum(), maps)
    axes = tuple(range(2, maps.dim()))
    wanted = (slope.mean(axes, keepdim=True) * maps.detach()).sum(1, keepdim=True).relu()
    found = GradCam(net, "0", upsample=False, channel_axis=1)(x, 1).values
    torch.testing.assert_close(found, wanted)
    place = ":".join("0" * len(sizes))
    torch.testing.assert_close(Saliency(net)(x, f"0:3:{place}").output, maps.detach()[:, 3].flatten(1)[:, 0])
    with pytest.raises(UnitError):
        Saliency(net)(x, f"0:3:{place}:0")


class Shared(nn.Module):
    """One ReLU that runs after each of two convolutions."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.relu = nn.Conv2d(3, 5, 3), nn.Conv2d(5, 5, 3), nn.ReLU()

    def forward(self, pictures):
        return self.relu(self.second(self.relu(self.first(pictures)))).mean((2, 3))


def means(net, name, pictures):
    """The means over places of a layer that runs twice, as each part of the library sees it."""
    with hooked(net, [name]) as seen, torch.no_grad():
        net(pictures)
    scores = {}
    objective = obj.Function(lambda found: scores.setdefault("all", found[name].mean((2, 3))).sum(1), [name])
    pixels = param.PixelImage(len(pictures), 3, *pictures.shape[2:], seed=0)
    pipeline = obj.Pipeline(pixels, objective).attach(net)
    with torch.no_grad():
        shown = pipeline.image
    examples = dataset_examples(net, name, [pictures], k=1, reduction="mean", verbose=False)
    yield run(net, pictures, record=[name])[name].mean((2, 3)), pictures
    yield seen[name].mean((2, 3)), pictures
    yield survey(net, [name], lambda: net(pictures)).activations[name].mean((2, 3)), pictures
    yield torch.stack([Saliency(net)(pictures, f"{name}:{unit}").output for unit in range(5)], 1), pictures
    yield scores["all"].detach(), shown
    yield torch.stack([examples.values(f"{name}:{unit}")[0] for unit in range(5)]), None


@pytest.mark.parametrize(("name", "last"), [("relu", True), ("relu#1", True), ("relu#0", False)])
def test_every_part_means_the_same_run(name, last):
    net = Shared().eval()

    def expected(pictures):
        first = net.first(pictures).relu()
        return (net.second(first).relu() if last else first).mean((2, 3)).detach()

    for found, pictures in means(net, name, PICTURE):
        if pictures is None:  # of the pictures that excite each unit most
            torch.testing.assert_close(found, expected(PICTURE).amax(0))
        else:
            torch.testing.assert_close(found, expected(pictures))


def test_weights_to_a_layer_that_runs_twice_are_those_to_its_last_run():
    net = Shared().eval()
    nn.init.constant_(net.second.bias, 5.0)  # so that the ReLU lets everything through
    weights = expanded_weights(net, "second", "relu", PICTURE[:1], [2]).weights
    assert weights.shape == (1, 5, 1, 1) and weights.flatten().argmax() == 2
