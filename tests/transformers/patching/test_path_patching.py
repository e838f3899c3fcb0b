"""Path patching: the edges of a wired circuit, two plain passes, identities, refusals."""

import pytest
import torch

from toumei.core.errors import ArgumentError
from toumei.models import InductionTransformer
from toumei.transformers import HookedModel, activation_patching, logit_difference, path_patching
from toumei.transformers.patching.base_run import BaseRun

CLEAN = torch.tensor([[5, 9, 33, 7, 12, 40], [8, 21, 3, 50, 17, 11]])
CORRUPT = torch.tensor([[5, 9, 30, 7, 12, 40], [8, 21, 3, 51, 17, 11]])
METRIC = logit_difference([7, 8], [9, 10])


def value(logits):
    last = logits[:, -1]
    return float((last[0, 7] - last[0, 9] + last[1, 8] - last[1, 10]) / 2)


@pytest.fixture
def induction():
    return HookedModel(InductionTransformer(vocabulary=8, positions=8))


@pytest.mark.parametrize("direction", ["noising", "denoising"])
def test_the_previous_token_head_acts_through_keys_of_the_induction_head_only(induction, direction):
    """Every pair of a sender and an input of a head in the second layer, and the logits."""
    clean, corrupt = torch.tensor([[0, 3, 1, 4, 3, 1]]), torch.tensor([[0, 3, 2, 4, 3, 1]])
    metric = logit_difference(4, 5)
    edges = {(edge.sender, edge.receiver, edge.kind) for edge in induction.model.edges}
    for receiver in ((1, 0, "q"), (1, 0, "k"), (1, 0, "v"), (1, 1, "q"), (1, 1, "k"), (1, 1, "v"), "logits"):
        paths = path_patching(induction, clean, corrupt, metric, receiver, direction=direction)
        for layer in range(2):
            for head in range(2):
                sender = f"{layer}.{head}"
                to = receiver if receiver == "logits" else f"{receiver[0]}.{receiver[1]}"
                known = (sender, to, "" if receiver == "logits" else receiver[2]) in edges
                assert paths[sender] == pytest.approx(float(known), abs=1e-6), (sender, receiver)


@pytest.mark.parametrize("mlps", ["frozen", "free"])
@pytest.mark.parametrize("kind", ["gpt2", "llama", "gptj", "gemma2", "mixtral"])
def test_paths_to_the_inputs_of_heads_are_two_plain_passes(language_model, kind, mlps):
    model = HookedModel(language_model(kind))
    receivers = [(2, 1, "q"), (2, 0, "k"), (1, 1, "v")]
    result = path_patching(model, CLEAN, CORRUPT, METRIC, receivers, mlps=mlps)
    frozen = model.run_with_cache(CLEAN, ["z", "mlp_out"])[1]
    source = model.run_with_cache(CORRUPT, ["z"])[1]
    for layer, head in ((0, 0), (0, 3), (1, 2)):
        seen = {}

        def freeze(tensor, name, layer=layer, head=head):
            new = frozen[name].detach().clone()
            if name == f"blocks.{layer}.attn.hook_z":
                new[:, :, head] = source[name][:, :, head].detach()
            return new

        def note(tensor, name, seen=seen):
            seen[name] = tensor.detach().clone()

        edits = {("z", number): freeze for number in range(3)}
        if mlps == "frozen":
            edits |= {("mlp_out", number): freeze for number in range(3)}
        with model.edit({**edits, **{(kind, layer): note for layer, _, kind in receivers}}):
            model(CLEAN)
        with model.edit({(kind, layer): putting(head, seen) for layer, head, kind in receivers}):
            expected = value(model(CLEAN).detach())
        assert float(result.raw[layer, head]) == pytest.approx(expected, abs=1e-5)
    assert torch.equal(result.values[2], torch.zeros(4).double())  # a head reaches no head of its layer


def putting(head, seen):
    def put(tensor, name):
        tensor[:, :, head] = seen[name][:, :, head]

    return put


