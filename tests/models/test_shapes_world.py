"""The shapes world: what the masks, the places and the backgrounds promise is what the pixels show."""

import math

import pytest
import torch
from torch.utils.data import DataLoader

from toumei.core.errors import ArgumentError, ShapeError
from toumei.models.shapes_world import CLASSES, ShapesDataset

COUNT = 240


@pytest.fixture(scope="module")
def dataset():
    return ShapesDataset(seed=5, size=1000)


@pytest.fixture(scope="module")
def world(dataset):
    return dataset.batch(range(COUNT))


def label(name, count=COUNT):
    return [CLASSES.index(name)] * count


def grown(masks, pixels):
    """The masks with all pixels near them; three hold the blended rim, even at the tips of stars."""
    size = 2 * pixels + 1
    return torch.nn.functional.max_pool2d(masks.float()[:, None], size, 1, pixels)[:, 0] > 0


def test_an_image_depends_on_seed_and_index_only(dataset, world):
    images, labels, masks = ShapesDataset(seed=5, size=20).batch([17, 3])
    for row, index in enumerate([17, 3]):
        image, one_label, mask = dataset[index]
        assert isinstance(one_label, int) and one_label == labels[row] == world[1][index]
        assert torch.allclose(image, images[row], atol=1e-6)
        assert torch.allclose(image, world[0][index], atol=1e-6)
        assert torch.equal(mask, masks[row]) and torch.equal(mask, world[2][index])


def test_seeds_and_indices_give_different_images(dataset, world):
    other, _, _ = ShapesDataset(seed=6).batch(range(20))
    assert ((other - world[0][:20]).abs().mean((1, 2, 3)) > 0.02).all()
    assert ((world[0][1:] - world[0][:-1]).abs().mean((1, 2, 3)) > 0.02).all()


def test_the_global_generators_are_left_alone(dataset):
    before = torch.get_rng_state()
    dataset.batch(range(4))
    assert torch.equal(torch.get_rng_state(), before)


def test_shapes_types_and_range(world):
    images, labels, masks = world
    assert images.shape == (COUNT, 3, 64, 64) and images.dtype == torch.float32
    assert labels.shape == (COUNT,) and labels.dtype == torch.int64
    assert masks.shape == (COUNT, 64, 64) and masks.dtype == torch.bool
    assert images.min() >= 0 and images.max() <= 1


def test_a_data_loader_gives_the_batches(dataset, world):
    images, labels, masks = next(iter(DataLoader(dataset, batch_size=8)))
    assert torch.allclose(images, world[0][:8], atol=1e-6)
    assert torch.equal(labels, world[1][:8]) and torch.equal(masks, world[2][:8])


def test_indices_work_as_in_lists(dataset):
    assert len(dataset) == 1000
    assert torch.equal(dataset[-1][0], dataset[999][0])
    for index in (1000, -1001):
        with pytest.raises(IndexError, match="1000 images"):
            dataset[index]
    assert len(list(ShapesDataset(size=3))) == 3


def test_an_empty_batch_is_empty(dataset):
    images, labels, masks = dataset.batch([])
    assert images.shape == (0, 3, 64, 64) and labels.shape == (0,) and masks.shape == (0, 64, 64)


@pytest.mark.parametrize("arguments", [{"size": 0}, {"seed": -1}])
def test_senseless_arguments_are_refused(arguments):
    with pytest.raises(ArgumentError, match="is (0|-1)"):
        ShapesDataset(**arguments)


def test_senseless_labels_are_refused(dataset):
    with pytest.raises(ArgumentError, match="8"):
        dataset.batch([0], labels=[8])
    with pytest.raises(ShapeError, match="2 indices"):
        dataset.batch([0, 1], labels=[1])


def test_classes_are_balanced():
    labels = ShapesDataset(seed=2).batch(range(800))[1]
    counts = torch.bincount(labels, minlength=len(CLASSES)).double()
    expected = 800 / len(CLASSES)
    # 99.9 % quantile of chi squared with 7 degrees of freedom.
    assert ((counts - expected) ** 2 / expected).sum() < 24.3


