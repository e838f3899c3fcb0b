"""Directions, weighted groups, families of pictures and regularizers, against their formulas."""

import pytest
import torch

import toumei.cnns.objectives as obj
import toumei.cnns.parameterization as param
from toumei.core.errors import ArgumentError, ShapeError, UnitError


def activation(*size, seed=1):
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


MAPS = {
    "conv": activation(6, 5, 4, 7),
    "fc": activation(6, 8, seed=3),
    "tokens": activation(6, 17, 4, seed=4),
}
PICTURE = {obj.IMAGE: activation(2, 3, 9, 8, seed=5)}
SIMILARITIES = ["dot", "cosine", "dot-cosine"]


def close(found, expected):
    torch.testing.assert_close(found, torch.as_tensor(expected, dtype=found.dtype), atol=1e-6, rtol=1e-6)


def similarity(vector, direction, kind, power):
    """lucid's `_dot_cossim` of two vectors, and its parts."""
    dot = sum(a * b for a, b in zip(vector.tolist(), direction.tolist(), strict=True))
    cosine = dot / (vector.norm().item() + 1e-4) / (direction.norm().item() + 1e-4)
    return {"dot": dot, "cosine": cosine, "dot-cosine": dot * max(0.1, cosine) ** power}[kind]


# ---------------------------------------------------------------- directions


@pytest.mark.parametrize("kind", SIMILARITIES)
@pytest.mark.parametrize(("position", "place"), [(None, (2, 3)), ((0, 0), (0, 0)), ((3, 6), (3, 6))])
def test_a_neuron_direction_is_the_similarity_at_its_position(kind, position, place):
    for directions in (activation(5), activation(6, 5, seed=2)):
        objective = obj.NeuronDirection("conv", directions, position, similarity=kind, power=3.0)
        vectors = MAPS["conv"][:, :, place[0], place[1]]
        pairs = zip(vectors, directions.expand(6, 5), strict=True)
        close(objective.score(MAPS), [similarity(*pair, kind, 3.0) for pair in pairs])


def test_a_neuron_direction_of_tokens_is_at_a_token_or_a_patch_and_of_vectors_at_the_vector():
    direction, tokens, grid = activation(4), MAPS["tokens"], (4, 4)
    close(obj.NeuronDirection("tokens", direction, (0,)).score(MAPS), tokens[:, 0] @ direction)
    close(
        obj.NeuronDirection("tokens", direction, (1, 3), grid=grid).score(MAPS),
        tokens[:, 1 + 4 + 3] @ direction,
    )
    close(
        obj.NeuronDirection("tokens", direction, grid=grid).score(MAPS),
        tokens[:, 1 + 2 * 4 + 2] @ direction,
    )
    close(obj.NeuronDirection("fc", activation(8)).score(MAPS), MAPS["fc"] @ activation(8))


@pytest.mark.parametrize("kind", SIMILARITIES)
@pytest.mark.parametrize("size", [(4, 7), (2, 3), (1, 1), (3, 6)])
def test_a_tensor_direction_is_one_for_each_position_of_the_centre(kind, size):
    for count in (1, 6):
        directions = activation(count, 5, *size, seed=2)
        top, left = (4 - size[0]) // 2, (7 - size[1]) // 2
        expected = []
        for image in range(6):
            part = MAPS["conv"][image, :, top : top + size[0], left : left + size[1]].flatten(1).T
            pairs = zip(part, directions[image % count].flatten(1).T, strict=True)
            values = [similarity(*pair, kind, 2.0) for pair in pairs]
            expected.append(sum(values) / len(values))
        close(obj.TensorDirection("conv", directions, similarity=kind).score(MAPS), expected)


def test_a_tensor_direction_follows_the_layout_of_its_layer():
    last = {"swin": MAPS["conv"].movedim(1, -1)}
    direction = activation(1, 2, 3, 5)
    same = obj.TensorDirection("conv", direction.movedim(-1, 1)).score(MAPS)
    close(obj.TensorDirection("swin", direction, channel_axis=-1).score(last), same)
    whole = activation(1, 17, 4)
    close(obj.TensorDirection("tokens", whole).score(MAPS), (MAPS["tokens"] * whole).sum(2).mean(1))


