"""Layers that return several tensors, layers that the score does not use, and several layers at once."""

from dataclasses import dataclass
from typing import NamedTuple

import pytest
import torch
from torch import nn

from toumei import attribution as ta
from toumei.attribution import AtLayer
from toumei.attribution.base.inputs import parts_of
from toumei.core.errors import ArgumentError, ShapeError, ToumeiError

COMPLETE = [ta.IntegratedGradients, ta.DeepLift, ta.ExactShapley, ta.KernelShap, ta.PartitionShap]


def total(values):
    return sum(part.double().flatten(1).sum(1) for part in parts_of(values))


def difference(net, inputs, baselines, target):
    with torch.no_grad():
        return (net(*inputs) - net(*baselines))[:, target].double()


# ---------------------------------------------------------------- several tensors


class Pair(nn.Module):
    def forward(self, x):
        return 2 * x, 3 * x


class OfPair(nn.Module):
    """f = 2x + 3x, or only one of both."""

    def __init__(self, first=1.0, second=1.0):
        super().__init__()
        self.pair, self.weights = Pair(), (first, second)

    def forward(self, x):
        first, second = self.pair(x)
        return (self.weights[0] * first + self.weights[1] * second).sum(1)


OF_PAIR = [*COMPLETE, ta.InputXGradient, ta.Occlusion]


@pytest.mark.parametrize("method", OF_PAIR, ids=lambda one: one.__name__)
def test_all_tensors_of_a_layer_are_attributed_to(method):
    x = torch.tensor([[1.0, 2.0], [0.5, -1.0], [3.0, 1.0]])
    result = method(OfPair(), layer="pair")(x)
    assert list(result.values) == ["pair[0]", "pair[1]"]
    assert torch.allclose(result.values["pair[0]"], 2 * x, atol=1e-5)
    assert torch.allclose(result.values["pair[1]"], 3 * x, atol=1e-5)
    assert torch.allclose(result.sums.float(), 5 * x.sum(1), atol=1e-5)


@pytest.mark.parametrize(
    "method", [ta.SmoothGrad, ta.ExpectedGradients, ta.DeepLiftShap, ta.ShapleySampling, ta.Lime, ta.Rise]
)
def test_sampling_methods_attribute_to_all_tensors_of_a_layer(method):
    x = torch.tensor([[1.0, 2.0], [0.5, -1.0]])
    result = method(OfPair(), layer="pair", samples=16)(x)
    assert all(part.shape == x.shape and part.any() for part in result.values.values())


def test_several_targets_of_several_tensors_are_kept_in_files(tmp_path):
    x = torch.tensor([[1.0, 2.0], [0.5, -1.0]])
    several = ta.IntegratedGradients(OfPair(), "pair")(x, [None, lambda out: 2 * out])
    assert torch.allclose(several[1].values["pair[1]"], 6 * x, atol=1e-4)
    several.save(tmp_path / "pair.safetensors")
    loaded = ta.Attribution.load(tmp_path / "pair.safetensors")
    assert list(loaded.values) == ["pair[0]", "pair[1]"] and repr(loaded) == repr(several)


def test_conductance_flows_through_all_tensors_of_a_layer():
    x = torch.tensor([[1.0, 2.0], [0.5, -1.0]])
    result = ta.LayerConductance(OfPair(), "pair")(x)
    assert torch.allclose(result.values["pair[1]"], 3 * x, atol=1e-4) and result.gap.abs().max() < 1e-4


def test_one_tensor_of_a_layer_can_be_named():
    x = torch.ones(1, 2)
    result = ta.IntegratedGradients(OfPair(), "pair[1]")(x)
    assert torch.allclose(result.values, 3 * x, atol=1e-5)
    both = ta.InputXGradient(OfPair(), ["pair[1]", "pair[0]"])(x)
    assert torch.equal(both.values["pair[0]"], 2 * x) and list(both.values) == ["pair[1]", "pair[0]"]


