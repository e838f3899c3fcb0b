"""Random views of pictures: where each pixel of a view comes from, and whose draw it is."""

import inspect

import kornia.augmentation as K
import pytest
import torch
from pictures import every_size, pictures, ramps
from torch import nn

from toumei.cnns import robustness
from toumei.cnns.robustness.transforms import CropOrPad, Jitter, Pad, Rotate, Scale, View, Views
from toumei.core import seeded
from toumei.core.errors import ArgumentError, ShapeError

# A small example of every piece: a new one must be added here.
PIECES = {
    "Pad": lambda **options: Pad(3, **options),
    "CropOrPad": lambda **options: CropOrPad(17, 22, **options),
    "Jitter": lambda **options: Jitter(4, **options),
    "Scale": lambda **options: Scale([0.9, 1.0, 1.15], **options),
    "Rotate": lambda **options: Rotate(range(-30, 31), **options),
    "Views": lambda **options: Views(Pad(3), Jitter(4), Rotate([-20, 10, 35]), Scale([0.8, 1.2]), **options),
}
EXPORTED = [
    name
    for name, thing in vars(robustness).items()
    if inspect.isclass(thing) and issubclass(thing, View) and thing is not View and name[0] != "_"
]
RANDOM = [name for name in EXPORTED if name not in ("Pad", "CropOrPad")]
every_piece = pytest.mark.parametrize("name", EXPORTED)
every_random_piece = pytest.mark.parametrize("name", RANDOM)


def check_origins(view, maps, size):
    """Checks that each pixel of a view of ramps is from where the inverse map says, where it is inside."""
    images, _, height, width = view.shape
    pixels = ramps(images, height, width).double()
    origins = torch.linalg.solve(maps.double(), pixels.flatten(2)).view_as(pixels)
    x, y = origins[:, 0], origins[:, 1]
    inside = (x > 0.01) & (x < size[1] - 1.01) & (y > 0.01) & (y < size[0] - 1.01)
    assert inside.flatten(1).sum(1).min() > 20
    torch.testing.assert_close(view[:, 0].double()[inside], x[inside], atol=2e-4, rtol=0)
    torch.testing.assert_close(view[:, 1].double()[inside], y[inside], atol=2e-4, rtol=0)
    torch.testing.assert_close(view[:, 2].double()[inside], torch.ones_like(x[inside]), atol=1e-6, rtol=0)


@every_piece
def test_every_piece_is_a_kornia_augmentation(name):
    assert isinstance(PIECES[name](), K.GeometricAugmentationBase2D)


@every_piece
@every_size
def test_each_pixel_of_a_view_is_where_the_map_of_the_piece_says(name, size):
    piece = PIECES[name](fill=0.0)
    with seeded(2):
        view = piece(ramps(4, *size))
    check_origins(view, piece.transform_matrix, size)


@every_size
def test_views_is_the_product_of_the_maps_of_its_pieces(size):
    pieces = [Pad(3), Jitter(4), Scale([0.8, 1.2]), Rotate([-20, 10, 35]), CropOrPad(19, 26), Jitter(2)]
    with seeded(3):
        product, step_size = torch.eye(3).expand(5, 3, 3), size
        for piece in pieces:
            step, step_size = piece.draw(5, step_size)
            product = step @ product
    whole = Views(*pieces, fill=0.0)
    with seeded(3):
        view = whole(ramps(5, *size))
    assert view.shape == (5, 3, *step_size)
    torch.testing.assert_close(whole.transform_matrix, product)
    check_origins(view, product, size)


def test_integer_moves_one_after_the_other_are_one_view():
    image = pictures(3, 11, 14)
    with seeded(4):
        expected = Jitter(3)(Jitter(2)(Pad(4)(image)))
    with seeded(4):
        view = Views(Pad(4), Jitter(2), Jitter(3))(image)
    torch.testing.assert_close(view, expected, atol=1e-5, rtol=0)


@every_random_piece
def test_each_image_of_a_batch_has_a_draw_of_its_own(name):
    image = pictures(1, 20, 20).expand(32, -1, -1, -1)
    with seeded(5):
        views = PIECES[name]()(image)
    assert len(views.flatten(1).unique(dim=0)) > 2