def test_no_block_between_sender_and_receiver_runs(language_model, monkeypatch):
    """Three blocks of four heads; the first three tokens of all texts are the same."""
    shapes, call = [], BaseRun.call

    def counting(self, layer, vectors, block=None):
        shapes.append((layer, len(vectors), vectors.shape[2]))
        return call(self, layer, vectors, block)

    monkeypatch.setattr(BaseRun, "call", counting)
    model, corrupt = HookedModel(language_model("llama")), CLEAN.clone()
    corrupt[:, 3] = torch.tensor([30, 51])
    path_patching(model, CLEAN, corrupt, METRIC)
    assert set(shapes) == {(layer, 1, 3) for layer in range(3)}
    shapes.clear()
    path_patching(model, CLEAN, corrupt, METRIC, [(2, 0, "q")])
    assert {(layer, rows) for layer, rows, _ in shapes if rows > 2} == {(2, 8)}


@pytest.mark.parametrize("mlps", ["frozen", "free"])
@pytest.mark.parametrize("senders", ["heads", "mlps"])
@pytest.mark.parametrize("receivers", ["logits", [(2, 1, "q"), (1, 0, "v")]])
def test_a_model_whose_blocks_cannot_be_called_gives_the_same(
    language_model, receivers, senders, mlps, monkeypatch
):
    model = HookedModel(language_model("gpt2"))
    options = {"receivers": receivers, "senders": senders, "mlps": mlps}
    expected = path_patching(model, CLEAN, CORRUPT, METRIC, **options).raw
    monkeypatch.setattr(BaseRun, "call", None)
    monkeypatch.setattr(BaseRun, "logits", None)
    assert torch.allclose(path_patching(model, CLEAN, CORRUPT, METRIC, **options).raw, expected, atol=1e-5)


def test_direct_paths_of_the_last_layer_are_all_that_its_heads_do(language_model):
    """A head of the last layer of a parallel block reaches the logits directly; elsewhere through the MLP."""
    for kind, mlps in (("gptj", "frozen"), ("gpt2", "free")):
        model = HookedModel(language_model(kind))
        whole = activation_patching(model, CLEAN, CORRUPT, METRIC, "z", "head", direction="noising")
        direct = path_patching(model, CLEAN, CORRUPT, METRIC, mlps=mlps)
        assert torch.allclose(direct.values[-1], whole.values[-1], atol=1e-5)
        assert not torch.allclose(direct.values[0], whole.values[0], atol=1e-3)


def test_mlps_are_senders_too(language_model):
    model = HookedModel(language_model("llama"))
    direct = path_patching(model, CLEAN, CORRUPT, METRIC, senders="mlps", direction="denoising")
    whole = activation_patching(model, CLEAN, CORRUPT, METRIC, "mlp_out", "layer")
    assert direct.axes == ("layer",) and direct.values[2] == pytest.approx(float(whole.values[2]), abs=1e-5)
    through = path_patching(model, CLEAN, CORRUPT, METRIC, senders="mlps", mlps="free", direction="denoising")
    assert through.values[2] == pytest.approx(float(whole.values[2]), abs=1e-5)
    assert through.values[0] != pytest.approx(float(direct.values[0]), abs=1e-3)


@pytest.mark.parametrize("size", [1, 5])
def test_the_number_of_rows_that_run_at_once_does_not_matter(language_model, size):
    model = HookedModel(language_model("gpt2"))
    expected = path_patching(model, CLEAN, CORRUPT, METRIC, [(2, 1, "k")]).raw
    found = path_patching(model, CLEAN, CORRUPT, METRIC, [(2, 1, "k")], batch_size=size).raw
    assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("receivers", "message"),
    [
        ("head", 'expected "logits" or a list'),
        ([], 'expected "logits" or a list'),
        ([(1, 1)], "got \\(1, 1\\)"),
        ([(1, 1, "z")], 'expected "logits"'),
        ([(3, 1, "q")], "layers with attention are \\[0, 1, 2\\]"),
        ([(1, 2, "k")], "'k' of layer 1 has the heads 0 to 1, got 2"),
    ],
)
def test_receivers_that_do_not_exist_are_refused(language_model, receivers, message):
    with pytest.raises(ArgumentError, match=message):
        path_patching(HookedModel(language_model("llama")), CLEAN, CORRUPT, METRIC, receivers)
