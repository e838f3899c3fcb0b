"""Probes and trackers: what is kept, over one pass and over many, in memory and in files."""

import pytest
import torch
from models_to_trace import TOKENS, network
from torch import nn

from toumei.core import hooked, run
from toumei.core.errors import ArgumentError, LayerError, ShapeError, TrackingError, UnreachedLayerError
from toumei.instrument import Probe, TensorMap, fmrai, instrument, instrument_model

SOFTMAX = "transformer.h.1.attn/scaled_dot_product_attention"


@pytest.fixture
def gpt2(watched):
    return watched(network("gpt2")[0])


def test_only_what_is_asked_for_is_kept(gpt2):
    everything = run(gpt2, TOKENS, record=[SOFTMAX, "transformer.h.0.mlp"])
    choices = {
        "names": [SOFTMAX, "transformer.h.0.mlp"],
        "pattern": "*/scaled_dot_product_attention",
        "predicate": lambda node: "scaled_dot" in node.name,
    }
    for kind, only in choices.items():
        with instrument(gpt2) as probe, probe.track(only) as tracker:
            gpt2(TOKENS)
        kept = tracker.build_map()
        assert len(kept) == 2
        name = SOFTMAX if kind == "names" else f"{SOFTMAX}#0"
        assert torch.equal(kept[name], everything[SOFTMAX])
        if kind == "names":
            assert torch.equal(kept.get("transformer.h.0.mlp"), everything["transformer.h.0.mlp"])
            with pytest.raises(TrackingError, match=r"track\(only=\[\]\)"):
                tracker.build_graph()
        else:
            assert len(tracker.build_graph()) > 50
    with instrument(gpt2) as probe, probe.track([]) as tracker:
        gpt2(TOKENS)
    assert len(tracker.build_map()) == 0 and len(tracker.build_graph()) > 50


def test_nodes_of_a_graph_name_tensors(gpt2):
    with instrument(gpt2) as probe:
        with probe.track([]) as tracker:
            gpt2(TOKENS)
        node = tracker.build_graph().tensor(SOFTMAX)
        with probe.track([node]) as tracker:
            gpt2(TOKENS[:1])
    assert torch.equal(tracker.build_map()[node], run(gpt2, TOKENS[:1], record=[SOFTMAX])[SOFTMAX])
    assert node in tracker.build_map() and tracker.build_map()[node.tensor_id].shape[0] == 1


@pytest.mark.parametrize("only", [[SOFTMAX], f"{SOFTMAX}#0", f"{SOFTMAX}*"])
def test_many_passes(gpt2, only, tmp_path):
    batches = [TOKENS, TOKENS[:1], TOKENS[:, :3]]
    wanted = [run(gpt2, batch, record=[SOFTMAX])[SOFTMAX] for batch in batches]
    maps = []
    for folder in (None, tmp_path / "kept"):
        with instrument(gpt2) as probe, probe.track(only, batched=True, folder=folder) as tracker:
            for batch in batches:
                gpt2(batch)
        maps.append(tracker.build_map())
    maps[0].save(tmp_path / "saved")
    for kept in (*maps, TensorMap.load(tmp_path / "kept"), TensorMap.load(tmp_path / "saved")):
        (name,) = kept
        assert all(map(torch.equal, kept.get(name), wanted))
        with pytest.raises(ShapeError, match="pad"):
            kept.get_cat(name)
        joined = kept.get_cat(name, pad=0.0)
        assert joined.shape == (5, 4, 7, 4) and torch.equal(joined[3:, :, :3], wanted[2])
        assert (joined[3:, :, 3:] == 0).all()
        assert len(kept.filter_ids(lambda one: "softmax" in one)) == 0
    assert len(list((tmp_path / "kept").iterdir())) == 3
    with pytest.raises(ArgumentError, match="empty folder"):
        maps[0].save(tmp_path / "kept")