def test_the_number_of_pictures_is_that_of_the_directions():
    assert obj.NeuronDirection("conv", activation(5)).images is None
    assert obj.NeuronDirection("conv", activation(6, 5)).images == 6
    assert obj.TensorDirection("conv", activation(1, 5, 2, 2)).images is None
    assert obj.TensorDirection("conv", activation(6, 5, 2, 2)).titles(6)[5] == "conv 5"


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: obj.NeuronDirection("conv", torch.ones(1, 5, 1, 1)), "nonzero"),
        (lambda: obj.NeuronDirection("conv", torch.zeros(5)), "of zeros"),
        (lambda: obj.TensorDirection("conv", torch.ones(5)), r"\(1, C, H, W\) or \(1, T, C\)"),
        (lambda: obj.TensorDirection("conv", torch.zeros(1, 5, 2, 2)), "of zeros"),
        (
            lambda: obj.TensorDirection("conv", torch.ones(1, 5, 5, 2)).score(MAPS),
            r"\(5, 5, 2\) does not",
        ),
        (
            lambda: obj.TensorDirection("conv", torch.ones(1, 4, 2, 2)).score(MAPS),
            r"\(4, 2, 2\) does not",
        ),
        (
            lambda: obj.TensorDirection("tokens", torch.ones(1, 9, 4)).score(MAPS),
            "not fit layer 'tokens'",
        ),
        (lambda: obj.NeuronDirection("conv", torch.ones(4)).score(MAPS), "of 4 channels does not fit"),
    ],
)
def test_directions_that_do_not_fit_say_so(make, match):
    with pytest.raises(ShapeError, match=match):
        make()


def test_a_direction_at_a_position_outside_of_the_layer_says_so():
    with pytest.raises(UnitError, match="no position 4:0 in layer 'conv'"):
        obj.NeuronDirection("conv", torch.ones(5), (4, 0)).score(MAPS)


# ---------------------------------------------------------------- weighted groups


def test_channel_weights_are_a_weighted_sum_of_channels():
    few = obj.ChannelWeights("conv", {4: 2.0, 1: -0.5})
    close(few.score(MAPS), (2 * obj.Channel("conv:4") - 0.5 * obj.Channel("conv:1")).score(MAPS))
    assert few.titles(2) == ["conv:+2*4 -0.5*1"] * 2
    weights = activation(5)
    expected = sum(weights[c] * obj.Channel(f"conv:{c}").score(MAPS) for c in range(5))
    close(obj.ChannelWeights("conv", weights).score(MAPS), expected)
    rows = activation(6, 5)
    each = obj.ChannelWeights("conv", rows)
    singles = [obj.ChannelWeights("conv", row).score(MAPS)[image] for image, row in enumerate(rows)]
    close(each.score(MAPS), torch.stack(singles))
    assert (each.images, few.images) == (6, None)


@pytest.mark.parametrize("window", [(0, 0, 4, 7), (1, 2, 2, 3), (3, 6, 1, 1)])
def test_a_local_group_is_the_window_weighted(window):
    y, x, height, width = window
    part = MAPS["conv"][:, :, y : y + height, x : x + width]
    close(obj.LocalGroup("conv", window).score(MAPS), part.mean((1, 2, 3)))
    by_channel, by_neuron = activation(5), activation(5, height, width)
    expected = torch.einsum("nchw,c->nhw", part, by_channel).mean((1, 2))
    close(obj.LocalGroup("conv", window, by_channel).score(MAPS), expected)
    expected = (part * by_neuron).sum(1).mean((1, 2))
    close(obj.LocalGroup("conv", window, by_neuron).score(MAPS), expected)