def test_pixels_differ_from_the_background_inside_of_the_mask_only(dataset, world):
    images, _, masks = world
    differs = (images - dataset.backgrounds(range(COUNT))).abs().amax(1) > 1e-3
    assert not (differs & ~grown(masks, 3)).any()
    assert differs[masks].float().mean() > 0.999


def test_the_shape_is_seen_against_its_surroundings(dataset, world):
    images, _, masks = world
    rim = grown(masks, 4) & ~masks
    surroundings = (images * rim[:, None]).sum((2, 3)) / rim.sum((1, 2))[:, None]
    distance = (images - surroundings[..., None, None]).norm(dim=1)
    per_image = (distance * masks).sum((1, 2)) / masks.sum((1, 2))
    assert per_image.min() > 0.25


@pytest.mark.parametrize("name", ["disc", "square", "ring", "triangle"])
def test_mask_areas_are_those_of_geometry(dataset, name):
    _, _, masks = dataset.batch(range(COUNT), labels=label(name))
    placement = dataset.placement(range(COUNT))
    radius = placement.radius
    inner = radius * (0.7 - 0.2 * placement.thickness)
    expected = {
        "disc": math.pi * radius**2,
        "square": 2 * radius**2,
        "ring": math.pi * (radius**2 - inner**2),
        "triangle": math.sqrt(27) / 4 * radius**2,
    }[name]
    # Counting pixels is off by a share of the outline, not of the area: most in an upright square.
    assert ((masks.sum((1, 2)) - expected).abs() < 1.5 * radius + 4).all()
    assert (masks.sum((1, 2)) / expected).mean().sub(1).abs() < 0.01


def test_masks_lie_where_the_placement_says(dataset):
    masks = dataset.batch(range(COUNT), labels=label("disc"))[2].float()
    axis = torch.arange(64) + 0.5
    area = masks.sum((1, 2))
    center = torch.stack([(masks.sum(1) * axis).sum(1) / area, (masks.sum(2) * axis).sum(1) / area], 1)
    assert (center - dataset.placement(range(COUNT)).center).abs().max() < 0.3


def test_every_shape_lies_inside_of_the_image_and_is_not_empty(dataset):
    placement = dataset.placement(range(COUNT))
    assert (placement.center - placement.radius[:, None]).min() >= 0
    assert (placement.center + placement.radius[:, None]).max() <= 64
    for name in CLASSES:
        assert dataset.batch(range(60), labels=label(name, 60))[2].sum((1, 2)).min() >= 60


def test_another_label_changes_pixels_of_the_two_shapes_only(dataset, world):
    images, labels, masks = world
    others, given, other_masks = dataset.batch(range(COUNT), labels=(labels + 3) % len(CLASSES))
    assert torch.equal(given, (labels + 3) % len(CLASSES))
    around = ~grown(masks | other_masks, 3)
    assert torch.equal(images.permute(0, 2, 3, 1)[around], others.permute(0, 2, 3, 1)[around])


def test_backgrounds_do_not_tell_the_class(dataset):
    """A classifier fitted on statistics of the background alone stays at chance on held-out images."""
    backgrounds, labels = dataset.backgrounds(range(700)), dataset.batch(range(700))[1]
    spectrum = torch.fft.rfft2(backgrounds.mean(1)).abs().log()[:, :8, :8].flatten(1)
    features = torch.cat([backgrounds.mean((2, 3)), backgrounds.std((2, 3)), spectrum], 1)
    features = torch.cat([(features - features.mean(0)) / features.std(0), torch.ones(700, 1)], 1)
    targets = torch.nn.functional.one_hot(labels, len(CLASSES)).float()
    solution = torch.linalg.lstsq(features[:350], targets[:350]).solution
    hits = ((features[350:] @ solution).argmax(1) == labels[350:]).float().mean()
    # Chance is 1/8; four standard errors of 350 trials are 0.07.
    assert hits < 1 / 8 + 0.07
