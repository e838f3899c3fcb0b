"""What the user gives is used, and contributions do not vanish without a word."""

import itertools
import warnings

import pytest
import torch
from torch import nn

from toumei import attribution as ta
from toumei.attribution import FromData
from toumei.attribution.base.inputs import parts_of
from toumei.core.errors import ArgumentError

COMPLETE = [ta.IntegratedGradients, ta.DeepLift, ta.ExactShapley, ta.KernelShap, ta.PartitionShap]


class Record(nn.Module):
    """A category, through an embedding, and two numbers."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.hidden, self.head = nn.Embedding(6, 3), nn.Linear(5, 7), nn.Linear(7, 2)

    def forward(self, category, numbers):
        return self.after(self.embed(category[:, 0]), numbers)

    def after(self, embedded, numbers):
        return self.head(torch.tanh(self.hidden(torch.cat([embedded, numbers], 1))))


CATEGORY, NUMBERS = torch.tensor([[4], [2], [0]]), torch.tensor([[0.3, -0.8], [1.4, 0.1], [0.5, 0.5]])


@pytest.fixture
def record(watched):
    return watched(Record().eval())


def total(values):
    return sum(part.double().flatten(1).sum(1) for part in parts_of(values))


def warned(call):
    """The result of a call, and the texts of its warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        return call(), [str(one.message) for one in caught if issubclass(one.category, UserWarning)]


def difference(net, inputs, baselines, target):
    with torch.no_grad():
        return (net(*inputs) - net(*baselines))[:, target].double()


# ---------------------------------------------------------------- whole numbers beside others


@pytest.mark.parametrize("as_dict", [False, True], ids=["tuple", "dict"])
@pytest.mark.parametrize("method", COMPLETE, ids=lambda one: one.__name__)
def test_an_embedding_beside_numbers_gets_what_the_category_changes(method, as_dict, record):
    inputs = {"category": CATEGORY, "numbers": NUMBERS} if as_dict else (CATEGORY, NUMBERS)
    for given, token in ((None, 0), (1, 1), (torch.tensor([3]), 3)):
        baselines = {"category": given} if as_dict else (given, None)
        result = method(record, layer="embed")(inputs, 1, baselines)
        wanted = difference(record, (CATEGORY, NUMBERS), (torch.full_like(CATEGORY, token), NUMBERS), 1)
        assert torch.allclose(total(result.values), wanted, atol=2e-3, rtol=1e-2)
        assert torch.allclose(result.output - result.baseline_output, wanted.float(), atol=1e-5)


@pytest.mark.parametrize("method", [ta.ExpectedGradients, ta.DeepLiftShap])
def test_rows_of_categories_are_baselines_of_an_embedding(method, record):
    rows = torch.tensor([[1], [5], [5], [3]])
    baselines = FromData(rows, replace=False), FromData(torch.randn(4, 2), replace=False)
    result = method(record, layer="embed", samples=4)((CATEGORY, NUMBERS), 1, baselines)
    wanted = torch.stack([record(row.expand(3, 1), NUMBERS)[:, 1] for row in rows]).mean(0).detach()
    assert torch.allclose(result.baseline_output, wanted, atol=1e-5)


GRADIENTS = [
    ta.Saliency,
    ta.InputXGradient,
    ta.GuidedBackprop,
    ta.SmoothGrad,
    ta.IntegratedGradients,
    ta.ExpectedGradients,
    ta.DeepLift,
    ta.DeepLiftShap,
]


@pytest.mark.filterwarnings("ignore:guided backpropagation found no ReLU")
@pytest.mark.parametrize("method", GRADIENTS, ids=lambda one: one.__name__)
def test_whole_numbers_without_a_gradient_are_told(method, record):
    with pytest.warns(UserWarning, match=r"input 0 \(torch.int64\) has no gradient .* contributions are 0"):
        result = method(record)((CATEGORY, NUMBERS), 1)
    assert not result.values[0].any() and result.values[1].any()
    for given in (1, torch.ones(1).long(), FromData(CATEGORY)):
        with pytest.raises(ArgumentError, match="the baseline of whole numbers would not be used"):
            method(record)((CATEGORY, NUMBERS), 1, (given, 0.0))
        with pytest.raises(ArgumentError, match="'category'"):
            method(record)({"category": CATEGORY, "numbers": NUMBERS}, 1, {"category": given})


def test_conductance_says_that_its_path_leaves_whole_numbers_alone(record):
    given = (CATEGORY, NUMBERS), 1
    with pytest.warns(UserWarning, match="all contributions to layer 'embed' are 0"):
        ta.LayerConductance(record, "embed", steps=4)(*given)
    with pytest.raises(ArgumentError, match="a baseline of whole numbers would not be used"):
        ta.LayerConductance(record, "hidden")(*given, (1, None))
    result = ta.LayerConductance(record, "hidden")(*given)
    wanted = difference(record, given[0], (CATEGORY, 0 * NUMBERS), 1)
    assert torch.allclose(total(result.values), wanted, atol=1e-2)


