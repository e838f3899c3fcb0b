"""What comparisons with a reference measure, against their formulas; references from images; bad ones."""

import pytest
import torch
from torch import nn

import toumei.cnns.objectives as obj
import toumei.cnns.parameterization as param
from toumei.core.errors import ArgumentError, LayerError, ShapeError

KINDS = [obj.ActivationDifference, obj.Style, obj.DotCompare]


def activation(*size, seed=1):
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def photo(*size, seed=5):
    return torch.rand(*size, generator=torch.Generator().manual_seed(seed))


MAPS = {"conv": activation(3, 5, 4, 6), "fc": activation(3, 7, seed=3), "tokens": activation(3, 9, 4, seed=4)}


def values(tensor):
    return tensor.flatten().tolist()


def gram_entry(one, first, second):
    """The mean over positions of the product of two channels of (C, positions)."""
    return sum(a * b for a, b in zip(values(one[first]), values(one[second]), strict=True)) / one[0].numel()


def distances(first, second):
    differences = [a - b for a, b in zip(first, second, strict=True)]
    squared = sum(d * d for d in differences) / len(differences)
    return {"l1": sum(map(abs, differences)) / len(differences), "squared": squared, "l2": squared**0.5}


# ---------------------------------------------------------------- formulas


@pytest.mark.parametrize("layer", list(MAPS))
@pytest.mark.parametrize("references", [1, 3])
@pytest.mark.parametrize("distance", ["l1", "l2", "squared"])
def test_the_difference_is_the_distance_to_each_pictures_reference(layer, references, distance):
    reference = activation(references, *MAPS[layer].shape[1:], seed=7)
    scores = obj.ActivationDifference(layer, reference, distance=distance).score(MAPS)
    for image, one in enumerate(MAPS[layer]):
        expected = distances(values(one), values(reference[image % references]))[distance]
        assert scores[image].item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("layer", ["conv", "fc"])
def test_gram_is_the_mean_product_of_channels_over_positions(layer):
    grams = obj.gram(MAPS[layer])
    for image, one in enumerate(MAPS[layer]):
        for first in range(len(one)):
            for second in range(len(one)):
                expected = gram_entry(one, first, second)
                assert grams[image, first, second].item() == pytest.approx(expected, abs=1e-6)


def test_gram_of_tokens_and_of_a_named_axis_is_that_of_channels_first():
    torch.testing.assert_close(obj.gram(MAPS["tokens"]), obj.gram(MAPS["tokens"].mT[..., None]))
    torch.testing.assert_close(obj.gram(MAPS["conv"].movedim(1, -1), -1), obj.gram(MAPS["conv"]))


@pytest.mark.parametrize("distance", ["l1", "l2", "squared"])
def test_style_is_the_distance_of_gram_matrices_for_any_size_of_picture(distance):
    reference = activation(1, 5, 7, 3, seed=7)
    scores = obj.Style("conv", obj.gram(reference), distance=distance).score(MAPS)
    pairs = [(first, second) for first in range(5) for second in range(5)]
    wanted = [gram_entry(reference[0], *pair) for pair in pairs]
    for image, one in enumerate(MAPS["conv"]):
        expected = distances([gram_entry(one, *pair) for pair in pairs], wanted)[distance]
        assert scores[image].item() == pytest.approx(expected, abs=1e-6)


def test_style_does_not_see_where_things_are():
    shuffled = MAPS["conv"].flatten(2)[:, :, torch.randperm(24)].reshape(3, 5, 8, 3)
    assert obj.Style("conv", obj.gram(shuffled), distance="squared").score(MAPS).max() < 1e-24


@pytest.mark.parametrize("power", [0.0, 1.0, 2.5])
def test_dot_compare_is_lucids(power):
    reference = activation(1, 5, 4, 6, seed=7)
    scores = obj.DotCompare("conv", reference, power=power).score(MAPS)
    for image, one in enumerate(MAPS["conv"]):
        dot = sum(a * b for a, b in zip(values(one), values(reference), strict=True))
        cosine = dot / (1e-6 + sum(a * a for a in values(one)) ** 0.5)
        assert scores[image].item() == pytest.approx(dot * max(0.1, cosine) ** power, abs=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_the_index_of_a_picture_refers_to_its_activation_without_gradient(kind):
    maps = {"conv": MAPS["conv"].clone().requires_grad_()}
    by_index = kind("conv", 1)
    whole = obj.gram(MAPS["conv"]) if kind is obj.Style else MAPS["conv"]
    torch.testing.assert_close(by_index.score(maps), kind("conv", whole[1:2]).score(MAPS))
    by_index.score(maps)[0].backward()
    assert maps["conv"].grad[0].any() and not maps["conv"].grad[1:].any()


@pytest.mark.parametrize("kind", [obj.ActivationDifference, obj.Style])
@pytest.mark.parametrize("distance", ["l1", "l2", "squared"])
def test_at_the_reference_the_distance_is_zero_with_a_finite_gradient(kind, distance):
    maps = MAPS["conv"][:1].clone().requires_grad_()
    reference = obj.gram(maps) if kind is obj.Style else maps
    score = kind("conv", reference, distance=distance).score({"conv": maps})
    score.sum().backward()
    assert score.item() == pytest.approx(0, abs=2e-6)
    assert maps.grad.abs().max() < 1e-6


# ---------------------------------------------------------------- references from images


def normalized(images):
    return (images - 0.4) / 0.3


def test_reference_activations_are_those_of_the_preprocessed_images(small_cnn):
    images = photo(2, 3, 8, 10)
    found = obj.reference_activations(small_cnn, ["conv1", obj.IMAGE, "conv2"], images, normalized)
    with torch.no_grad():
        first = small_cnn.conv1(normalized(images))
        second = small_cnn.conv2(small_cnn.relu1(first.clone()))
    torch.testing.assert_close(found["conv1"], first)
    torch.testing.assert_close(found["conv2"], second)
    assert torch.equal(found[obj.IMAGE], images)


@pytest.mark.parametrize("kind", KINDS)
def test_to_image_is_the_objective_with_the_images_activation(kind, small_cnn):
    image = photo(1, 3, 8, 10)
    made = kind.to_image(small_cnn, "conv2", image, normalized)
    reference = obj.reference_activations(small_cnn, ["conv2"], image, normalized)["conv2"]
    reference = obj.gram(reference) if kind is obj.Style else reference
    torch.testing.assert_close(made.reference, reference)
    other = obj.reference_activations(small_cnn, ["conv2"], photo(2, 3, 8, 10, seed=6))
    torch.testing.assert_close(made.score(other), kind("conv2", reference).score(other))


def test_a_head_of_one_size_does_not_stop_a_reference_before_it(watched):
    model = watched(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4, 2)))
    assert obj.reference_activations(model, ["0"], photo(1, 3, 8, 8))["0"].shape == (1, 4, 6, 6)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        obj.reference_activations(model, ["0", "2"], photo(1, 3, 8, 8))