@every_piece
def test_same_on_batch_gives_all_images_one_draw(name):
    piece = PIECES[name](same_on_batch=True)
    draws = set()
    for seed in range(8):
        with seeded(seed):
            views = piece(pictures(1, 20, 20).expand(6, -1, -1, -1))
        torch.testing.assert_close(views, views[:1].expand_as(views), atol=1e-6, rtol=0)
        draws.add(tuple(views[0].flatten().tolist()))
    assert (len(draws) > 1) == (name in RANDOM)


@pytest.mark.parametrize("size", [(12, 12), (9, 16)])
def test_jitter_is_one_of_the_integer_crops_and_all_of_them_occur(size):
    image = pictures(1, *size)
    crops = {
        (y, x): image[0, :, y : y + size[0] - 2, x : x + size[1] - 2] for y in range(3) for x in range(3)
    }
    with seeded(8):
        views = Jitter(2)(image.expand(200, -1, -1, -1))
    seen = set()
    for view in views:
        matching = [place for place, crop in crops.items() if torch.allclose(view, crop, atol=1e-5, rtol=0)]
        assert len(matching) == 1
        seen.add(matching[0])
    assert seen == set(crops)


@pytest.mark.parametrize("turns", [-1, 0, 1, 2, 3])
def test_rotation_by_right_angles_is_rot90(turns):
    image = pictures(2, 9, 9)
    view = Rotate([90 * turns])(image)
    torch.testing.assert_close(view, torch.rot90(image, turns, dims=(2, 3)), atol=1e-5, rtol=0)


def test_half_a_turn_of_an_oblong_picture_flips_both_axes():
    image = pictures(1, 7, 10)
    torch.testing.assert_close(Rotate([180])(image), image.flip(2, 3), atol=1e-5, rtol=0)