class Recurrent(nn.Module):
    """A classifier that reads the last hidden state, not the outputs."""

    def __init__(self, kind=nn.LSTM, **options):
        super().__init__()
        torch.manual_seed(0)
        self.core, self.head = kind(4, 6, **options), nn.Linear(6, 2)
        self.turned = not options.get("batch_first", False)

    def forward(self, x):
        states = self.core(x.transpose(0, 1) if self.turned else x)[1]
        return self.head((states[0] if isinstance(states, tuple) else states)[-1])


@pytest.mark.parametrize("rows", [1, 2, 3])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (nn.LSTM, {"batch_first": True}),
        (nn.LSTM, {"num_layers": 2}),
        (nn.GRU, {"batch_first": True, "num_layers": 3}),
        (nn.RNN, {}),
        (nn.LSTM, {"bidirectional": True, "batch_first": True}),
    ],
    ids=lambda one: getattr(one, "__name__", None) or "-".join(one),
)
def test_the_states_of_recurrent_layers_count(kind, options, rows):
    net, x = Recurrent(kind, **options).eval(), torch.randn(rows, 2, 4)
    result = ta.IntegratedGradients(net, layer="core", tolerance=1e-3, batch_size=16)(x, 1)
    wanted = difference(net, (x,), (0 * x,), 1)
    assert torch.allclose(total(result.values), wanted, atol=1e-3)
    state = next(name for name in result.values if name.startswith("core[1]"))
    assert result.values[state].shape[0] == rows and result.values[state].shape[-1] == 6
    assert result.values[state].any() and not result.values["core[0]"].any()
    shapley = ta.KernelShap(net, layer=state, samples=100, features=torch.arange(6), batch_size=7)(x, 1)
    assert torch.allclose(total(shapley.values), wanted, atol=1e-4)


@pytest.mark.parametrize(
    "method", [ta.Saliency, ta.InputXGradient, ta.IntegratedGradients, ta.DeepLift, ta.ExpectedGradients]
)
def test_a_layer_that_the_score_does_not_use_is_told(method):
    model, x = OfPair(1.0, 0.0), torch.ones(2, 2)
    model.unused = nn.Linear(2, 2)
    model.forward = lambda x: OfPair.forward(model, x) + 0 * model.unused(x).detach().sum(1)
    with pytest.warns(UserWarning, match="the score does not use the activation of layer 'unused'"):
        assert not method(model, layer="unused")(x).values.any()
    with pytest.warns(UserWarning, match="'unused'"):
        together = method(model, layer=["pair[0]", "unused"])(x)
    assert together.values["pair[0]"].any() and not together.values["unused"].any()


@pytest.mark.parametrize(
    "method", [ta.ExactShapley, ta.KernelShap, ta.ShapleySampling, ta.PartitionShap, ta.Occlusion, ta.Lime]
)
def test_a_layer_that_is_hidden_in_vain_is_told(method):
    class Aside(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.aside = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x):
            self.aside(x)
            return self.used(x)

    with pytest.warns(UserWarning, match="all contributions to layer 'aside' are 0"):
        method(Aside(), layer="aside")(torch.ones(2, 3), 1)
    with pytest.warns(UserWarning, match="all contributions to layer 'aside' are 0"):
        ta.Rise(Aside(), "aside", samples=20)(torch.ones(2, 3), 1)


def test_maps_are_of_one_tensor_and_say_so():
    class Maps(nn.Module):
        def __init__(self):
            super().__init__()
            self.pair = Pair()

        def forward(self, x):
            first, second = self.pair(x)
            return (first + second).sum((2, 3))

    x = torch.rand(2, 3, 4, 5)
    for method in (ta.GradCam, ta.GradCamPlusPlus, ta.LayerCam, ta.GuidedGradCam):
        with pytest.warns(UserWarning, match=r"maps are of 'pair\[0\]' alone, .* uses pair\[1\]"):
            method(Maps(), "pair")(x, 1)
        assert method(Maps(), "pair[1]")(x, 1).values.shape[0] == 2