def test_damaged_and_missing_files(tmp_path):
    TensorMap([{"a": torch.ones(2)}]).save(tmp_path)
    file = tmp_path / "pass_000000.safetensors"
    assert torch.equal(TensorMap.load(tmp_path)["a"], torch.ones(2))
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(ArgumentError, match="cannot be read"):
        TensorMap.load(tmp_path)["a"]
    with pytest.raises(ArgumentError, match="no files"):
        TensorMap.load(tmp_path / "nowhere")
    with pytest.raises(ArgumentError, match="is a file"), Probe(nn.Linear(2, 2)).track(folder=file):
        pass


@pytest.mark.parametrize(("dtype", "pad"), [(torch.int64, 0.5), (torch.bool, 2)])
def test_numbers_to_pad_with_are_those_of_the_tensor(dtype, pad):
    kept = TensorMap([{"a": torch.ones(1, n, dtype=dtype)} for n in (1, 2)], batched=True)
    assert kept.get_cat("a", pad=0).tolist() == [[1, 0], [1, 1]]
    with pytest.raises(ArgumentError, match=f"cannot hold pad={pad}"):
        kept.get_cat("a", pad=pad)


@pytest.mark.parametrize("only", [["0", "2"], "*/linear", None])
@pytest.mark.parametrize("batched", [False, True])
def test_of_a_pass_that_fails_is_kept_what_ran(only, batched):
    model = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(4, 4))
    with pytest.raises(RuntimeError, match="shapes"), Probe(model).track(only, batched=batched) as tracker:
        model(torch.ones(1, 3))
    kept = tracker.build_map()
    assert batched == (len(kept) == 0)  # half a pass is none of several
    assert batched or kept["0" if only == ["0", "2"] else "0/linear"].shape == (1, 3)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("kind", ["sparse", "nested"])
def test_what_files_cannot_hold(kind, tmp_path):
    made = {"sparse": torch.eye(2).to_sparse(), "nested": torch.nested.nested_tensor([torch.ones(2)])}
    with pytest.raises(ArgumentError, match=kind):
        TensorMap([{"a": made[kind]}]).save(tmp_path)
    assert not list(tmp_path.iterdir())
    if kind == "nested":
        with pytest.raises(ShapeError, match="nested"):
            TensorMap([{"a": made[kind]}]).get_cat("a")


def test_a_second_pass_is_an_error_unless_batched(gpt2):
    for only in (None, [SOFTMAX]):
        with instrument(gpt2) as probe, probe.track(only) as tracker:
            gpt2(TOKENS)
            with pytest.raises(TrackingError, match="batched=True"):
                gpt2(TOKENS)
        assert len(tracker.build_map()) > 0
    gpt2(TOKENS)


def test_a_name_without_a_number_is_the_last_run(tmp_path):
    class Loop(nn.Module):
        def forward(self, x):
            for _ in range(12):
                x = x + 1
            return x.chunk(2)

    with instrument(Loop()) as probe, probe.track() as tracker:
        probe.model(torch.zeros(2))
    kept = tracker.build_map()
    kept.save(tmp_path / "kept")
    for one in (kept, TensorMap.load(tmp_path / "kept")):
        assert torch.equal(one["/add"], torch.full((2,), 12.0)) and "/add" in one
        assert torch.equal(one["/chunk"], torch.tensor([12.0])) and torch.equal(
            one["/chunk[1]"], one["/chunk"]
        )
        assert "/sub" not in one and 3 not in one
        with pytest.raises(LayerError, match="'/sub' was kept"):
            one["/sub"]


@pytest.mark.parametrize(
    "begin",
    [
        lambda model: instrument(model),
        lambda model: Probe(model).track(),
        lambda model: hooked(model, ["0"]),
        lambda model: fmrai(),
    ],
)
def test_a_block_is_entered_once(begin):
    model = nn.Sequential(nn.Linear(2, 2))
    block = begin(model)
    with block:
        with pytest.raises(TrackingError, match="entered before"):
            block.__enter__()
    with pytest.raises(TrackingError, match="once more"):
        block.__enter__()


def test_two_probes_see_the_same_operations():
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(inplace=True))
    with instrument(model) as one, instrument(model) as two, one.track() as first, two.track() as second:
        model(torch.ones(1, 2))
    names = [list(tracker.build_graph().operations) for tracker in (first, second)]
    assert names[0] == names[1] == ["0/linear#0", "1/relu#0"]