@every_size
def test_scale_by_two_shows_the_middle_half_twice_as_large(size):
    view = Scale([2])(ramps(1, *size))
    centre = torch.tensor([(size[1] - 1) / 2, (size[0] - 1) / 2]).view(1, 2, 1, 1)
    expected = centre + (ramps(1, *size)[:, :2] - centre) / 2
    torch.testing.assert_close(view[:, :2], expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("pixels", [0, 1, 5])
def test_pad_is_a_border_of_the_fill_and_the_negative_crops_it_again(pixels):
    image = pictures(2, 7, 10)
    expected = nn.functional.pad(image, [pixels] * 4, value=0.25)
    padded = Pad(pixels, fill=0.25)(image)
    torch.testing.assert_close(padded, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(Pad(-pixels)(padded), image, atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [(7, 10), (4, 15), (12, 3), (8, 8), (1, 1)])
def test_crop_or_pad_gives_its_size_and_keeps_whole_pixels(size):
    image = pictures(2, 7, 10)
    view = CropOrPad(*size, fill=0.25)(image)
    assert view.shape == (2, 3, *size)
    y, x = ((new - old) // 2 for new, old in zip(size, (7, 10), strict=True))
    expected = torch.full((2, 3, *size), 0.25)
    for row in range(size[0]):
        for column in range(size[1]):
            if 0 <= row - y < 7 and 0 <= column - x < 10:
                expected[:, :, row, column] = image[:, :, row - y, column - x]
    torch.testing.assert_close(view, expected, atol=1e-5, rtol=0)


def test_places_outside_are_gray_or_the_fill():
    corners = Rotate([45])(torch.zeros(1, 3, 21, 21))[0, :, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert torch.equal(corners, torch.full((3, 4), 0.5))
    corners = robustness.lucid(fill=2.0)(torch.zeros(1, 3, 21, 21))[0, :, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert torch.equal(corners, torch.full((3, 4), 2.0))


@every_piece
def test_a_picture_of_the_fill_stays_that(name):
    image = torch.full((3, 3, 20, 20), 0.5)
    assert torch.equal(PIECES[name]()(image).unique(), torch.tensor([0.5]))


@every_piece
def test_gradient_is_that_of_a_linear_map_of_the_picture(name):
    piece, image = PIECES[name](fill=0.0), pictures(2, 20, 20).double().requires_grad_()
    with seeded(9):
        view = piece(image)
    weights = torch.rand_like(view)
    (gradient,) = torch.autograd.grad((view * weights).sum(), image)
    torch.testing.assert_close((gradient * image).sum(), (view * weights).sum())
    assert gradient.ne(0).any()


@every_piece
@pytest.mark.parametrize("channels", [1, 4])
def test_any_number_of_channels(name, channels):
    assert PIECES[name]()(torch.rand(2, channels, 20, 20)).shape[:2] == (2, channels)


@every_random_piece
def test_draws_come_from_torchs_global_generator(name):
    piece, image = PIECES[name](), pictures(4, 20, 20)
    torch.manual_seed(1)
    first, other = piece(image), piece(image)
    torch.manual_seed(1)
    assert torch.equal(piece(image), first)
    assert not torch.equal(first, other)


@every_piece
def test_a_seed_repeats_a_draw_and_leaves_the_global_generator_alone(name):
    piece, image = PIECES[name](), pictures(4, 20, 20)
    state = torch.get_rng_state()
    with seeded(11):
        first = piece(image)
    with seeded(11):
        assert torch.equal(piece(image), first)
    assert torch.equal(torch.get_rng_state(), state)


@every_piece
def test_a_recorded_draw_can_be_replayed(name):
    piece, image = PIECES[name](), pictures(4, 20, 20)
    view = piece(image)
    assert torch.equal(piece(image, params=piece._params), view)


def test_pieces_mix_with_kornia_in_a_sequential():
    pipeline = nn.Sequential(robustness.light(), K.RandomHorizontalFlip(p=1.0), Jitter(2))
    assert pipeline(pictures(2, 20, 24)).shape == (2, 3, 18, 22)


def test_an_augmentation_sequential_moves_keypoints_as_the_picture():
    image = torch.zeros(2, 1, 21, 21)
    image[:, :, 8:11, 11:14] = 1.0  # around x 12, y 9
    points = torch.tensor([[[12.0, 9.0]]] * 2)
    pipeline = K.AugmentationSequential(
        Views(Pad(3), Jitter(4), Rotate([-25, 25]), fill=0.0),
        Pad(2, fill=0.0),
        Rotate([40], fill=0.0),
        K.RandomHorizontalFlip(p=1.0),
        data_keys=["input", "keypoints"],
    )
    with seeded(12):
        view, moved = pipeline(image, points)
    assert view.shape == (2, 1, 21 + 6 - 4 + 4, 21 + 6 - 4 + 4)
    y, x = torch.meshgrid(*(torch.arange(size).float() for size in view.shape[2:]), indexing="ij")
    mass = view.sum((1, 2, 3))
    centres = torch.stack([(view[:, 0] * x).sum((1, 2)) / mass, (view[:, 0] * y).sum((1, 2)) / mass], dim=1)
    torch.testing.assert_close(moved[:, 0], centres, atol=0.05, rtol=0)


@pytest.mark.parametrize(
    "make", [lambda: Jitter(0), lambda: Jitter(-2), lambda: Scale([]), lambda: Rotate([]), Views]
)
def test_pieces_without_a_choice_are_an_error_at_once(make):
    with pytest.raises(ArgumentError, match="at least"):
        make()


@pytest.mark.parametrize("piece", [Jitter(8), Pad(-4), Views(Jitter(3), Jitter(5)), CropOrPad(0, 4)])
def test_a_picture_of_which_nothing_is_left_is_an_error(piece):
    with pytest.raises(ShapeError, match=r"nothing is left of a picture of \(8, 9\) pixels"):
        piece(pictures(1, 8, 9))


def test_pieces_print_what_they_do():
    pieces = "Pad(2), Jitter(2), Scale(5 values from 0.95 to 1.05), Rotate(11 values from -5 to 5), Jitter(2)"
    assert repr(robustness.light()) == f"Views({pieces})"


@pytest.mark.parametrize("piece", [Jitter(2, same_on_batch=True), Pad(2, fill=0.0)])
def test_a_piece_with_options_of_its_own_is_refused_not_ignored(piece):
    with pytest.raises(ArgumentError, match="give them to Views"):
        Views(piece)
    assert Views(type(piece)(2), same_on_batch=piece.same_on_batch, fill=piece.fill)
