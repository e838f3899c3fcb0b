"""Values and objects of the wrong kind are named at the door, or do what is meant."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LinearRegression, LogisticRegression
from torch import nn
from torch.nn import functional as F

import toumei.attribution as att
import toumei.cnns.objectives as obj
import toumei.cnns.parameterization as param
import toumei.instrument as ins
import toumei.misc.modularity as mod
from toumei import cnns, misc
from toumei.core import make_generator, run
from toumei.core.checks import checked
from toumei.core.errors import (
    ArgumentError,
    ForwardError,
    LayerError,
    NonFiniteError,
    NotATensorError,
    OutputError,
    ShapeError,
    ToumeiError,
)
from toumei.models import facts_gpt
from toumei.transformers import (
    DictionarySettings,
    HookedModel,
    collect_statistics,
    indirect_objects,
    logit_lens,
    train_dictionary,
)

X = torch.tensor([[0.3, -0.2, 0.9, 0.5], [0.1, 0.7, -0.4, 0.2]])


@pytest.fixture
def net(watched):
    torch.manual_seed(0)
    return watched(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval())


@pytest.mark.parametrize("seed", [1.5, "3", float("nan"), True, 2**64, b"1", torch.ones(2)])
def test_a_seed_is_a_whole_number_of_64_bits(seed, net):
    for made in (
        lambda: make_generator(seed),
        lambda: att.Lime(net, seed=seed),
        lambda: att.SmoothGrad(net, seed=seed),
        lambda: param.FFTImage(1, 3, 8, 8, seed=seed),
    ):
        with pytest.raises(ArgumentError, match="seed"):
            made()


def test_seeds_of_numpy_are_whole_numbers():
    assert torch.equal(
        torch.rand(2, generator=make_generator(np.int64(3))), torch.rand(2, generator=make_generator(3))
    )


@pytest.mark.parametrize("count", ["8", 8.5, True, -1, None])
def test_counts_are_whole_numbers(count, net):
    for kind, name in ((att.SmoothGrad, "samples"), (att.Rise, "samples"), (att.Saliency, "batch_size")):
        with pytest.raises(ArgumentError, match=name):
            kind(net, **{name: count})


def test_features_may_be_lists_and_arrays(net):
    wanted = att.KernelShap(net, features=torch.tensor([0, 0, 1, 2]))(X, 1).values
    for features in ([0, 0, 1, 2], np.array([0, 0, 1, 2])):
        assert torch.equal(att.KernelShap(net, features=features)(X, 1).values, wanted)
    for features in (0, "ab", [0.5, 1, 2, 3]):
        with pytest.raises(ArgumentError):
            att.KernelShap(net, features=features)(X, 1)


def test_inputs_may_be_lists_arrays_and_tables(net):
    pandas = pytest.importorskip("pandas")
    wanted = att.Saliency(net)(X, 1)
    numbers = X.double().numpy()
    for inputs in (X.tolist(), X.numpy(), numbers, pandas.DataFrame(numbers, columns=list("abcd"))):
        found = att.Saliency(net)(inputs, 1)
        torch.testing.assert_close(found.values, wanted.values)
    data = att.FromData(numbers)
    torch.testing.assert_close(data.data, X.double())
    assert att.KernelShap(net)(X, 1, data).values.isfinite().all()


@pytest.mark.parametrize("inputs", [None, "text", [["a"]], X.to_sparse(), np.array(["a"])])
def test_what_is_no_tensor_is_named(inputs, net):
    with pytest.raises(NotATensorError, match="inputs is a tensor"):
        att.Saliency(net)(inputs, 1)
    assert issubclass(NotATensorError, ShapeError) and issubclass(NotATensorError, ArgumentError)


META = torch.zeros(2, 4, device="meta")
HIDDEN = np.ma.masked_array([[0.1, 0.2, 0.3, 0.4]], mask=[[False, True, False, False]])


@pytest.mark.parametrize("given", [HIDDEN, X.to_sparse()], ids=["masked", "sparse"])
def test_tensors_that_lose_something_when_they_are_converted_are_refused(given, net):
    for call in (
        lambda: att.Saliency(net)(given, 1),
        lambda: misc.neural_tangent_kernel(net, given),
        lambda: misc.effective_rank(given),
        lambda: misc.correlation_graph(net, ["0"], given),
    ):
        with pytest.raises(ToumeiError):
            call()


@pytest.mark.parametrize("given", [META, X.to_sparse()], ids=["meta", "sparse"])
def test_sequences_are_no_tensors_without_readable_numbers(given, net):
    layered = nn.Sequential(nn.Conv2d(3, 4, 3))
    for call in (
        lambda: mod.ncut(graph(), given),
        lambda: cnns.dataset_examples(layered, "0", given, k=1, verbose=False),
        lambda: cnns.unit_pictures(layered, "0", given, steps=1, verbose=False),
        lambda: att.Saliency(net)(X, 1, feature_names=given),
    ):
        with pytest.raises(ToumeiError):
            call()


def graph():
    return mod.chain(["a", "b"], [torch.ones(2, 2)])


def test_columns_of_tables_are_sequences_and_tables_are_none(net):
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame({"names": list("abcd"), "values": [0.1, 0.2, 0.3, 0.4]})
    found = att.Saliency(net)(X, 1, feature_names=table["names"])
    assert found.feature_names == tuple("abcd")
    with pytest.raises(ArgumentError, match="feature_names is"):
        att.Saliency(net)(X, 1, feature_names=table)


@pytest.mark.parametrize("number", [10**400, -(10**400)], ids=["large", "small"])
def test_endless_numbers_are_refused(number, net):
    calls = (
        lambda: att.SmoothGrad(net, samples=number),
        lambda: att.deletion(net, X, X, 1, number, steps=number),
        lambda: param.PixelImage(1, 3, 8, 8, sd=number),
        lambda: obj.Channel("0:1") + number,
        lambda: att.KernelShap(net, seed=number),
    )
    for call in calls:
        with pytest.raises(ToumeiError):
            call()


@pytest.mark.parametrize("wrong", [nn.ReLU(), lambda text: text, print, lambda *given, **named: given])
def test_what_is_no_tokenizer_is_named(wrong):
    model, _, world = facts_gpt()
    for call in (
        lambda: logit_lens(model, wrong, "a", "b"),
        lambda: att.token_attribution(model, wrong, world.facts[0].text, world.facts[0].target),
        lambda: indirect_objects(wrong, 2),
        lambda: collect_statistics(model, wrong, ["a"], [1], verbose=False),
    ):
        with pytest.raises(ArgumentError, match="no tokenizer"):
            call()


@pytest.mark.parametrize("device", ["", "gpu", "cuda:99", 3.5, [], "meta:x"])
def test_devices_that_there_are_not_are_named(device, net):
    values = torch.rand(40, 4)
    for call in (
        lambda: train_dictionary(
            values, DictionarySettings(features=4, k=1, tokens=40, batch_size=20), device=device
        ),
        lambda: HookedModel(facts_gpt()[0]).run_with_cache(torch.ones(1, 2).long())[1].to(device),
        lambda: ins.Probe(net).track(device=device).__enter__(),
    ):
        with pytest.raises(ArgumentError, match="device"):
            call()


def test_nan_is_named(net):
    with pytest.raises(NonFiniteError, match="inputs"):
        att.Saliency(net)(X * torch.nan, 1)
    with pytest.raises(NonFiniteError, match="baseline"):
        att.Occlusion(net)(X, 1, X * torch.nan)


def test_a_function_is_explained_as_the_network_that_it_is():
    weights = torch.tensor([1.0, -2.0, 3.0, 0.5])
    linear = lambda x: x @ weights  # noqa: E731
    found = att.KernelShap(linear)(X)
    torch.testing.assert_close(found.values, X * weights, atol=1e-5, rtol=1e-5)
    assert att.deletion(linear, X, found).scores.shape == (2, 33)


@pytest.mark.parametrize("kind", [att.ExactShapley, att.PartitionShap, att.Occlusion])
def test_estimators_are_explained_by_their_probabilities(kind):
    generator = np.random.default_rng(0)
    rows = generator.normal(size=(40, 4))
    classifier = LogisticRegression().fit(rows, rows[:, 0] + rows[:, 1] > 0)
    found = kind(classifier)(rows[:3], 1)
    wanted = torch.from_numpy(classifier.predict_proba(rows[:3])[:, 1])
    torch.testing.assert_close(found.output, wanted.to(found.output.dtype))
    again = kind(classifier.predict_proba)(rows[:3], 1)
    torch.testing.assert_close(found.values, again.values)


def test_regressors_and_tables_are_explained():
    pandas = pytest.importorskip("pandas")
    rows = np.random.default_rng(0).normal(size=(40, 3))
    table = pandas.DataFrame(rows, columns=["a", "b", "c"])
    regressor = LinearRegression().fit(table, rows @ [1.0, 2.0, 3.0])
    found = att.ExactShapley(regressor)(table[:2], None, torch.zeros(3))
    torch.testing.assert_close(found.values, torch.from_numpy(rows[:2] * [1.0, 2.0, 3.0]).to(found.values))


def test_a_pipeline_is_explained_as_its_network(net):
    class Pipeline:
        task, model, tokenizer = "tabular-classification", net, None

        def __call__(self, rows):
            return [{"label": "a", "score": 1.0}]

    assert torch.equal(att.Occlusion(Pipeline())(X, 1).values, att.Occlusion(net)(X, 1).values)


@pytest.mark.parametrize("model", [None, "resnet18", 3, nn.ReLU, lambda x: x])
def test_gradients_need_a_module(model):
    with pytest.raises(ArgumentError, match=r"expected a torch\.nn\.Module"):
        att.Saliency(model)(X, 0)


def test_layers_may_be_modules(net):
    wanted = att.IntegratedGradients(net, layer="0")(X, 1).values
    method = att.IntegratedGradients(net, layer=net[0])
    assert method.layer == "0" and torch.equal(method(X, 1).values, wanted)
    assert torch.equal(run(net, X, record=[net[0]])["0"], net[0](X))
    with pytest.raises(LayerError, match="no module of"):
        att.IntegratedGradients(net, layer=nn.Linear(4, 8))
    with pytest.raises(ArgumentError):
        att.IntegratedGradients(net, layer=0)


def test_metrics_take_what_methods_return(net):
    result = att.Saliency(net)(X, 1)
    for metric in (att.deletion, att.insertion):
        scores = [metric(net, X, given, 1).scores for given in (result, result.values, result.values.numpy())]
        assert torch.equal(scores[0], scores[1]) and torch.equal(scores[0], scores[2])
    assert torch.equal(att.infidelity(net, X, result, 1), att.infidelity(net, X, result.values, 1))
    with pytest.raises(ArgumentError, match="several targets"):
        att.deletion(net, X, att.Saliency(net)(X, [0, 1]), 1)


def test_a_target_function_sees_all_heads():
    class Heads(nn.Module):
        def __init__(self, kind):
            super().__init__()
            self.kind = kind

        def forward(self, x):
            return self.kind(x, 2 * x)

    for kind, score in (
        (lambda a, b: (a, b), lambda heads: heads[1][:, 0]),
        (lambda a, b: [a, b], lambda heads: heads[1][:, 0]),
        (lambda a, b: {"a": a, "b": b}, lambda heads: heads["b"][:, 0]),
    ):
        found = att.Saliency(Heads(kind))(X, score)
        assert torch.equal(found.output, 2 * X[:, 0])
        assert torch.equal(att.Saliency(Heads(kind))(X, 1).output, X[:, 1])
    with pytest.raises(OutputError, match="one score a row"):
        att.Saliency(Heads(lambda a, b: (a, b)))(X, lambda heads: heads)


def test_a_direction_made_in_inference_mode_is_optimized_for():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3)).eval()
    with torch.inference_mode():
        direction = network(torch.rand(1, 3, 8, 8))[0, :, 2, 2]
    pipeline = obj.Pipeline(param.FFTImage(1, 3, 8, 8, seed=0), obj.Direction("0", direction))
    assert pipeline.attach(network).optimize(2, verbose=False).ended == "finished"


def test_what_a_network_cannot_run_on_is_said_with_its_shape(net):
    with pytest.raises(ForwardError, match=r"Sequential cannot run on \(2, 9\)") as caught:
        att.Saliency(net)(torch.ones(2, 9), 1)
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_errors_of_a_network_that_are_no_errors_of_torch_are_left_alone():
    class Own(Exception):
        pass

    class Failing(nn.Module):
        def forward(self, x):
            raise Own("mine")

    with pytest.raises(Own):
        att.Saliency(Failing())(X)


def test_annotations_are_what_is_checked():
    @checked
    def door(model: nn.Module, values: torch.Tensor, names: list[str], share: float = 0.5, *sizes: int):
        return values, names, share, sizes

    network = nn.Linear(2, 2).double()
    values, names, share, sizes = door(network, [[1, 2.5]], ("a",), np.float32(0.5), 1, 2)
    assert values.dtype == torch.double and names == ["a"] and share == 0.5 and sizes == (1, 2)
    for wrong in (
        {"model": F.relu},
        {"values": "x"},
        {"names": "a"},
        {"names": [1]},
        {"share": "0.5"},
        {"share": float("nan")},
    ):
        with pytest.raises(ArgumentError):
            door(**{"model": network, "values": X, "names": ["a"], **wrong})


def test_places_of_a_graph_are_names_or_nodes_and_inputs_may_be_arrays(net):
    with ins.instrument(net) as probe, probe.track() as tracker:
        output = net(X)
    graph, kept = tracker.build_graph(), tracker.build_map()
    node, operation = graph.tensor("0/linear"), graph.operation("0/linear")
    assert graph.tensor(node) is node and graph.operation(operation) is operation
    assert torch.equal(kept[node], kept["0/linear#0"]) and node in kept
    assert torch.equal(graph.replay(X.numpy()), output)
    for wrong in (3, None, [node], {"a": node}, np.array(["a"])):
        for ask in (graph.tensor, graph.operation, graph.consumers, graph.producer, kept.__getitem__):
            with pytest.raises(ArgumentError, match="expected the name of"):
                ask(wrong)
    with ins.instrument(net) as probe, pytest.raises(ArgumentError, match="no device 'gpu'"):
        probe.track(device="gpu").__enter__()
