"""What each objective measures, against its formula; their algebra; and that each can be raised."""

import inspect
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import toumei.cnns.objectives as obj
import toumei.cnns.parameterization as param
from toumei.core.errors import ArgumentError, ShapeError, UnitError

IMAGE = obj.IMAGE


def activation(*size, seed=1):
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed))


MAPS = {
    "conv": activation(3, 5, 4, 6),
    "other": activation(3, 2, 3, 3, seed=2),
    "fc": activation(3, 7, seed=3),
}
PICTURES = {IMAGE: activation(3, 3, 5, 8, seed=4).sigmoid(), **MAPS}


def score(objective, activations=PICTURES):
    return objective.score(activations)


def lucid_dot_cossim(x, y, power):
    """lucid's `_dot_cossim` for vectors: dot times a power of the cosine, which is at least 0.1."""
    dot = sum(a * b for a, b in zip(x.tolist(), y.tolist(), strict=True))
    cosine = dot / (x.norm().item() + 1e-4) / (y.norm().item() + 1e-4)
    return dot * max(0.1, cosine) ** power, cosine


# ---------------------------------------------------------------- formulas


@pytest.mark.parametrize("layer", ["conv", "fc"])
def test_layer_is_the_mean_and_deep_dream_the_mean_square_of_each_picture(layer):
    for index, one in enumerate(MAPS[layer]):
        assert score(obj.Layer(layer))[index].item() == pytest.approx(
            sum(one.flatten().tolist()) / one.numel()
        )
        squares = sum(value**2 for value in one.flatten().tolist())
        assert score(obj.DeepDream(layer))[index].item() == pytest.approx(squares / one.numel())


def test_channel_is_the_mean_of_the_channel_over_positions():
    torch.testing.assert_close(score(obj.Channel("conv:3")), MAPS["conv"][:, 3].flatten(1).mean(1))
    torch.testing.assert_close(score(obj.Channel("fc:6")), MAPS["fc"][:, 6])


def test_several_channels_give_each_picture_its_own():
    channels = [4, 0, 4]
    expected = torch.stack([MAPS["conv"][image, channel].mean() for image, channel in enumerate(channels)])
    torch.testing.assert_close(score(obj.Channel("conv", channels=channels)), expected)
    torch.testing.assert_close(score(obj.Channel("conv", channels=torch.tensor(channels))), expected)