def test_a_local_group_of_tokens_are_patches():
    expected = MAPS["tokens"][:, [1 + 4 + 2, 1 + 4 + 3, 1 + 8 + 2, 1 + 8 + 3]].mean((1, 2))
    close(obj.LocalGroup("tokens", (1, 2, 2, 2), grid=(4, 4)).score(MAPS), expected)


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: obj.ChannelWeights("conv", {}), UnitError, "at least one"),
        (lambda: obj.ChannelWeights("conv", {-1: 1.0}), UnitError, "from 0 up"),
        (lambda: obj.ChannelWeights("conv", {5: 1.0}).score(MAPS), UnitError, "no channel 5 in layer 'conv'"),
        (lambda: obj.ChannelWeights("conv", torch.ones(1, 5, 1)), ShapeError, "weights are"),
        (lambda: obj.ChannelWeights("conv", torch.ones(4)).score(MAPS), ShapeError, "weights for 4 channels"),
        (lambda: obj.LocalGroup("conv", (0, 0, 0, 2)), UnitError, "at least one neuron"),
        (lambda: obj.LocalGroup("conv", (0, -1, 2, 2)), UnitError, r"\(y, x, height, width\)"),
        (lambda: obj.LocalGroup("conv", (3, 0, 2, 1)).score(MAPS), UnitError, "no position 4:0"),
        (lambda: obj.LocalGroup("conv", (0, 0, 2, 3), torch.ones(5, 3, 2)), ShapeError, r"channels, 2, 3\)"),
        (
            lambda: obj.LocalGroup("conv", (0, 0, 2, 3), torch.ones(4)).score(MAPS),
            ShapeError,
            "for 4 channels",
        ),
    ],
)
def test_groups_that_do_not_fit_say_so(make, error, match):
    with pytest.raises(error, match=match):
        make()


# ---------------------------------------------------------------- families of pictures


@pytest.mark.parametrize("pictures", [1, 2, 3, 6])
@pytest.mark.parametrize("decay", [2.0, 3.0])
def test_the_sum_of_the_alignment_is_lucids(pictures, decay):
    batch = MAPS["conv"][:pictures]
    lucid = 0.0
    for distance in [1, 2, 3, 4]:
        for first in range(pictures - distance):
            difference = batch[first] - batch[first + distance]
            lucid += sum(d * d for d in difference.flatten().tolist()) / difference.numel() / decay**distance
    scores = obj.Alignment("conv", decay).score({"conv": batch})
    assert scores.shape == (pictures,)
    assert scores.sum().item() == pytest.approx(-lucid, abs=1e-6)


def test_the_alignment_of_a_picture_is_half_of_what_it_has_with_others():
    moved = {"conv": MAPS["conv"].clone()}
    moved["conv"][0] = moved["conv"][1]
    change = obj.Alignment("conv").score(moved) - obj.Alignment("conv").score(MAPS)
    assert change[5] == 0  # five places away
    assert change[0].item() == pytest.approx(change[1:].sum().item())


@pytest.mark.parametrize("pictures", [2, 3, 6])
def test_interpolation_between_two_channels_is_lucids(pictures):
    maps = {layer: tensor[:pictures] for layer, tensor in MAPS.items()}
    expected = []
    for image in range(pictures):
        weight = image / (pictures - 1)
        first, second = maps["conv"][image, 2].mean(), maps["fc"][image, 3]
        expected.append((1 - weight) * first + weight * second)
    close(obj.Interpolation("conv:2", "fc:3").score(maps), torch.stack(expected))


def test_interpolation_goes_through_every_objective():
    path = obj.Interpolation("conv:0", obj.Channel("conv:1"), "fc:3")
    maps = {layer: tensor[:5] for layer, tensor in MAPS.items()}
    first, second, third = (objective.score(maps) for objective in path.objectives)
    expected = [first[0], (first[1] + second[1]) / 2, second[2], (second[3] + third[3]) / 2, third[4]]
    close(path.score(maps), torch.stack(expected))
    assert path.titles(3) == ["conv:0 to fc:3, 0%", "conv:0 to fc:3, 50%", "conv:0 to fc:3, 100%"]


def test_one_picture_of_an_interpolation_is_for_the_first_objective():
    maps = {"conv": MAPS["conv"][:1]}
    close(obj.Interpolation("conv:0", "conv:1").score(maps), obj.Channel("conv:0").score(maps))


