"""CPPNs: the formula, the initialization, the grid, and that images of a batch are independent."""

import math

import pytest
import torch

from toumei.core.errors import ArgumentError, ShapeError
from toumei.models import CPPN


def seeded(seed: int = 0, **arguments: int) -> CPPN:
    return CPPN(generator=torch.Generator().manual_seed(seed), **arguments)


def painting(images: int = 1) -> CPPN:
    """A network whose last layer is no longer 0, in double precision."""
    cppn = seeded(hidden=5, layers=3, images=images).double()
    with torch.no_grad():
        cppn.output.weight.normal_(generator=torch.Generator().manual_seed(1))
        cppn.output.bias.normal_(generator=torch.Generator().manual_seed(2))
    return cppn


def test_one_pixel_is_the_written_out_formula() -> None:
    cppn, grid = painting(), CPPN.coordinates(4, 6).double()
    values = grid[0, :, 2, 5]
    for layer in (cppn.linear0, cppn.linear1, cppn.linear2):
        angle = torch.atan(layer.weight[0] @ values + layer.bias[0, :, 0])
        values = torch.cat([angle / 0.67, angle**2 / 0.6])
    expected = cppn.output.weight[0] @ values + cppn.output.bias[0, :, 0]
    assert torch.allclose(cppn(grid)[0, :, 2, 5], expected, atol=1e-12)


def test_layers_are_lucids() -> None:
    shapes = [tuple(weight.shape) for name, weight in CPPN().named_parameters() if "weight" in name]
    assert shapes == [(1, 24, 2)] + [(1, 24, 48)] * 7 + [(1, 3, 48)]


def test_initial_weights_have_the_stated_spread() -> None:
    cppn = seeded(images=200)
    assert cppn.linear0.weight.std().item() == pytest.approx(2**-0.5, rel=0.03)
    assert cppn.linear3.weight.std().item() == pytest.approx(48**-0.5, rel=0.03)
    assert cppn.linear3.bias.std().item() == pytest.approx(0.1, rel=0.05)
    assert not cppn.output.weight.any() and not cppn.output.bias.any()


def test_a_seed_decides_the_weights_and_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    first, again, other = seeded(3), seeded(3), seeded(4)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.linear4.weight, again.linear4.weight)
    assert not torch.equal(first.linear4.weight, other.linear4.weight)


@pytest.mark.parametrize("choice", [[1], [2, 0], slice(1, 3), torch.tensor([2])])
def test_images_of_a_batch_can_be_painted_alone(choice: slice | list[int] | torch.Tensor) -> None:
    cppn, grid = painting(images=3), CPPN.coordinates(7, 9).double()
    assert torch.allclose(cppn(grid, images=choice), cppn(grid)[choice], atol=1e-12)


def test_an_image_gives_gradients_to_its_own_weights_only() -> None:
    cppn = painting(images=3)
    cppn(CPPN.coordinates(5, 5).double())[1].sum().backward()
    for name, weight in cppn.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad[1].any() and not weight.grad[0].any() and not weight.grad[2].any(), name


def test_every_image_can_have_its_own_grid_and_one_image_many() -> None:
    one, grids = painting(), torch.randn(3, 2, 4, 5, dtype=torch.float64)
    assert torch.allclose(one(grids)[1:2], one(grids[1:2]), atol=1e-12)
    many = painting(images=3)
    assert torch.allclose(many(grids)[2:], many(grids[2:], images=[2]), atol=1e-12)


def test_nothing_bounds_the_output() -> None:
    cppn = painting()
    with torch.no_grad():
        cppn.output.bias.fill_(1000.0)
    assert (cppn(CPPN.coordinates(3, 3).double()) > 900).all()


def test_a_square_grid_is_lucids() -> None:
    x, y = CPPN.coordinates(11, 11)[0]
    line = torch.linspace(-math.sqrt(3), math.sqrt(3), 11)
    assert torch.allclose(x, line.expand(11, 11), atol=1e-6)
    assert torch.allclose(y, line[:, None].expand(11, 11), atol=1e-6)


@pytest.mark.parametrize("size", [(64, 64), (97, 131), (200, 51), (1, 30), (1, 1)])
def test_every_grid_has_square_pixels_and_the_same_diagonal(size: tuple[int, int]) -> None:
    grid = CPPN.coordinates(*size)
    assert grid.shape == (1, 2, *size)
    assert torch.allclose(grid, -grid.flip(2, 3), atol=1e-5)
    steps = torch.cat([grid[0, 0].diff(dim=1).flatten(), grid[0, 1].diff(dim=0).flatten()])
    assert torch.allclose(steps, steps[:1].expand_as(steps), atol=1e-5)
    diagonal = (grid[0, :, -1, -1] - grid[0, :, 0, 0]).norm().item()
    assert diagonal == pytest.approx(0 if size == (1, 1) else math.sqrt(24), rel=1e-5)


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ArgumentError, match="layers of at least 1, got 0"):
        CPPN(layers=0)
    with pytest.raises(ArgumentError, match="0 x 5"):
        CPPN.coordinates(0, 5)
    with pytest.raises(ShapeError, match=r"\(N, 2, H, W\), got \(1, 3, 4, 4\)"):
        CPPN()(torch.zeros(1, 3, 4, 4))
    with pytest.raises(ShapeError, match="2 grids for 3 images"):
        CPPN(images=3)(torch.zeros(2, 2, 4, 4))