@pytest.mark.parametrize("size", [(4, 6), (5, 7), (1, 1), (2, 2), (3, 1)])
def test_neuron_is_at_the_centre_or_at_y_x(size):
    activations = {"conv": activation(2, 3, *size)}
    centre = activations["conv"][:, 2, size[0] // 2, size[1] // 2]
    assert torch.equal(score(obj.Neuron("conv:2"), activations), centre)
    for y in range(size[0]):
        for x in range(size[1]):
            neuron = obj.Neuron(f"conv:1:{y}:{x}")
            assert torch.equal(score(neuron, activations), activations["conv"][:, 1, y, x])


def test_neuron_of_a_vector_is_its_entry():
    assert torch.equal(score(obj.Neuron("fc:6")), MAPS["fc"][:, 6])


@pytest.mark.parametrize("power", [0.0, 1.0, 2.0, 3.5])
def test_direction_is_lucids_dot_times_a_power_of_the_cosine_in_the_mean_over_positions(power):
    direction = activation(5, seed=5)
    for image in range(3):
        vectors = MAPS["conv"][image].flatten(1).T
        both = [lucid_dot_cossim(vector, direction, power) for vector in vectors]
        plain = [lucid_dot_cossim(vector, direction, 0)[0] for vector in vectors]
        expected = {
            "dot-cosine": sum(one for one, _ in both) / len(both),
            "cosine": sum(cosine for _, cosine in both) / len(both),
            "dot": sum(plain) / len(plain),
        }
        for similarity, value in expected.items():
            objective = obj.Direction("conv", direction, similarity=similarity, power=power)
            assert score(objective)[image].item() == pytest.approx(value, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("similarity", ["dot", "cosine", "dot-cosine"])
def test_a_direction_for_each_picture_is_that_of_the_picture(similarity):
    directions = activation(3, 5, seed=6)
    whole = score(obj.Direction("conv", directions, similarity=similarity))
    for image, direction in enumerate(directions):
        single = score(obj.Direction("conv", direction, similarity=similarity))
        torch.testing.assert_close(whole[image], single[image])


@pytest.mark.parametrize("similarity", ["dot", "cosine", "dot-cosine"])
def test_gradient_of_a_direction_is_finite_where_the_activation_is_zero(similarity):
    zero = torch.zeros(1, 5, 2, 2, requires_grad=True)
    objective = obj.Direction("conv", activation(5), similarity=similarity)
    objective.score({"conv": zero}).sum().backward()
    assert zero.grad.isfinite().all()
    assert zero.grad.ne(0).any()


def test_the_cosine_does_not_grow_with_the_activation_and_the_dot_does():
    direction, larger = activation(5), {"conv": 10 * MAPS["conv"]}
    cosine = obj.Direction("conv", direction, similarity="cosine")
    torch.testing.assert_close(score(cosine), score(cosine, larger), atol=1e-3, rtol=0)
    dot = obj.Direction("conv", direction)
    torch.testing.assert_close(10 * score(dot), score(dot, larger))


def test_total_variation_is_the_sum_of_differences_of_neighbours():
    for image, one in enumerate(PICTURES[IMAGE]):
        expected = 0.0
        for channel in one.tolist():
            expected += sum(abs(a - b) for row in channel for a, b in pairwise(row))
            columns = list(zip(*channel, strict=True))
            expected += sum(abs(a - b) for row in columns for a, b in pairwise(row))
        assert score(obj.TotalVariation())[image].item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("layer", [IMAGE, "conv", "fc"])
def test_norms_are_those_of_the_difference_to_the_constant(layer):
    for image, one in enumerate(PICTURES[layer]):
        values = [value - 0.5 for value in one.flatten().tolist()]
        expected_l1 = sum(abs(value) for value in values)
        expected_l2 = (1e-6 + sum(value**2 for value in values)) ** 0.5
        assert score(obj.L1(layer, 0.5))[image].item() == pytest.approx(expected_l1, rel=1e-5)
        assert score(obj.L2(layer, 0.5))[image].item() == pytest.approx(expected_l2, rel=1e-5)


def test_norms_have_finite_gradients_at_the_constant():
    gray = torch.full((1, 3, 4, 4), 0.5, requires_grad=True)
    (score(obj.L1(constant=0.5), {IMAGE: gray}) + score(obj.L2(constant=0.5), {IMAGE: gray})).sum().backward()
    assert torch.equal(gray.grad, torch.zeros_like(gray))


@pytest.mark.parametrize("layer", ["conv", "other", "fc"])
def test_diversity_is_minus_lucids_in_the_mean_over_the_pictures(layer):
    grams = []
    for one in MAPS[layer]:
        flat = one.reshape(one.shape[0], -1).double()
        gram = torch.tensor([[sum(a * b) for b in flat] for a in flat])
        grams.append(gram / max((gram**2).sum().item(), 1e-10) ** 0.5)
    lucid, per_picture = 0.0, []
    for i, first in enumerate(grams):
        similarities = [(first * second).sum().item() for j, second in enumerate(grams) if j != i]
        per_picture.append(-sum(similarities))
        lucid += sum(similarities) / len(grams)
    diversity = score(obj.Diversity(layer))
    torch.testing.assert_close(diversity, torch.tensor(per_picture), atol=1e-6, rtol=1e-6)
    assert diversity.mean().item() == pytest.approx(-lucid, abs=1e-6)


def test_diversity_of_one_picture_and_of_silent_layers_is_zero():
    assert score(obj.Diversity("conv"), {"conv": MAPS["conv"][:1]}).abs().item() < 1e-6
    zero = torch.zeros(2, 3, 4, 4, requires_grad=True)
    diversity = score(obj.Diversity("conv"), {"conv": zero})
    diversity.sum().backward()
    assert torch.equal(diversity, torch.zeros(2))
    assert zero.grad.isfinite().all()


def test_the_channel_axis_can_be_named():
    last = {"swin": MAPS["conv"].permute(0, 2, 3, 1)}
    direction = activation(5)
    for named, plain in [
        (obj.Channel("swin:4", channel_axis=-1), obj.Channel("conv:4")),
        (obj.Channel("swin", [1, 2, 3], channel_axis=3), obj.Channel("conv", [1, 2, 3])),
        (obj.Neuron("swin:4", channel_axis=-1), obj.Neuron("conv:4")),
        (obj.Neuron("swin:4:3:1", channel_axis=-1), obj.Neuron("conv:4:3:1")),
        (obj.Direction("swin", direction, channel_axis=-1), obj.Direction("conv", direction)),
        (obj.Diversity("swin", channel_axis=-1), obj.Diversity("conv")),
    ]:
        torch.testing.assert_close(score(named, last), score(plain))


# ---------------------------------------------------------------- classes


def test_class_logit_is_the_entry_of_the_logits():
    assert torch.equal(score(obj.ClassLogit(5, layer="fc")), MAPS["fc"][:, 5])


@pytest.fixture
def named(small_cnn):
    """The small network with its four classes named as a model of Hugging Face has them, in odd order."""
    small_cnn.config = SimpleNamespace(id2label={0: "ant", 3: "dog", 1: "bee", 2: "cat"})
    return small_cnn


def bound_score(objective, model):
    images = activation(2, 3, 8, 8)
    bound = objective.bind(model)
    with torch.no_grad():
        logits = model.eval()(images)
        model.train()
        return bound.score({bound.layers[0]: logits}), logits


@pytest.mark.parametrize("name", ["ant", "bee", "cat", "dog"])
def test_a_class_is_found_by_its_label_in_the_configuration_of_a_model(named, name):
    found, logits = bound_score(obj.ClassLogit(name), named)
    assert torch.equal(found, logits[:, ["ant", "bee", "cat", "dog"].index(name)])


def test_categories_of_the_model_and_then_those_that_are_given_come_first(named):
    named.categories = ["dog", "cat", "bee", "ant"]
    found, logits = bound_score(obj.ClassLogit("dog"), named)
    assert torch.equal(found, logits[:, 0])
    found, logits = bound_score(obj.ClassLogit("dog", categories=["x", "dog"]), named)
    assert torch.equal(found, logits[:, 1])


def test_logits_are_the_output_or_where_the_model_says_or_where_the_user_says(small_cnn):
    assert obj.ClassLogit(1).bind(small_cnn).layers == ("",)
    small_cnn.logits_layer = "head"
    assert obj.ClassLogit(1).bind(small_cnn).layers == ("head",)
    assert obj.ClassLogit(1, layer="conv2").bind(small_cnn).layers == ("conv2",)


def test_titles_of_classes_are_names_where_they_are_known(named):
    assert obj.ClassLogit(3).titles(2) == ["3", "3"]
    assert obj.ClassLogit("dog").titles(1) == ["dog"]
    assert obj.ClassLogit(3).bind(named).titles(1) == ["dog"]
    assert obj.ClassLogit("dog").bind(named).titles(1) == ["dog"]
    named.categories = ["only", "two"]
    assert obj.ClassLogit(3).bind(named).titles(1) == ["3"]


def test_an_expression_with_a_class_does_not_print_all_categories(named):
    named.categories = [f"class number {index}" for index in range(1000)]
    title = (obj.ClassLogit("class number 2") - 0.1 * obj.L1("conv1")).bind(named).titles(1)[0]
    assert title.startswith("ClassLogit(2")
    assert len(title) < 60


def test_unknown_classes_are_errors_that_name_near_ones(named):
    named.categories = ["great white shark", "tiger shark", "hen"]
    with pytest.raises(
        UnitError, match="no class 'shark' among 3 categories: great white shark, tiger shark"
    ):
        obj.ClassLogit("shark").bind(named)
    with pytest.raises(UnitError, match=r"no channel 4 in layer 'output': it has 4 channels"):
        bound_score(obj.ClassLogit(4), named)
    with pytest.raises(UnitError, match="from 0 up, got -1"):
        obj.ClassLogit(-1)
    with pytest.raises(UnitError, match="known once a model is attached"):
        score(obj.ClassLogit("hen", layer="fc"))


def test_a_name_for_a_model_without_categories_is_an_error(small_cnn):
    with pytest.raises(UnitError, match="Sequential has no categories to find 'hen' in"):
        obj.ClassLogit("hen").bind(small_cnn)


# ---------------------------------------------------------------- pictures are independent

UNCOUPLED = [
    obj.Layer("conv"),
    obj.DeepDream("conv"),
    obj.Channel("conv:2"),
    obj.Channel("conv", channels=[1, 2, 3]),
    obj.Neuron("conv:2"),
    obj.Direction("conv", activation(5), similarity="dot-cosine"),
    obj.Direction("conv", activation(3, 5)),
    obj.NeuronDirection("conv", activation(5), (1, 2)),
    obj.TensorDirection("conv", activation(3, 5, 2, 3)),
    obj.ChannelWeights("conv", activation(3, 5)),
    obj.LocalGroup("conv", (1, 2, 2, 3), activation(5)),
    obj.ActivationDifference("conv", activation(1, 5, 4, 6, seed=9)),
    obj.Style("conv", activation(1, 5, 5, seed=9)),
    obj.DotCompare("conv", activation(1, 5, 4, 6, seed=9), power=1.0),
    obj.ClassLogit(2, layer="fc"),
    obj.TotalVariation(),
    obj.L1(),
    obj.L2("conv"),
    obj.LInf(),
    obj.BlurDifference(),
    obj.BoundaryComplexity(2),
    obj.Interpolation("conv:1", "fc:2", "other"),
    obj.DeepDream("conv") ** 1.5 / obj.DeepDream("fc"),
    obj.Layer("conv") + obj.Layer("fc") * 2 - 1,
    obj.Layer("conv") * obj.Layer("fc"),
    obj.PerImage("conv:0", obj.Layer("fc") - 0.1 * obj.TotalVariation(), 7),
]


@pytest.mark.parametrize("objective", UNCOUPLED, ids=str)
def test_the_score_of_a_picture_does_not_depend_on_the_others(objective):
    before = objective.score(PICTURES)
    assert before.shape == (3,)
    changed = {name: tensor.clone() for name, tensor in PICTURES.items()}
    for tensor in changed.values():
        tensor[1] = tensor[1] * 3 + 1
    after = objective.score(changed)
    assert torch.equal(after[[0, 2]], before[[0, 2]])
    assert after[1] != before[1]


def test_diversity_depends_on_the_others():
    changed = {"conv": MAPS["conv"].clone()}
    changed["conv"][1, 0] += 3
    assert score(obj.Diversity("conv"), changed)[0] != score(obj.Diversity("conv"))[0]


# ---------------------------------------------------------------- algebra

A, B, C = obj.Layer("conv"), obj.Channel("fc:2"), obj.DeepDream("other")
a, b, c = score(A), score(B), score(C)
EXPRESSIONS = [
    (A + B, a + b),
    (A - B, a - b),
    (2 * A, 2 * a),
    (A * 2, 2 * a),
    (A / 2, a / 2),
    (A / B, a / b),
    (3 / A, 3 / a),
    ("conv" / B, a / b),
    (A / B / C, a / b / c),
    (A / (B / C), a / (b / c)),
    (C**0.5, c**0.5),
    (-(C**0.5), -(c**0.5)),
    ((-A) ** 2, a**2),
    ((A * B) ** 2, (a * b) ** 2),
    ((A - B) ** 2 * C, (a - b) ** 2 * c),
    ((A**2) ** 3, (a**2) ** 3),
    (2 / (A + B) ** 2, 2 / (a + b) ** 2),
    (obj.Power("conv", 3), a**3),
    (-A, -a),
    (0 - (-A), a),
    (A * B, a * b),
    (1 - A, 1 - a),
    (A - 1, a - 1),
    (1 + A, 1 + a),
    (A + B + C, a + b + c),
    (A - B - C, a - b - c),
    (A - (B - C), a - (b - c)),
    (A - (-B + C), a - (-b + c)),
    (A + -2 * B * C, a - 2 * b * c),
    ((A + B) * C, (a + b) * c),
    (C * (A - B) / 4, c * (a - b) / 4),
    (-(A + B) * C, -(a + b) * c),
    (A * -B, -a * b),
    (2 * (A - 3 * (B + C * A)) - 0.5 * C, 2 * (a - 3 * (b + c * a)) - 0.5 * c),
    (sum([A, B, C]), a + b + c),
    (A + "fc:2", a + b),
    ("conv" + B, a + b),
    (A - "fc:2", a - b),
    ("conv" - B, a - b),
    ("conv" * B, a * b),
    (obj.Add(A, B, C), a + b + c),
    (obj.Multiply(A, B, C), a * b * c),
    (obj.Add(A), a),
    (obj.Multiply(A), a),
    (obj.Add(A, A, A), 3 * a),
]


@pytest.mark.parametrize(("objective", "expected"), EXPRESSIONS, ids=[str(pair[0]) for pair in EXPRESSIONS])
def test_an_expression_has_the_value_that_its_operators_say(objective, expected):
    torch.testing.assert_close(objective.score(PICTURES), expected)


@pytest.mark.parametrize(
    "objective",
    [pair[0] for pair in EXPRESSIONS] + [one for one in UNCOUPLED if "tensor(" not in str(one)],
    ids=str,
)
def test_an_objective_prints_as_an_expression_of_the_same_value(objective):
    again = eval(str(objective), vars(obj))
    torch.testing.assert_close(again.score(PICTURES), objective.score(PICTURES))
    assert again.layers == objective.layers


@pytest.mark.parametrize(
    ("objective", "printed"),
    [
        (A + 2 * B, "Layer('conv') + 2*Channel('fc:2')"),
        (A / B, "Layer('conv')*Channel('fc:2')**-1"),
        (-((A + B) ** 2), "-(Layer('conv') + Channel('fc:2'))**2"),
        (A - 0.5 * B, "Layer('conv') - 0.5*Channel('fc:2')"),
        (2 * (A - B), "2*(Layer('conv') - Channel('fc:2'))"),
        (obj.L1(constant=0.5), "L1(constant=0.5)"),
        (obj.Channel("conv", [3, 4], channel_axis=1), "Channel('conv', channels=(3, 4), channel_axis=1)"),
        (
            obj.Direction("conv", torch.ones(5), power=3.0),
            "Direction('conv', direction=tensor(5,), power=3.0)",
        ),
        (obj.ClassLogit("dog", layer="fc"), "ClassLogit('dog', layer='fc')"),
        (obj.PerImage(A, "fc:2"), "PerImage(Layer('conv'), Channel('fc:2'))"),
    ],
)
def test_objectives_print_as_they_are_written(objective, printed):
    assert str(objective) == printed


def test_layers_of_an_expression_are_named_once_in_order():
    expression = 2 * (A - 3 * (B + C * A)) - 0.5 * obj.TotalVariation()
    assert expression.layers == ("conv", "fc", "other", IMAGE)
    assert obj.ConstantScore(3).layers == ()


def test_equal_objectives_are_equal_and_hash_alike():
    def make():
        return [
            obj.Layer("conv"),
            obj.DeepDream("conv"),
            obj.Channel("conv:1"),
            obj.Channel("conv", channels=[1, 2]),
            obj.Neuron("conv:1"),
            obj.ClassLogit("dog", categories=["dog"]),
            obj.TotalVariation(),
            obj.L1(),
            obj.L2(),
            obj.Diversity("conv"),
            obj.ConstantScore(2),
            obj.Function(len, ["conv"]),
            obj.PerImage("conv", "fc"),
            A + B,
            A * B,
            B + A,
            2 * A - B / 3,
            A**2,
            A**3,
            obj.Interpolation(A, B),
            obj.LInf(),
            obj.BlurDifference(),
            obj.BoundaryComplexity(),
            obj.Alignment("conv"),
        ]

    first, again = make(), make()
    for index, objective in enumerate(first):
        assert [objective == other for other in again] == [index == other for other in range(len(again))]
        assert hash(objective) == hash(again[index])
    assert len({*first, *again}) == len(first)


def test_operators_leave_their_operands_as_they_were():
    total = A + B
    before = str(total), total.score(PICTURES)
    doubled = total * 2 + total - C
    assert doubled != total
    assert str(total) == before[0]
    assert torch.equal(total.score(PICTURES), before[1])


def test_titles_follow_the_part_that_has_units_of_its_own():
    units = obj.Channel("conv", channels=[1, 2, 3])
    assert units.titles(3) == ["conv:1", "conv:2", "conv:3"]
    assert (units - 0.1 * obj.TotalVariation()).titles(3) == units.titles(3)
    assert (2 * (units + A)).titles(3) == units.titles(3)
    assert A.titles(2) == ["conv", "conv"]
    assert (A + B).titles(1) == ["Layer('conv') + Channel('fc:2')"]
    assert (B - 0.1 * obj.TotalVariation() + 3).titles(1) == ["fc:2"]
    assert (-B - 0.1 * obj.TotalVariation()).titles(1) == ["-Channel('fc:2')"]
    assert (obj.L1() - obj.L2()).titles(1) == ["L1() - L2()"]
    assert obj.PerImage("conv:1", "fc:2", "other").titles(3) == ["conv:1", "fc:2", "other"]


# ---------------------------------------------------------------- one objective a picture


def test_per_image_equals_the_single_scores():
    parts = [A - 0.1 * obj.TotalVariation(), obj.Neuron("conv:1:0:2"), B * C]
    whole = obj.PerImage(*parts).score(PICTURES)
    torch.testing.assert_close(whole, torch.stack([part.score(PICTURES)[i] for i, part in enumerate(parts)]))


def test_per_image_combines_with_others():
    units = obj.PerImage("conv:1", "fc:2", "other")
    expected = units.score(PICTURES) - 0.5 * obj.TotalVariation().score(PICTURES)
    torch.testing.assert_close((units - 0.5 * obj.TotalVariation()).score(PICTURES), expected)
    assert (units + obj.Diversity("conv")).images == 3


@pytest.mark.parametrize(
    "make",
    [
        lambda: obj.Channel("conv", [1, 2]) + obj.Channel("conv", [1, 2, 3]),
        lambda: obj.Channel("conv", [1, 2]) * obj.PerImage("conv", "fc", "other"),
        lambda: obj.Direction("conv", torch.ones(4, 5)) - obj.PerImage("conv"),
        lambda: obj.PerImage(obj.Channel("conv", [1, 2]), "conv"),
        lambda: obj.as_objective([["conv", "fc"], "other"]),
    ],
)
def test_parts_for_different_numbers_of_pictures_are_an_error_at_once(make):
    with pytest.raises(ArgumentError, match="pictures"):
        make()


# ---------------------------------------------------------------- what users write


@pytest.mark.parametrize(
    ("written", "objective"),
    [
        ("conv", obj.Layer("conv")),
        ("features.0.conv:3", obj.Channel("features.0.conv:3")),
        ("conv:3:1:2", obj.Neuron("conv:3:1:2")),
        ("tokens:3:1", obj.Neuron("tokens:3:1")),
        (2, obj.ConstantScore(2)),
        (-0.5, obj.ConstantScore(-0.5)),
        (A, A),
        (["conv", "fc:2", C], obj.PerImage("conv", "fc:2", C)),
        (("conv", 1), obj.PerImage("conv", obj.ConstantScore(1))),
    ],
)
def test_as_objective_reads_what_users_write(written, objective):
    assert obj.as_objective(written) == objective


@pytest.mark.parametrize("nonsense", [None, {"conv": 3}, {"conv"}, object(), nn.ReLU(), [None], [], 1j])
def test_as_objective_refuses_anything_else(nonsense):
    with pytest.raises(ArgumentError, match="expected an objective, a unit string|at least one objective"):
        obj.as_objective(nonsense)


@pytest.mark.parametrize(
    "unit", ["", ":3", "conv:", "conv:x", "conv:-1", "conv:1:2:3:4:5", "conv:1.5", "conv: 1"]
)
def test_malformed_units_are_errors_at_once(unit):
    for make in (obj.as_objective, obj.Layer, obj.DeepDream, obj.Channel, obj.Neuron):
        with pytest.raises(UnitError, match=r"cannot read the unit .*expected 'layer', 'layer:channel'"):
            make(unit)


@pytest.mark.parametrize(
    "make",
    [
        lambda: obj.Layer("conv:1"),
        lambda: obj.DeepDream("conv:1:0:0"),
        lambda: obj.Channel("conv"),
        lambda: obj.Channel("conv:1:0:0"),
        lambda: obj.Channel("conv:1", channels=[2]),
        lambda: obj.Channel("conv", channels=[]),
        lambda: obj.Channel("conv", channels=[1, -1]),
        lambda: obj.Neuron("conv"),
    ],
)
def test_units_that_do_not_fit_the_objective_are_errors_at_once(make):
    with pytest.raises(UnitError, match="got|whole layer"):
        make()


def test_channels_that_are_no_whole_numbers_are_not_rounded():
    with pytest.raises(ArgumentError, match="whole number"):
        obj.Channel("conv", channels=[1.7])


@pytest.mark.parametrize(
    ("objective", "match"),
    [
        (obj.Channel("conv:5"), "no channel 5 in layer 'conv': it has 5 channels, 0 to 4"),
        (obj.Channel("conv", [0, 9, 1]), "no channel 9 in layer 'conv': it has 5 channels, 0 to 4"),
        (obj.Neuron("fc:7"), "no channel 7 in layer 'fc': it has 7 channels"),
        (obj.Neuron("conv:0:4:0"), r"no position 4:0 in layer 'conv': its positions are \(4, 6\)"),
        (obj.Neuron("conv:0:3"), r"no position 3 in layer 'conv'"),
        (obj.Neuron("fc:0:0:0"), "no position 0:0 in layer 'fc'"),
    ],
)
def test_units_outside_of_the_layer_are_errors_that_say_what_there_is(objective, match):
    with pytest.raises(UnitError, match=match):
        objective.score(MAPS)


@pytest.mark.parametrize("direction", [torch.ones(1, 2, 3), torch.tensor(1.0), torch.zeros(5)])
def test_a_direction_of_a_wrong_rank_or_of_zeros_is_an_error_at_once(direction):
    with pytest.raises(ShapeError, match="nonzero"):
        obj.Direction("conv", direction)


def test_a_direction_that_does_not_fit_its_layer_is_an_error():
    with pytest.raises(ShapeError, match="a direction of 4 channels does not fit layer 'conv', which has 5"):
        score(obj.Direction("conv", torch.ones(4)))


def test_an_unknown_similarity_is_an_error_at_once():
    with pytest.raises(ArgumentError, match="similarity is one of .*'dot-cosine'.*got 'angle'"):
        obj.Direction("conv", torch.ones(4), similarity="angle")


@pytest.mark.parametrize("kind", [obj.Add, obj.Multiply, obj.PerImage])
def test_a_combination_of_nothing_is_an_error_at_once(kind):
    with pytest.raises(ArgumentError, match="at least one objective"):
        kind()


# ---------------------------------------------------------------- objectives of users


def brightness(activations):
    return activations[IMAGE].mean((1, 2, 3)) + activations["conv"].amax((1, 2, 3))


def test_any_function_is_an_objective():
    objective = obj.Function(brightness, [IMAGE, "conv"])
    assert objective.layers == (IMAGE, "conv")
    assert str(objective) == "Function('brightness')"
    assert str(obj.Function(brightness, "conv", name="bright")) == "Function('bright')"
    torch.testing.assert_close((2 * objective).score(PICTURES), 2 * brightness(PICTURES))


class Contrast(obj.Objective):
    """An objective as a user writes it: no dataclass, only what the base class asks for."""

    def __init__(self, layer):
        self.layer = layer

    @property
    def layers(self):
        return (self.layer,)

    def score(self, activations):
        return activations[self.layer].flatten(1).std(1)


def test_a_subclass_with_layers_and_score_is_all_that_a_new_objective_needs(small_cnn):
    objective = Contrast("conv2") - 0.01 * obj.TotalVariation()
    assert str(objective) == "Contrast() - 0.01*TotalVariation()"
    result = optimized(objective, small_cnn)
    assert result.titles == ("Contrast()",) * 3


# ---------------------------------------------------------------- every objective can be raised

RAISED = {
    "ActivationDifference": obj.ActivationDifference("conv2", activation(1, 5, 5, 5)),
    "Add": obj.Add("conv1:0", "conv2:1"),
    "Alignment": obj.Alignment("conv2"),
    "BlurDifference": obj.BlurDifference(),
    "BoundaryComplexity": obj.BoundaryComplexity(2),
    "Channel": obj.Channel("conv2:1"),
    "ChannelWeights": obj.ChannelWeights("conv2", {1: 2.0, 4: -1.0}),
    "ClassLogit": obj.ClassLogit(2),
    "DeepDream": obj.DeepDream("conv1"),
    "Direction": obj.Direction("conv2", activation(5), similarity="dot-cosine"),
    "Diversity": obj.Diversity("conv2"),
    "DotCompare": obj.DotCompare("conv2", activation(1, 5, 5, 5), power=1),
    "Function": obj.Function(lambda activations: activations["conv1"].amax((1, 2, 3)), "conv1"),
    "Interpolation": obj.Interpolation("conv2:0", "conv2:3"),
    "L1": obj.L1(constant=0.3),
    "L2": obj.L2(),
    "LInf": obj.LInf(),
    "Layer": obj.Layer("relu2"),
    "LocalGroup": obj.LocalGroup("conv2", (1, 2, 3, 2), activation(5)),
    "Multiply": obj.Multiply(obj.DeepDream("conv1"), obj.DeepDream("conv2")),
    "Neuron": obj.Neuron("conv2:3"),
    "NeuronDirection": obj.NeuronDirection("conv2", activation(5)),
    "PerImage": obj.PerImage("conv1:0", "conv2:1", "head:2"),
    "Power": obj.Power(obj.DeepDream("conv1"), 1.5),
    "Style": obj.Style("conv2", obj.gram(activation(1, 5, 5, 5))),
    "TensorDirection": obj.TensorDirection("conv2", activation(1, 5, 3, 3), similarity="dot-cosine"),
    "TotalVariation": obj.TotalVariation(),
}
EXPORTED = [
    name
    for name in obj.__all__
    if inspect.isclass(getattr(obj, name))
    and issubclass(getattr(obj, name), obj.Objective)
    and not inspect.isabstract(getattr(obj, name))
    and name != "ConstantScore"  # which nothing can raise
]


def optimized(objective, model, **options):
    generator = param.PixelImage(3, 3, 10, 9, sd=0.2, seed=1)
    return obj.Pipeline(generator, objective).attach(model).optimize(4, lr=0.02, verbose=False, **options)


@pytest.mark.parametrize("name", EXPORTED)
def test_three_optimizer_steps_raise_every_objective(name, small_cnn):
    assert type(RAISED[name]).__name__ == name
    losses = optimized(RAISED[name], small_cnn).losses
    assert (losses[3] < losses[0]).all()


@pytest.mark.parametrize("similarity", ["dot", "cosine", "dot-cosine"])
def test_three_optimizer_steps_raise_every_similarity(similarity, small_cnn):
    direction = activation(3, 5)
    losses = optimized(obj.Direction("conv2", direction, similarity=similarity), small_cnn).losses
    assert (losses[3] < losses[0]).all()


def test_what_is_subtracted_falls(small_cnn):
    result = optimized(-obj.TotalVariation(), small_cnn)
    assert (result.losses[3] < result.losses[0]).all()
    start = param.PixelImage(3, 3, 10, 9, sd=0.2, seed=1).get_image().detach()
    assert (
        score(obj.TotalVariation(), {IMAGE: result.images}) < score(obj.TotalVariation(), {IMAGE: start})
    ).all()