def test_families_combine_with_what_each_picture_is_for(small_cnn):
    path = obj.Interpolation("conv2:0", "conv2:3") + 0.1 * obj.Alignment("conv1")
    each = obj.Channel("conv2", [0, 1, 2]) + obj.Diversity("conv1") + obj.Alignment("conv2")
    for objective in (path, each, ["conv2:1", obj.Diversity("conv1") + "conv2:2", 2 * obj.Layer("conv1")]):
        fv = obj.Pipeline(param.PixelImage(3, 3, 10, 9, sd=0.2, seed=1), objective).attach(small_cnn)
        losses = fv.optimize(4, lr=0.02, verbose=False).losses.sum(1)
        assert losses[-1] < losses[0]


@pytest.mark.parametrize(
    "parts", [["conv:0"], [obj.Channel("conv", [1, 2]), "conv"], [["conv", "fc"], "conv"]]
)
def test_a_way_needs_two_ends_for_any_picture(parts):
    with pytest.raises(ArgumentError, match="at least two objectives, each for any picture"):
        obj.Interpolation(*parts)


def test_an_exponent_is_a_number():
    with pytest.raises(ArgumentError, match="exponent of .* is a number"):
        obj.Layer("conv") ** obj.Layer("fc")


# ---------------------------------------------------------------- regularizers


def blurred(plane, width):
    """lucid's blur of one plane, pixel by pixel."""
    height, length, reach = len(plane), len(plane[0]), width // 2
    result = [[0.0] * length for _ in range(height)]
    for y in range(height):
        for x in range(length):
            total = weights = 0.0
            for dy in range(-reach, reach + 1):
                for dx in range(-reach, reach + 1):
                    if 0 <= y + dy < height and 0 <= x + dx < length:
                        weight = 0.5 if max(abs(dy), abs(dx)) == reach else 1.0
                        total, weights = total + weight * plane[y + dy][x + dx], weights + weight
            result[y][x] = total / weights
    return torch.tensor(result, dtype=torch.float64)


def blurred_pictures(width):
    planes = PICTURE[obj.IMAGE].flatten(0, 1).tolist()
    return torch.stack([blurred(plane, width) for plane in planes]).view_as(PICTURE[obj.IMAGE])


def test_blur_difference_is_lucids_and_its_gradient_step_is_the_blur():
    image, blur = PICTURE[obj.IMAGE].clone().requires_grad_(), blurred_pictures(3)
    score = obj.BlurDifference().score({obj.IMAGE: image})
    close(score, 0.5 * (image - blur).square().sum((1, 2, 3)))
    score.sum().backward()
    close(image - image.grad, blur)


@pytest.mark.parametrize("width", [1, 2, 20])
def test_boundary_complexity_is_lucids(width):
    image = PICTURE[obj.IMAGE]
    cost = (blurred_pictures(5) - image) ** 2 + 0.8 * (image - 0.3) ** 2
    rim = [
        (y, x) for y in range(9) for x in range(8) if min(y, x) < width or y >= 9 - width or x >= 8 - width
    ]
    expected = sum(cost[:, :, y, x].sum(1) for y, x in rim)
    close(obj.BoundaryComplexity(width, 0.3).score(PICTURE), expected)


def test_linf_is_the_largest_difference():
    expected = [max(abs(v - 0.5) for v in one.flatten().tolist()) for one in PICTURE[obj.IMAGE]]
    close(obj.LInf(constant=0.5).score(PICTURE), expected)


@pytest.mark.parametrize("kind", [obj.TotalVariation, obj.BlurDifference, obj.BoundaryComplexity])
@pytest.mark.parametrize("layer", ["fc", "tokens"])
def test_neighbours_of_anything_but_maps_are_an_error(kind, layer):
    with pytest.raises(ShapeError, match=rf"maps \(N, C, H, W\), .* but layer '{layer}' makes \(6, "):
        kind(layer=layer).score(MAPS)


def test_one_number_is_no_weight_of_a_group():
    with pytest.raises(ShapeError, match=r"weights are \(channels,\)"):
        obj.LocalGroup("conv1", (0, 0, 1, 1), torch.tensor(2.0))


def test_the_index_of_a_class_may_be_a_number_of_torch(small_cnn):
    logits = {"": torch.arange(5.0)[None]}
    assert obj.ClassLogit(torch.tensor(3)).bind(small_cnn).score(logits).item() == 3
