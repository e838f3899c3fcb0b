"""Ctrl-C at any line leaves no weight half edited, and ends what makes or scores edits."""

import itertools
import warnings

import pytest
import torch
from test_interrupts import changes, interrupted_at, state_of
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from toumei.core.errors import EditError, LayerError
from toumei.transformers import (
    CausalTracer,
    HookedModel,
    RankOneEditor,
    SparseAutoencoder,
    ablate_features,
    anatomy,
    collect_statistics,
    logit_lens,
    prune_heads,
    revert_surgeries,
    spliced,
    steer_by_feature,
    steering_vector,
)
from toumei.transformers.rome.editing import Edit, EditRequest, revert_all, value
from toumei.transformers.rome.evaluation import EditCase, evaluate_edits
from toumei.transformers.rome.weight_edits import LowRank, registry

pytestmark = pytest.mark.filterwarnings("ignore:.*(did not take|took only weakly|identity as the second)")
KINDS = ["signal", "raise", "other"]
EXIT = Edit.__exit__.__code__.co_firstlineno + 1  # where nothing of ours can catch an interrupt


@pytest.fixture
def model():
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=20, n_positions=24, n_embd=8, n_layer=3, n_head=2)
    model = GPT2LMHeadModel(config)
    model.transformer.h[1].eval()
    return model


