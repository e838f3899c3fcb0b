"""Whole numbers and booleans beside inputs that have gradients."""

import pytest
import torch
from torch import nn

from toumei.attribution import (
    DeepLift,
    DeepLiftShap,
    ExpectedGradients,
    FromData,
    GuidedBackprop,
    InputXGradient,
    IntegratedGradients,
    Saliency,
    SmoothGrad,
)


class Masked(nn.Module):
    """Sums the squares of embeddings where a mask is set."""

    def forward(self, embeds, mask):
        return (embeds.square().sum(2) * mask).sum(1)


WITH_GRADIENTS = [
    Saliency,
    InputXGradient,
    GuidedBackprop,
    SmoothGrad,
    IntegratedGradients,
    ExpectedGradients,
    DeepLift,
    DeepLiftShap,
]


@pytest.mark.parametrize("dtype", [torch.long, torch.bool])
@pytest.mark.parametrize("method", WITH_GRADIENTS, ids=lambda method: method.__name__)
def test_a_mask_beside_embeddings_stays_as_it_is(method, dtype):
    embeds = torch.randn(3, 4, 2, generator=torch.Generator().manual_seed(3))
    mask = torch.tensor([[1, 1, 0, 1], [1, 0, 0, 0], [1, 1, 1, 1]]).to(dtype)
    few = {"batch_size": 7}
    as_dict = method(Masked(), **few)({"embeds": embeds, "mask": mask}).values
    as_tuple = method(Masked(), **few)((embeds, mask)).values
    fixed = [
        method(lambda_of(kept), **few)(one).values for kept, one in zip(mask, embeds.split(1), strict=True)
    ]
    assert torch.allclose(as_dict["embeds"], torch.cat(fixed), atol=1e-6)
    assert torch.equal(as_tuple[0], as_dict["embeds"]) and torch.equal(as_tuple[1], as_dict["mask"])
    assert as_dict["mask"].shape == mask.shape and as_dict["mask"].eq(0).all()
    several = method(Masked(), **few)((embeds, mask), [None, lambda out: 2 * out])
    assert torch.allclose(several[1].values[0], 2 * as_tuple[0], atol=1e-5)
    assert several[1].values[1].shape == mask.shape


def lambda_of(mask):
    """The network with a mask that it knows."""

    class Own(nn.Module):
        def forward(self, embeds):
            return Masked()(embeds, mask)

    return Own()


def test_a_layer_behind_a_mask_has_the_baseline_of_the_embeddings_alone():
    class Layered(nn.Module):
        def __init__(self):
            super().__init__()
            self.masked = nn.Identity()

        def forward(self, embeds, mask):
            return self.masked((embeds + 1) * mask[..., None]).square().sum((1, 2))

    embeds, mask = torch.randn(3, 4, 2), torch.tensor([[1, 1, 0, 1], [1, 0, 0, 0], [1, 1, 1, 1]])
    result = IntegratedGradients(Layered(), "masked", batch_size=2)((embeds, mask), baselines=0.5)
    expected = ((embeds + 1).square() - 1.5**2) * mask[..., None]
    assert torch.allclose(result.values, expected, atol=1e-4)
    drawn = DeepLiftShap(Layered(), "masked", samples=4, batch_size=5)(
        (embeds, mask), baselines=(FromData(torch.full((3, 4, 2), 0.5)), None)
    )
    assert torch.allclose(drawn.values, expected, atol=1e-4)
