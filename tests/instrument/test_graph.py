"""The graph of a forward pass: names, views, writes in place, what is not seen."""

from pathlib import Path

import networkx as nx
import pytest
import torch
from models_to_trace import NETWORKS, Tricky, network, scripted
from torch import nn

from toumei.core import run
from toumei.core.errors import ArchitectureError, LayerError, TrackingError
from toumei.core.outputs import main_tensor, tensor_parts
from toumei.instrument import instrument


def tracked(model, *args, only=None, **kwargs):
    """The output of a tracked pass, and the tracker."""
    with instrument(model) as probe, probe.track(only) as tracker:
        output = model(*args, **kwargs)
    return output, tracker


def parts(output):
    return [main_tensor(output, part) for part in tensor_parts(output)]


def same(one, other):
    return len(one) == len(other) and all(map(torch.equal, one, other))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("grad", [False, True])
def test_the_output_is_that_of_the_plain_pass_and_of_the_replay(name, grad, watched):
    model, inputs = network(name)
    watched(model)
    with torch.set_grad_enabled(grad):
        (args, kwargs), (again, _) = inputs(), inputs()
        plain = parts(model(*args, **kwargs))
        output, tracker = tracked(model, *again, **kwargs)
        graph = tracker.build_graph()
        assert same(parts(output), plain)
        assert same(parts(graph.replay()), [plain[parts_index] for parts_index in seen(output, graph)])
        assert graph.error is None and "operations" in repr(graph)


def seen(output, graph):
    """The places of the tensors of an output that are in tuples, lists and dictionaries."""
    paths = tensor_parts(output)
    return [paths.index(path) for path in tensor_parts(graph.replay())]


@pytest.mark.parametrize("name", ["swin", "tricky", "gpt2", "gemma2", "t5"])
def test_names_are_those_of_the_engine(name):
    """What the graph keeps under a name is what `run` records under it."""
    model, inputs = network(name)
    args, kwargs = inputs()
    _, tracker = tracked(model, *args, **kwargs)
    kept = tracker.build_map()
    model_of_dict = Called(model, kwargs)
    graph = tracker.build_graph()
    # the engine refuses views of what is overwritten later
    views = [one.name for one in graph.tensors.values() if not one.nbytes] if name == "tricky" else []
    names = [one for one in kept if one not in views and "setitem" not in one and "@" not in one]
    assert len(names) > 13
    args, _ = inputs()
    found = run(model_of_dict, *args, record={one: _inside(one) for one in names}, clone=True)
    for one in names:
        assert torch.equal(found[one], kept[one]), one


class Called(nn.Module):
    """A model that is called with keyword arguments."""

    def __init__(self, model, kwargs):
        super().__init__()
        self.model, self.kwargs = model, kwargs

    def forward(self, *args):
        return self.model(*args, **self.kwargs)


def _inside(name):
    return f"model{name}" if name.startswith("/") else f"model.{name}"


@pytest.mark.parametrize("name", ["resnet18", "llama", "tricky"])
def test_names_do_not_depend_on_the_pass_the_batch_or_gradients(name):
    model, inputs = network(name)
    graphs = []
    for rows, grad in ((2, False), (2, True), (1, False)):
        args, _ = inputs()
        with torch.set_grad_enabled(grad):
            graphs.append(tracked(model, args[0][:rows] if name != "tricky" else args[0])[1].build_graph())
    first = {one: node.kind for one, node in graphs[0].tensors.items()}
    for graph in graphs[1:]:
        assert [one.name for one in graph if one.kind != "custom"] == [
            one.name for one in graphs[0] if one.kind != "custom"
        ]
        assert first.items() <= {one: node.kind for one, node in graph.tensors.items()}.items()


def test_views_and_writes_in_place_are_seen():
    model = Tricky().eval()
    _, tracker = tracked(model, torch.ones(4, 3))
    graph = tracker.build_graph()
    add, before, after = graph.operation("/add#0"), graph.operation("/mul#0"), graph.operation("/add#1")
    assert add.in_place and add.inputs == [graph.tensor("linear/linear#0")]
    (column,) = before.inputs  # the view was made before the write, and read after it
    assert column.producer == "/add#0" and column.name == "/getitem#0@/add#0"
    assert after.inputs[0].producer == "/setitem#0"
    assert graph.tensor("/getitem#0").nbytes == 0  # a view has no memory
    assert graph.tensor("/mul#0").nbytes == 16
    (first, second) = graph.operation("/chunk").outputs
    assert (first.name, second.name) == ("/chunk#0[0]", "/chunk#0[1]")
    assert [one.name for one in graph.operation("/cat").inputs] == ["/chunk#0[1]", "/chunk#0[0]"]
    assert graph.tensor("scale").kind == "constant"
    assert graph.tensor("norm.running_mean").kind == "buffer"
    assert graph.operation("/item").value == pytest.approx(float(tracker.build_map()["/sum#1"]))