@pytest.mark.parametrize("method", [ta.ExactShapley, ta.KernelShap, ta.PartitionShap, ta.Lime, ta.Occlusion])
def test_categories_that_are_hidden_have_their_baselines(method, record):
    result = method(record)((CATEGORY, NUMBERS), 1, (2, 0.5))
    assert result.values[0][:2].any() and result.values[1].any()
    if result.baseline_output is not None:
        wanted = record(torch.full_like(CATEGORY, 2), torch.full_like(NUMBERS, 0.5))[:, 1].detach()
        assert torch.allclose(result.baseline_output, wanted, atol=1e-6)


# ---------------------------------------------------------------- baselines that do not fit whole numbers


class Sums(nn.Module):
    def forward(self, x):
        return 2.0 * x[:, 0].float() + x[:, 1].float()


HALF = torch.tensor([35.5, 0.9])


@pytest.mark.parametrize(
    ("dtype", "baseline"),
    [
        (torch.long, HALF),
        (torch.long, HALF.numpy()),
        (torch.long, HALF.expand(2, 2)),
        (torch.long, 0.5),
        (torch.long, ta.Constant(0.5)),
        (torch.int32, FromData(HALF.repeat(3, 1))),
        (torch.long, ta.MaxDistance(0.0, 99.5)),
        (torch.long, float("nan")),
        (torch.uint8, -1),
        (torch.int8, torch.tensor([300, 1])),
        (torch.bool, 0.5),
        (torch.half, 1e6),
    ],
    ids=str,
)
@pytest.mark.parametrize("method", [ta.ExactShapley, ta.Occlusion, ta.Lime], ids=lambda one: one.__name__)
def test_a_baseline_that_the_dtype_cannot_hold_is_refused(method, dtype, baseline):
    inputs = torch.tensor([[30, 1], [1, 0]]).to(dtype)
    said = f"inputs of {dtype} cannot hold the baseline|value is a number, got nan"
    with pytest.raises(ArgumentError, match=said):
        method(Sums())(inputs, None, baseline)


def test_a_baseline_that_the_dtype_holds_is_used():
    for dtype, baseline in ((torch.long, [35.0, 2.0]), (torch.uint8, [255, 0]), (torch.double, [35.5, 0.9])):
        inputs = torch.tensor([[30, 1]]).to(dtype)
        result = ta.ExactShapley(Sums())(inputs, None, torch.tensor(baseline))
        assert result.baseline_output.item() == pytest.approx(2 * baseline[0] + baseline[1], rel=1e-6)
    precise = ta.ExactShapley(nn.Flatten())(torch.zeros(1, 1).double(), 0, 0.1)
    assert precise.baseline_output.item() == 0.1


# ---------------------------------------------------------------- inputs that no gradient reaches


@pytest.mark.parametrize("method", [ta.Saliency, ta.InputXGradient, ta.SmoothGrad, ta.GuidedBackprop])
def test_inputs_that_a_network_cuts_off_are_told(method):
    class Cut(nn.Module):
        def forward(self, x):
            return x.detach().square().sum(1)

    with pytest.warns(UserWarning, match="no gradient of the score reaches the inputs"):
        method(Cut())(torch.ones(1, 3))


def test_a_table_of_codes_is_told():
    class Codes(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(9, 1)

        def forward(self, x):
            return self.embed(x.long()).sum((1, 2))

    with pytest.warns(UserWarning, match="no gradient of the score reaches the inputs"):
        ta.Saliency(Codes())(torch.tensor([[1.0, 4.0]]))


def test_every_pair_of_dtypes_is_used_or_told():
    """A category of any whole type beside numbers of any precision."""
    for whole, real in itertools.product([torch.int8, torch.int32, torch.long], [torch.float, torch.double]):
        net = Record().to(real)
        net.embed.forward = lambda x, embed=net.embed: nn.functional.embedding(x.long(), embed.weight)
        result, said = warned(
            lambda net=net, whole=whole, real=real: ta.IntegratedGradients(net, layer="embed")(
                (CATEGORY.to(whole), NUMBERS.to(real)), 1
            )
        )
        wanted = difference(net, (CATEGORY, NUMBERS.to(real)), (0 * CATEGORY, NUMBERS.to(real)), 1)
        assert not said and torch.allclose(total(result.values), wanted, atol=1e-2)


@pytest.mark.parametrize("method", [ta.Saliency, ta.InputXGradient, ta.SmoothGrad])
@pytest.mark.parametrize("convert", ["long", "int", "bucketize", "argmax"])
def test_columns_that_become_whole_numbers_are_told(method, convert):
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(9, 1)

        def forward(self, x):
            code = x[:, 0]
            if convert == "bucketize":
                code = torch.bucketize(code.contiguous(), torch.arange(8.0))
            elif convert == "argmax":
                code = x[:, :1].argmax(1)
            else:
                code = getattr(code, convert)()
            return self.embed(code)[:, 0] + x[:, 1]

    with pytest.warns(UserWarning, match=f"makes whole numbers of columns of the input, by '{convert}'"):
        result = method(Mixed())(torch.tensor([[3.0, 0.5], [1.0, 0.2]]))
    assert not result.values[:, 0].any() and result.values[:, 1].all()


def test_dead_columns_are_no_whole_numbers():
    class Dead(nn.Module):
        def forward(self, x):
            return x[:, 0].relu() * (x[:, 1] > 0) + 0 * x[:, 2]

    result = ta.Saliency(Dead())(torch.tensor([[3.0, 0.5, 1.0]]))
    assert result.values.tolist() == [[1.0, 0.0, 0.0]]