def start(objective, model, images=2, size=(8, 10)):
    generator = param.PixelImage(images, 3, *size, sd=0.2, seed=1)
    return obj.Pipeline(generator, objective).attach(model)


@pytest.mark.parametrize("kind", [obj.ActivationDifference, obj.Style])
def test_subtracting_a_difference_brings_the_pictures_nearer(kind, small_cnn):
    objective = kind.to_image(small_cnn, "conv2", photo(1, 3, 8, 10))
    losses = start(-objective, small_cnn).optimize(20, lr=0.1, verbose=False).losses
    assert (losses[-1] < 0.8 * losses[0]).all()


def test_a_reference_for_each_picture_is_its_own(small_cnn):
    images = photo(2, 3, 8, 10)
    both = start(-obj.ActivationDifference.to_image(small_cnn, "conv2", images), small_cnn)
    losses = both.optimize(1, verbose=False).losses[0]
    for index in range(2):
        one = -obj.ActivationDifference.to_image(small_cnn, "conv2", images[index : index + 1])
        torch.testing.assert_close(
            start(one, small_cnn).optimize(1, verbose=False).losses[0, index], losses[index]
        )
    with pytest.raises(ShapeError, match="the objective is for 2 pictures"):
        start(obj.ActivationDifference.to_image(small_cnn, "conv2", images), small_cnn, images=3)


def test_references_combine_with_units_and_go_into_lists(small_cnn):
    style = obj.Style.to_image(small_cnn, "conv1", photo(1, 3, 12, 9))
    losses = start(["conv2:1" - style, obj.Channel("conv2:2") - 2 * style], small_cnn).optimize(
        3, verbose=False
    )
    assert losses.losses.isfinite().all()


# ---------------------------------------------------------------- what is said about bad references


@pytest.mark.parametrize("kind", [obj.ActivationDifference, obj.DotCompare])
def test_a_reference_of_another_size_says_so_when_a_model_is_attached(kind, small_cnn):
    objective = kind.to_image(small_cnn, "conv2", photo(1, 3, 12, 10))
    with pytest.raises(
        ShapeError, match=r"reference of layer 'conv2' is \(5, 6, 5\).*makes \(5, 4, 5\).*size"
    ):
        start(objective, small_cnn)


def test_a_style_of_other_channels_says_so():
    with pytest.raises(ShapeError, match=r"is \(4, 4\), and of the pictures the layer makes \(5, 5\)"):
        obj.Style("conv", torch.ones(1, 4, 4)).score(MAPS)


@pytest.mark.parametrize("kind", KINDS)
def test_references_that_are_none_are_errors_at_once(kind):
    with pytest.raises(ShapeError, match=r"batch first, .* got \(3,\)"):
        kind("conv", torch.ones(3))
    for nonsense in (-1, None, "photo"):
        with pytest.raises(ArgumentError, match="a tensor or the index of a picture"):
            kind("conv", nonsense)
    with pytest.raises(ArgumentError, match="no picture 3 as the reference in a batch of 3"):
        kind("conv", 3).score(MAPS)


@pytest.mark.parametrize("kind", [obj.ActivationDifference, obj.Style])
def test_an_unknown_distance_is_an_error_at_once(kind):
    with pytest.raises(ArgumentError, match="distance is one of .*'squared'.*got 'cosine'"):
        kind("conv", 0, distance="cosine")


@pytest.mark.parametrize(
    ("image", "match"),
    [
        (torch.ones(3, 8, 8), r"\(N, C, H, W\), got \(3, 8, 8\)"),
        (torch.ones(1, 3, 8, 8, dtype=torch.uint8), "floating-point"),
        (255 * photo(1, 3, 8, 8), r"in \[0, 1\], got values from .* to 25"),
        (photo(1, 3, 8, 8) - 0.5, r"in \[0, 1\], got values from -0.499\d+ to 0.494"),
        (torch.full((1, 3, 8, 8), torch.nan), "nan"),
    ],
)
def test_images_of_a_wrong_rank_or_range_say_so(image, match, small_cnn):
    with pytest.raises(ShapeError, match=match):
        obj.ActivationDifference.to_image(small_cnn, "conv1", image)


def test_a_layer_that_does_not_exist_says_so(small_cnn):
    with pytest.raises(LayerError, match="did you mean conv2, conv1"):
        obj.Style.to_image(small_cnn, "conv3", photo(1, 3, 8, 8))