def test_kept_values_are_those_before_they_were_overwritten():
    model, x = Tricky().eval(), torch.ones(4, 3)
    _, tracker = tracked(model, x)
    kept = tracker.build_map()
    linear = model.linear(torch.ones(4, 3))
    assert torch.equal(kept["linear/linear#0"], linear)
    assert torch.equal(kept["/add#0"], linear + 1)
    assert torch.equal(kept["/setitem#0"][1:], linear[1:] + 1) and (kept["/setitem#0"][0] == 5).all()
    assert torch.equal(x, torch.full((4, 3), 2.0))  # as the model left it


def test_the_networkx_graph_is_bipartite_and_has_no_circles():
    model, inputs = network("tricky")
    graph = tracked(model, *inputs()[0])[1].build_graph()
    found = graph.networkx()
    assert nx.is_directed_acyclic_graph(found)
    kinds = nx.get_node_attributes(found, "bipartite")
    assert all(kinds[one] != kinds[other] for one, other in found.edges)
    assert sum(kinds.values()) == len(graph.tensors) and len(found) == len(graph.tensors) + len(graph)
    order = [one for one in nx.topological_sort(found) if kinds[one] == 0]
    assert set(order) == set(graph)
    for node in graph.tensors.values():
        assert graph.consumers(node) == [one for one in graph if node in one.inputs]


def test_source_lines_are_those_of_the_model():
    _, tracker = tracked(Tricky().eval(), torch.ones(4, 3))
    graph = tracker.build_graph()
    assert all("models_to_trace.py" in one.source for one in graph)
    file, line = graph.operation("/chunk").source.rsplit(":", 1)
    assert "chunk(2)" in Path(file).read_text().splitlines()[int(line) - 1]
    torch_only = tracked(nn.Sequential(nn.Linear(3, 3)), torch.ones(1, 3))[1].build_graph()
    assert torch_only.operation("0/linear").line.startswith("linear.py:")


def test_source_lines_are_those_of_torchvision_and_of_functions_of_torch():
    model, inputs = network("swin")
    graph = tracked(model, *inputs()[0])[1].build_graph()
    assert graph.operation("features.1.0.attn/softmax").line.startswith("swin_transformer.py:")
    graph = tracked(nn.Sequential(nn.Softmax(-1)), torch.ones(2))[1].build_graph()
    assert graph.operation("0/softmax").line.startswith(("functional.py:", "activation.py:"))


def test_custom_functions_and_torchscript_are_nodes_that_say_so():
    model = Tricky().eval()
    graph = tracked(model, torch.ones(4, 3))[1].build_graph()
    (custom,) = graph.untracked
    assert custom.function == "Twofold" and custom.kind == "custom"
    assert custom.inputs[0].name == "/add#2"  # the last operation of its forward
    model = nn.Sequential(nn.Linear(3, 3), scripted(), nn.Linear(3, 2))
    _, tracker = tracked(model, torch.ones(4, 3))
    (untracked,) = tracker.build_graph().untracked
    assert untracked.kind == "untracked" and untracked.value == "TanhBackward0"
    assert "untracked" in str(tracker.build_graph())
    with torch.no_grad():
        graph = tracked(model, torch.ones(4, 3))[1].build_graph()
    assert [node.kind for node in graph.operation("2/linear").inputs] == ["unknown", "parameter", "parameter"]


class Twice(torch.autograd.Function):
    """Doubles a tensor in place."""

    @staticmethod
    def forward(ctx, x):
        x.mul_(2)
        ctx.mark_dirty(x)
        return x

    @staticmethod
    def backward(ctx, grad):
        return 2 * grad


class Parts(torch.autograd.Function):
    """Two results at once."""

    @staticmethod
    def forward(ctx, x):
        return x.exp(), x.sum()

    @staticmethod
    def backward(ctx, grad, other):
        return grad + other


def test_a_call_of_a_custom_function_is_one_node_with_all_its_results():
    def forward(x):
        x = Twice.apply(x + 1)
        first, second = Parts.apply(x)
        return first * 2 + x, second

    model = nn.Linear(3, 3)
    model.forward = lambda x: forward(nn.Linear.forward(model, x))
    output, tracker = tracked(model, torch.ones(2, 3))
    graph = tracker.build_graph()
    assert [one.name for one in graph.untracked] == ["/Twice#0", "/Parts#0"]
    twice, pair = graph.untracked
    assert [node.name for node in pair.inputs] == ["/exp#0", "/sum#0"]
    assert [node.name for node in pair.outputs] == ["/Parts#0", "/Parts#0[1]"]
    assert graph.consumers(twice.outputs[0])[0].function == "exp"
    assert not [one for one in graph if one.function.startswith("set_")]
    assert nx.is_directed_acyclic_graph(graph.networkx())
    assert same(parts(graph.replay()), parts(output))
    assert torch.equal(tracker.build_map()["/Parts#0[1]"], output[1])


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("layout", [torch.strided, torch.jagged])
def test_nested_tensors_have_minus_one_where_their_parts_differ(layout):
    class Nested(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, x, y):
            nested = torch.nested.as_nested_tensor([x, y], layout=layout)
            return self.linear(nested).to_padded_tensor(0.0)

    model, inputs = Nested().eval(), (torch.randn(3, 4), torch.randn(2, 4))
    with torch.no_grad():
        output, tracker = tracked(model, *inputs)
        graph = tracker.build_graph()
        assert torch.equal(output, model(*inputs)) and torch.equal(graph.replay(), output)
    assert graph.tensor("linear/linear").shape == (2, -1, 4)
    assert graph._repr_html_()