@pytest.fixture
def tokenizer():
    words = Tokenizer(models.WordLevel({f"w{index}": index for index in range(20)}, "w0"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=words, unk_token="w0")


def an_edit(model, layers=(0, 1), seed=0):
    draw = torch.Generator().manual_seed(seed)
    pairs = {
        layer: LowRank(torch.randn(8, 1, generator=draw), torch.randn(1, 32, generator=draw))
        for layer in layers
    }
    return Edit(anatomy(model), "random", (EditRequest("{} w1", "w2", "w3"),), pairs)


def weights(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(model, before):
    return all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def check_editable(edit, model, before):
    """Nothing is remembered of what went wrong: the model takes edits and gives them back."""
    assert not registry._CARRIED and same(model, before)
    edit.apply()
    assert not same(model, before)
    edit.revert()
    assert same(model, before)


@pytest.mark.parametrize("kind", KINDS)
def test_an_interrupted_apply_changes_nothing(model, kind):
    before, edit = weights(model), an_edit(model)
    for number in itertools.count(1 + KINDS.index(kind), len(KINDS)):  # together every line
        with interrupted_at(number, kind) as reached:
            edit.apply()
        if not reached:
            break
        assert same(model, before) and not edit.applied, reached
    edit.revert()
    check_editable(edit, model, before)


@pytest.mark.parametrize("kind", KINDS)
def test_an_interrupted_block_leaves_no_edit(model, kind):
    before, edit = weights(model), an_edit(model)
    for number in itertools.count(1 + KINDS.index(kind), len(KINDS)):  # together every line
        with interrupted_at(number, kind) as reached, edit:
            pass
        if not reached:
            break
        at_the_exit = reached[0][0].endswith("revertible.py") and reached[0][1] in (EXIT - 1, EXIT)
        if at_the_exit:
            revert_all(model)
        assert same(model, before) and not edit.applied, reached
    check_editable(edit, model, before)


@pytest.mark.parametrize("kind", KINDS)
def test_an_interrupted_revert_can_be_finished(model, kind):
    before, edit, other = weights(model), an_edit(model), an_edit(model, (1, 2), seed=1)
    other.apply()
    alone = weights(model)
    for number in itertools.count(1 + KINDS.index(kind), len(KINDS)):  # together every line
        edit.apply()
        with interrupted_at(number, kind) as reached:
            edit.revert()
        if not reached:
            break
        if edit.applied:
            edit.revert()
        assert same(model, alone), reached
    other.revert()
    check_editable(edit, model, before)


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_was_interrupted_everything_can_be_taken_back(model, kind):
    before, edit = weights(model), an_edit(model)
    for number in itertools.count(1 + KINDS.index(kind), len(KINDS)):  # together every line
        edit.apply()
        with interrupted_at(number, kind) as reached:
            revert_all(model)
        if not reached:
            break
        revert_all(model)
        assert same(model, before) and not edit.applied and not registry._CARRIED, reached
    check_editable(edit, model, before)


def test_memory_that_runs_out_while_an_edit_is_taken_back_leaves_it_applied(model, monkeypatch):
    before, edit, other = weights(model), an_edit(model), an_edit(model, seed=1)
    edit.apply()
    other.apply()
    with monkeypatch.context() as patched, pytest.raises(MemoryError):
        patched.setattr(registry, "_edited", lambda *_: (_ for _ in ()).throw(MemoryError))
        edit.revert()
    assert edit.applied
    edit.revert()
    other.revert()
    check_editable(edit, model, before)


def test_weights_that_were_right_all_the_time_can_be_edited(model):
    """Something wrote the very same numbers, or loaded the original when no edit was left."""
    before, edit = weights(model), an_edit(model)
    edit.apply()
    with torch.no_grad():
        for layer in (0, 1):
            weight = model.transformer.h[layer].mlp.c_proj.weight
            weight.copy_(weight.clone())
    edit.revert()
    edit.apply()
    model.load_state_dict(before)
    with pytest.raises(EditError, match="something else"):
        edit.revert()
    revert_all(model)
    check_editable(edit, model, before)


def interrupt_at_step(monkeypatch, count):
    step, calls = value._Group._step, []

    def pressed(group, index):
        calls.append(index)
        if len(calls) == count:
            raise KeyboardInterrupt
        step(group, index)

    monkeypatch.setattr(value._Group, "_step", pressed)
    return calls


def test_one_edit_is_made_of_what_there_is_and_says_so(model, tokenizer, monkeypatch, tmp_path):
    editor = RankOneEditor(model, tokenizer, contexts=())
    interrupt_at_step(monkeypatch, 3)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        edit = editor.edit("w1 {}", "w2", "w3", layer=1)
    assert edit.interrupted and len(edit.values[0].losses) == 3
    assert any("the optimization was interrupted" in str(one.message) for one in caught)
    edit.save(tmp_path / "edit.safetensors")
    assert Edit.load(tmp_path / "edit.safetensors", model).interrupted


def test_half_a_step_does_not_leave_the_clamp(model, tokenizer, monkeypatch):
    editor = RankOneEditor(model, tokenizer, contexts=())

    def half(group, index):
        group.optimizers[index].step()
        raise KeyboardInterrupt

    monkeypatch.setattr(value._Group, "_step", half)
    made = editor.edit("w1 {}", "w2", "w3", layer=1, lr=10.0, clamp=0.1).values[0]
    assert made.ended == "interrupted" and float(made.delta.norm()) <= 0.1001 * float(made.start.norm())


@pytest.mark.parametrize("count", [1, 4, 9])
def test_many_facts_end_without_an_edit(model, tokenizer, monkeypatch, count):
    before, editor = state_of(model), RankOneEditor(model, tokenizer, contexts=(), batch_size=4)
    calls = interrupt_at_step(monkeypatch, count)
    facts = [(f"w1 w{number} {{}}", f"w{number}", "w3") for number in range(4, 9)]
    with pytest.raises(KeyboardInterrupt):
        editor.edit_many(facts, layers=[1], steps=3, verbose=False)
    assert len(calls) == count and not changes(before, state_of(model))


@pytest.mark.parametrize("together", [False, True])
def test_the_evaluation_of_edits_ends(model, tokenizer, monkeypatch, together):
    before, editor = state_of(model), RankOneEditor(model, tokenizer, contexts=())
    cases = [EditCase(EditRequest("w1 {}", f"w{number}", "w3"), truth="w4") for number in range(5, 8)]
    calls = interrupt_at_step(monkeypatch, 3)
    options = {"layers": [1]} if together else {"layer": 1}
    with pytest.raises(KeyboardInterrupt):
        evaluate_edits(editor, cases, together=together, verbose=False, steps=2, **options)
    assert len(calls) == 3 and not changes(before, state_of(model))


def trace(model, tokenizer):
    CausalTracer(model, tokenizer).trace("w1 w2 w3", "w2", samples=2, answer="w4")


def make_many(model, tokenizer):
    RankOneEditor(model, tokenizer, contexts=("w5 {}",)).edit_many(
        [("w1 {}", "w2", "w3")], layers=[0, 1], ridge=1.0, steps=2, verbose=False
    )


def collect(model, tokenizer):
    collect_statistics(model, tokenizer, ["w1 w2 w3", "w4 w5"], [1], verbose=False)


def read_and_write(model, tokenizer):
    hooked = HookedModel(model, tokenizer)
    with hooked.edit({("z", 0): torch.zeros_like, ("pattern", 1): torch.clone}):
        cache = hooked.run_with_cache("w1 w2", ["pattern", "result"], metric=lambda logits: logits.sum())[1]
    cache.grad["pattern", 0].sum() + cache["result", 0].sum()


@pytest.mark.parametrize("kind", ["signal", "raise"])
@pytest.mark.parametrize(
    "work", [lambda *given: logit_lens(*given, "w1 w2", "w3"), trace, make_many, collect, read_and_write]
)
def test_an_interrupt_at_many_lines_leaves_the_model_as_it_was(model, tokenizer, work, kind):
    before = state_of(model)
    for number in [*range(1, 4000, 271), *range(4000, 40000, 5003)]:
        with interrupted_at(number, kind) as reached:
            work(model, tokenizer)
        assert not changes(before, state_of(model)), reached
        if not reached:
            break
    assert not registry._CARRIED


def blocks(model):
    """Blocks that change what a hooked model computes."""
    hooked, ids = HookedModel(model), torch.tensor([[1, 2, 3]])
    vector = steering_vector(hooked, ids, ids.flip(1), ("resid_post", 0))
    dictionary = SparseAutoencoder.of_directions(torch.eye(8), reads="blocks.0.hook_mlp_out")
    return {
        "edit": lambda: hooked.edit({("z", 0): torch.zeros_like}),
        "steering": lambda: vector.steering(hooked, 2.0),
        "spliced": lambda: spliced(hooked, dictionary),
        "ablated": lambda: ablate_features(hooked, dictionary, [1]),
        "steered": lambda: steer_by_feature(hooked, dictionary, 1, 2.0),
        "pruned heads": lambda: prune_heads(model, {0: [1]}),
    }


@pytest.mark.parametrize("kind", ["signal", "raise"])
@pytest.mark.parametrize("name", ["edit", "steering", "spliced", "ablated", "steered", "pruned heads"])
def test_blocks_of_hooked_models_interrupted_at_many_lines_leave_nothing(model, name, kind):
    block, ids = blocks(model.eval())[name], torch.tensor([[1, 2, 3]])
    before = state_of(model)
    for number in [*range(1 + KINDS.index(kind), 1200, 283), 1700]:
        with interrupted_at(number, kind) as reached, torch.no_grad(), block():
            model(ids)
        if changes(before, state_of(model)):  # where nothing of ours can catch an interrupt
            revert_surgeries(model)
        assert not changes(before, state_of(model)), reached


def test_what_fits_a_model_is_found_out_without_its_random_numbers(model):
    """A model in training mode has dropout, which would draw from the global generator."""
    hooked = HookedModel(model.train())
    dictionary = SparseAutoencoder.of_directions(torch.eye(8), reads="blocks.0.hook_mlp_out")
    before = state_of(model)
    with pytest.raises(LayerError), spliced(hooked, dictionary):  # no pass runs in the block
        pass
    assert not changes(before, state_of(model))