def test_an_output_of_a_model_inside_has_all_its_tensors():
    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.embed, self.pool = nn.Embedding(20, 8), nn.Linear(8, 8)

        def forward(self, ids):
            hidden = self.embed(ids)
            pooled = torch.tanh(self.pool(hidden[:, 0]))
            return {"pooler_output": pooled, "last_hidden_state": hidden, "states": (hidden,), "cache": None}

    class Classifier(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder, self.head = Encoder(), nn.Linear(8, 2)

        def forward(self, ids):
            return self.head(self.encoder(ids)["pooler_output"])

    net, ids = Classifier(), torch.tensor([[3, 5, 7], [2, 9, 4]])
    result = ta.IntegratedGradients(net, layer="encoder")(ids, 1)
    names = ["encoder[last_hidden_state]", "encoder[pooler_output]", "encoder[states][0]"]
    assert list(result.values) == names and not result.values[names[0]].any()
    assert torch.allclose(result.sums, difference(net, (ids,), (0 * ids,), 1), atol=1e-4)


def test_tensors_without_a_row_for_each_input_stay_as_they_are():
    class Odd(nn.Module):
        def forward(self, x):
            return {"loss": x.sum(), "shared": torch.eye(3), "places": x.argmax(1), "out": 2 * x}

    class Of(nn.Module):
        def __init__(self):
            super().__init__()
            self.odd = Odd()

        def forward(self, x):
            return self.odd(x)["out"].sum(1)

    for rows in (1, 2, 3):
        x = torch.rand(rows, 3)
        assert torch.equal(ta.InputXGradient(Of(), "odd")(x).values, 2 * x)
    with pytest.raises(ShapeError, match=r"layer 'odd\[loss\]' is \(\), expected a row for each"):
        ta.Saliency(Of(), "odd[loss]")(x)


# ---------------------------------------------------------------- several layers


class TwoEmbeddings(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embed_a, self.embed_b, self.head = nn.Embedding(5, 2), nn.Embedding(7, 3), nn.Linear(5, 2)

    def forward(self, a, b):
        return self.head(torch.tanh(torch.cat([self.embed_a(a), self.embed_b(b)], -1)).mean(1))


A, B = torch.tensor([[1, 2], [4, 3]]), torch.tensor([[6, 0], [1, 5]])


@pytest.mark.parametrize("method", [ta.IntegratedGradients, ta.DeepLift, ta.KernelShap, ta.ExactShapley])
@pytest.mark.parametrize("as_dict", [False, True], ids=["tuple", "dict"])
def test_several_layers_at_once(method, as_dict):
    net = TwoEmbeddings()
    inputs = {"a": A, "b": B} if as_dict else (A, B)
    for baselines, at in ((None, (0, 0)), ({"a": 3, "b": 2} if as_dict else (3, 2), (3, 2))):
        result = method(net, layer=["embed_a", "embed_b"])(inputs, 1, baselines)
        assert list(result.values) == ["embed_a", "embed_b"]
        assert result.values["embed_b"].shape == (2, 2, 3)
        wanted = difference(net, (A, B), [torch.full_like(A, token) for token in at], 1)
        assert torch.allclose(result.sums, wanted, atol=1e-3, rtol=1e-2)


def test_several_layers_have_baselines_of_their_own():
    net, layers = TwoEmbeddings(), ["embed_a", "embed_b"]
    one = ta.DeepLift(net, layers)((A, B), 1, AtLayer(0.5)).values
    each = ta.DeepLift(net, layers)((A, B), 1, {"embed_b": AtLayer(0.5), "embed_a": AtLayer(0.5)}).values
    row = ta.DeepLift(net, layers)((A, B), 1, [AtLayer(torch.full((2, 2), 0.5)), AtLayer(0.5)]).values
    for other in (each, row):
        assert all(torch.allclose(one[name], other[name]) for name in layers)
    with pytest.raises(ArgumentError, match="3 baselines AtLayer for 2 tensors"):
        ta.DeepLift(net, layers)((A, B), 1, [AtLayer(0.5)] * 3)
    with pytest.raises(ArgumentError, match="give no others beside them"):
        ta.DeepLift(net, layers)((A, B), 1, (AtLayer(0.5), 3))


def test_a_layer_that_another_one_covers_is_told():
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    with pytest.warns(UserWarning, match="does not use the activation of layer '0'"):
        result = ta.IntegratedGradients(net, layer=["0", "1"])(torch.randn(2, 3), 1)
    assert result.values["1"].any()


def test_lists_of_layers_are_checked_and_shown():
    net = TwoEmbeddings()
    for wrong in ([], ["embed_a", "embed_a"]):
        with pytest.raises(ArgumentError, match="layers are different names"):
            ta.Saliency(net, layer=wrong)
    with pytest.raises(ToumeiError, match="embed_c"):
        ta.Saliency(net, layer=["embed_a", "embed_c"])
    method = ta.Saliency(net, layer=["embed_a"])
    assert repr(method) == "Saliency(TwoEmbeddings, layer=['embed_a'])"
    assert list(method((A, B), 1).values) == ["embed_a"]
    assert len(repr(ta.SmoothGrad(net, ["embed_a", "embed_b"])((A, B), 1))) < 200


def test_operations_with_several_tensors_are_layers():
    class Chunks(nn.Module):
        def forward(self, x):
            first, second = x.chunk(2, 1)
            return (first * 2 + second * 3).sum(1)

    x = torch.rand(3, 4)
    result = ta.InputXGradient(Chunks(), layer="/chunk")(x)
    assert list(result.values) == ["/chunk[0]", "/chunk[1]"]
    assert torch.allclose(result.values["/chunk[1]"], 3 * x[:, 2:])


def test_lists_of_layers_where_one_is_meant_are_refused():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten())
    for method in (ta.GradCam, ta.GradCamPlusPlus, ta.LayerCam, ta.GuidedGradCam):
        with pytest.raises(ArgumentError, match="layer is a string, got"):
            method(net, ["0", "1"])


def test_conductance_of_layers_side_by_side():
    class Sides(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.left, self.right = nn.Linear(3, 2), nn.Linear(3, 4)

        def forward(self, x):
            return self.left(x).tanh().sum(1) + self.right(x).square().sum(1)

    result = ta.LayerConductance(Sides(), ["left", "right"])(torch.randn(2, 3))
    assert result.values["right"].shape == (2, 4) and result.gap.abs().max() < 2e-2


def test_many_tensors_have_a_short_repr():
    class States(nn.Module):
        def forward(self, x):
            return {"states": tuple(x * number for number in range(1, 40))}

    class Of(nn.Module):
        def __init__(self):
            super().__init__()
            self.states = States()

        def forward(self, x):
            return torch.stack(self.states(x)["states"]).sum((0, 2))

    result = ta.IntegratedGradients(Of(), "states")(torch.ones(2, 3))
    assert len(result.values) == 39 and "and 35 more" in repr(result) and len(repr(result)) < 200
    assert result.gap.abs().max() < 1e-2


class AsNamedTuple(NamedTuple):
    a: torch.Tensor
    b: torch.Tensor


@dataclass
class AsDataclass:
    a: torch.Tensor
    b: torch.Tensor
    cache: object = None


@pytest.mark.parametrize("method", [ta.IntegratedGradients, ta.DeepLift, ta.KernelShap, ta.InputXGradient])
@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (AsNamedTuple, ["made[0]", "made[1]"]),
        (AsDataclass, ["made[a]", "made[b]"]),
        (lambda a, b: [a, b], ["made[0]", "made[1]"]),
        (lambda a, b: {"a": a, "more": {"b": b}}, ["made[a]", "made[more][b]"]),
    ],
    ids=["named tuple", "dataclass", "list", "nested"],
)
def test_tensors_are_found_in_whatever_a_layer_returns(kind, names, method):
    class Makes(nn.Module):
        def forward(self, x):
            return kind(2 * x, 3 * x)

    class Reads(nn.Module):
        def __init__(self):
            super().__init__()
            self.made = Makes()

        def forward(self, x):
            made = self.made(x)
            if isinstance(made, dict):
                return (made["a"] + made["more"]["b"]).sum(1)
            first, second = made if isinstance(made, list) else (made.a, made.b)
            return (first + second).sum(1)

    result = method(Reads(), layer="made")(torch.ones(3, 2))
    assert list(result.values) == names
    assert torch.allclose(result.sums, torch.full((3,), 10.0, dtype=torch.float64), atol=1e-5)
