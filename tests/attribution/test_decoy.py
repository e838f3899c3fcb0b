"""A network that decides by a patch in the corner, whatever else there is, as every method has to say.

It is the decoy of Sturmfels et al. (2020), whose patch has the brightness 255 * class / 9, on noise.
"""

import pytest
import torch
from torch import nn

from toumei.attribution import (
    LRP,
    DeepLift,
    DeepLiftShap,
    ExactShapley,
    ExpectedGradients,
    FromData,
    InputXGradient,
    IntegratedGradients,
    KernelShap,
    Lime,
    Occlusion,
    PartitionShap,
    Saliency,
    ShapleySampling,
    SmoothGrad,
    grid,
    relevance_mass_accuracy,
)

CLASSES, SIDE, PATCH = 4, 6, 2


def decoys(count, seed):
    """Images of noise with a patch, and their classes."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(count, 1, SIDE, SIDE, generator=generator)
    labels = torch.arange(count) % CLASSES
    images[:, :, :PATCH, :PATCH] = (labels / (CLASSES - 1))[:, None, None, None]
    return images, labels


@pytest.fixture(scope="module")
def decoyed():
    """A network that names more than 99 % of such images rightly."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(SIDE**2, 32), nn.ReLU(), nn.Linear(32, CLASSES))
        images, labels = decoys(1000, seed=0)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.02, weight_decay=1e-3)
        for _ in range(200):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images), labels).backward()
            optimizer.step()
    images, labels = decoys(400, seed=1)
    assert (model(images).argmax(1) == labels).float().mean() > 0.99
    return model.eval().requires_grad_(False)


CORNER = torch.zeros(20, SIDE, SIDE, dtype=torch.bool)
CORNER[:, :PATCH, :PATCH] = True
DATA = FromData(decoys(100, seed=2)[0])
CELLS = grid(decoys(1, seed=2)[0], SIDE // PATCH)  # the patch is one of them


@pytest.mark.parametrize(
    ("method", "options"),
    [
        (Saliency, {}),
        (InputXGradient, {}),
        (SmoothGrad, {}),
        (LRP, {}),
        (IntegratedGradients, {}),
        (ExpectedGradients, {"baselines": DATA}),
        (DeepLift, {}),
        (DeepLiftShap, {"baselines": DATA}),
        (ExactShapley, {"features": CELLS, "verbose": False}),
        (KernelShap, {"features": CELLS, "verbose": False, "baselines": DATA}),
        (ShapleySampling, {"features": CELLS, "verbose": False, "baselines": DATA}),
        (PartitionShap, {"features": CELLS, "verbose": False}),
        (Lime, {"features": CELLS, "verbose": False}),
        (Occlusion, {"window": PATCH, "stride": PATCH, "verbose": False}),
    ],
)
def test_what_the_network_decides_by_is_found(decoyed, watched, method, options):
    images, labels = decoys(20, seed=3)
    baselines = options.get("baselines", 0.5)
    settings = {name: value for name, value in options.items() if name != "baselines"}
    result = method(watched(decoyed), **settings)(images, labels, baselines)
    share = CORNER.double().mean()  # what contributions at random have there
    assert relevance_mass_accuracy(result.values, CORNER).mean() > 4 * share


def test_a_baseline_of_the_patch_s_own_colour_is_blind_to_it(decoyed):
    """The class whose patch is black, against black, and against other images."""
    images, labels = decoys(20, seed=3)
    black = labels == 0
    for method in (IntegratedGradients, DeepLift):
        blind = method(decoyed)(images[black], 0, baselines=0.0)
        assert (blind.values[:, :, :PATCH, :PATCH] == 0).all() and (blind.values != 0).any()
    seen = ExpectedGradients(decoyed)(images[black], 0, baselines=DATA)
    assert relevance_mass_accuracy(seen.values, CORNER[black]).mean() > 0.5