def test_tracking_twice_and_afterwards(gpt2):
    with instrument(gpt2) as probe:
        with probe.track() as tracker:
            with pytest.raises(TrackingError, match="tracked already"):
                with probe.track():
                    pass
            gpt2(TOKENS)
        with probe.track([]):
            pass
    assert len(tracker.build_graph()) > 50
    with probe.track([SOFTMAX]) as tracker:  # nothing is on the model between passes: a probe goes on
        gpt2(TOKENS)
    assert len(tracker.build_map()) == 1
    with instrument(gpt2) as one, instrument(gpt2) as other:  # two probes do not disturb each other
        with one.track() as first, other.track([SOFTMAX]) as second:
            gpt2(TOKENS)
    assert torch.equal(first.build_map()[f"{SOFTMAX}#0"], second.build_map()[SOFTMAX])


def test_names_that_do_not_exist_or_did_not_run(gpt2):
    with instrument(gpt2) as probe:
        with pytest.raises(LayerError, match="transformer.h.1"):
            with probe.track(["transformer.h.11"]):
                pass
        with (
            pytest.raises(UnreachedLayerError, match="there ran"),
            probe.track(["transformer.h.1.attn/softmax"]),
        ):
            gpt2(TOKENS)
        with probe.track("*/conv2d") as tracker:
            gpt2(TOKENS)
        with pytest.raises(LayerError, match="fits no tensor"):
            tracker.build_map()
        with pytest.raises(ArgumentError, match="only"):
            with probe.track([3]):
                pass
        with probe.track([SOFTMAX]) as tracker:
            gpt2(TOKENS)
        with pytest.raises(LayerError, match="there is " + SOFTMAX):
            tracker.build_map()["transformer.h.0"]


def test_a_layer_that_a_later_pass_skips_is_not_that_of_the_pass_before():
    class Sometimes(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, x, skip):
            return self.a(x) if skip else self.b(self.a(x))

    model = Sometimes()
    with instrument(model) as probe:
        with pytest.raises(UnreachedLayerError, match="'b'"), probe.track(["b"], batched=True):
            model(torch.ones(1, 2), False)
            model(torch.ones(1, 2), True)


def test_kept_tensors_go_to_a_device(small_cnn):
    with instrument(small_cnn) as probe, probe.track("*/relu", device="meta") as tracker:
        small_cnn(torch.ones(1, 3, 8, 8))
    assert {one.device.type for one in tracker.build_map().values()} == {"meta"}


@pytest.mark.parametrize("only", [None, ["conv1", "relu1", "conv2"]])
def test_no_memory_while_keeping_names_what_is_kept(small_cnn, monkeypatch, only):
    moves = []

    def failing(tensor, *args, **kwargs):
        moves.append(tensor)
        if len(moves) == 3:
            raise RuntimeError("can't allocate memory")
        return tensor.clone()

    with instrument(small_cnn) as probe:
        with (
            monkeypatch.context() as patch,
            pytest.raises(MemoryError, match="the pass keeps 2 tensors .*only="),
        ):
            with probe.track(only, device="meta") as tracker:
                patch.setattr(torch.Tensor, "to", failing)
                small_cnn(torch.ones(1, 3, 8, 8))
    if only is None:  # the graph and its tensors are there up to the failure
        assert len(tracker.build_map()) == 2 and "OutOfMemoryError" in tracker.build_graph().error


def test_fmrai_scopes():
    model = nn.Sequential(nn.Linear(2, 2))
    with pytest.raises(TrackingError, match="fmrai"):
        instrument_model(model)
    with fmrai() as fmr:
        with pytest.raises(TrackingError, match="instrument_model"):
            with fmr.track():
                pass
        assert instrument_model(model) is model
        with fmr.track(batched=True, track_tensors=["0"]) as tracker:
            model(torch.ones(1, 2))
            model(torch.ones(2, 2))
        assert tracker.build_map().get_cat("0").shape == (3, 2)
    with pytest.raises(TrackingError, match="is over"):
        with fmr.track():
            pass