def test_a_pass_that_fails_leaves_the_graph_up_to_there(small_cnn, watched):
    watched(small_cnn)
    with instrument(small_cnn) as probe:
        with pytest.raises(RuntimeError), probe.track() as tracker:
            nn.Sequential.forward(small_cnn, torch.ones(1, 3, 8, 8))
            small_cnn.head.forward = lambda x: torch.ones(2) @ x
            try:
                small_cnn(torch.ones(1, 3, 8, 8))
            finally:
                del small_cnn.head.forward
        graph = tracker.build_graph()
    assert "RuntimeError" in graph.error and graph.error in str(graph)
    assert list(graph.operations)[-2:] == ["flatten/flatten#0", "head/ones#0"] and graph.output is None
    assert "conv1/conv2d#0" in tracker.build_map()


class Noteless(RuntimeError):
    """An error of Python 3.10, to which no notes can be added."""

    @property
    def add_note(self):
        raise AttributeError


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("out of memory"), Noteless("out of memory")])
def test_a_pass_without_memory_says_what_is_kept(small_cnn, error):
    def failing(*_):
        raise error

    handle = small_cnn.head.register_forward_pre_hook(failing)
    with pytest.raises(type(error)) as raised:
        tracked(small_cnn, torch.ones(1, 3, 8, 8))
    handle.remove()
    told = [str(raised.value), *getattr(raised.value, "__notes__", ())]
    assert "tensors of" in told[-1] and "keep fewer with track(only=...)" in told[-1]


def test_shared_modules_count_their_runs():
    shared = nn.Linear(3, 3)
    graph = tracked(nn.Sequential(shared, nn.ReLU(), shared), torch.ones(1, 3))[1].build_graph()
    assert list(graph.operations) == ["0/linear#0", "1/relu#0", "0/linear#1"]
    assert graph.tensor("0/linear") is graph.operation("0/linear#1").outputs[0]
    assert sum(node.kind == "parameter" for node in graph.tensors.values()) == 2


def test_compiled_models_and_wrappers():
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    compiled = torch.compile(model, backend="eager")
    graph = tracked(compiled, torch.ones(1, 3))[1].build_graph()
    assert list(graph.operations) == ["0/linear#0", "1/relu#0"]
    with pytest.raises(ArchitectureError, match="TorchScript"):
        with instrument(scripted()):
            pass
    with pytest.raises(ArchitectureError, match=r"model\.module"):
        with instrument(nn.DataParallel(model)):
            pass


def test_unknown_names_and_an_untracked_pass(small_cnn):
    graph = tracked(small_cnn, torch.ones(1, 3, 8, 8))[1].build_graph()
    with pytest.raises(LayerError, match="did you mean conv1/conv2d"):
        graph.tensor("conv1/conv3d")
    with pytest.raises(LayerError, match="no operation"):
        graph.operation("conv1")
    with instrument(small_cnn) as probe, probe.track() as tracker:
        small_cnn.conv1(torch.ones(1, 3, 8, 8))
    with pytest.raises(TrackingError, match="call the model itself"):
        tracker.build_graph()


def test_the_fused_path_of_encoders_is_the_only_difference():
    """Any hook switches it off; the output is that of PyTorch without it."""
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2).eval()
    x = torch.randn(2, 5, 8)
    with torch.no_grad():
        output, tracker = tracked(model, x)
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            assert torch.equal(model(x), output)
        finally:
            torch.backends.mha.set_fastpath_enabled(True)
        assert torch.equal(tracker.build_graph().replay(), output)


class Normed(nn.Module):
    """A norm that begins with a conversion which changes nothing, and a dropout that does not drop."""

    def __init__(self):
        super().__init__()
        self.norm, self.drop = self.Norm(), nn.Dropout()

    class Norm(nn.Module):
        def forward(self, x):
            return x.to(torch.float32) * 2

    def forward(self, x):
        x = x + 1
        return self.drop(x) + self.norm(x), x * 3


def test_a_function_that_returns_what_it_is_given_counts_inside_its_module():
    graph = tracked(Normed().eval(), torch.ones(2))[1].build_graph()
    names = {one.name: [node.name for node in one.inputs] for one in graph}
    assert names["norm/mul#0"] == ["norm/to#0"]
    assert names["/add#1"] == ["drop/dropout#0", "norm/mul#0"]  # the module returned it
    assert names["norm/to#0"] == ["drop/dropout#0"] and names["/mul#0"] == ["drop/dropout#0"]
