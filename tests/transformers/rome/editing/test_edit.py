"""An edit is applied and reverted bit for bit, saved and loaded, and refuses misuse."""

import copy

import pytest
import torch
from editing_helpers import (
    ASK,
    same,
    thin_edits,
    weights,
)

from toumei.core.errors import EditError
from toumei.transformers.rome.editing import Edit

# Tiny networks with random weights take few edits.
pytestmark = pytest.mark.filterwarnings("ignore:.*(did not take|took only weakly)")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_hundred_edits_come_and_go_bit_for_bit(dtype, language_model, tokenizer):
    model = copy.deepcopy(language_model("gpt2")).to(dtype)
    before = weights(model)
    made = thin_edits(model, 100)
    for edit in made:
        edit.apply()
    assert not same(model, before)
    for index in torch.randperm(100, generator=torch.Generator().manual_seed(0)).tolist():
        made[index].revert()
    assert same(model, before)
    for edit in made:
        with edit:
            pass
    assert same(model, before)


def test_edits_taken_back_in_any_order_leave_the_others_as_if_alone(language_model):
    model = copy.deepcopy(language_model("gpt2"))
    first, second = (thin_edits(model, 4)[index] for index in (0, 3))
    with second:
        alone = weights(model)
    first.apply()
    second.apply()
    first.revert()
    assert same(model, alone)
    second.revert()


def test_saved_loaded_and_refused(editor, editor_of, tmp_path):
    path = tmp_path / "folder" / "edit.safetensors"
    edit = editor.edit(**ASK, layer=1, steps=4)
    with edit:
        edit.save(path)  # the same file whether it is applied or not
        wanted = weights(editor.model)
    again = editor.load(path)
    assert again.requests == edit.requests and repr(again) == repr(edit)
    with again:
        assert same(editor.model, wanted)
    assert path.stat().st_size < 4 * (32 + 128) + 2000
    with pytest.raises(EditError, match="other weights"):
        Edit.load(path, editor_of("llama").model)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(EditError, match="cut short"):
        editor.load(path)


def test_a_file_that_is_no_edit(editor, tmp_path):
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(EditError, match="is no saved Edit"):
        editor.load(tmp_path / "other.safetensors")


def test_misuse_of_an_edit(editor):
    edit = editor.edit(**ASK, layer=1, steps=2)
    with pytest.raises(EditError, match="nothing to revert"):
        edit.revert()
    with edit, pytest.raises(EditError, match="applied already"):
        edit.apply()
    with edit:
        edit.revert()  # taken back by hand inside the block
    with pytest.raises(ZeroDivisionError), edit:
        _ = 1 / 0
    assert not edit.applied


def test_a_weight_that_was_trained_meanwhile_is_not_overwritten(language_model):
    model = copy.deepcopy(language_model("gpt2"))
    edit = thin_edits(model, 1)[0].apply()
    with torch.no_grad():
        model.transformer.h[0].mlp.c_proj.weight += 1
    with pytest.raises(EditError, match="changed by something else"):
        edit.revert()


def test_quantized_weights_and_other_shapes_are_refused(language_model):
    model = copy.deepcopy(language_model("gpt2"))
    edits = thin_edits(model, 2)
    layer = model.transformer.h[1].mlp.c_proj
    layer.weight = torch.nn.Parameter(layer.weight.to(torch.int8), requires_grad=False)
    both = Edit(edits[0].parts, "memit", edits[0].requests, {0: edits[0].changes[0], 1: edits[1].changes[1]})
    before = weights(model)
    with pytest.raises(EditError, match="quantized"):
        both.apply()
    wrong = Edit(
        edits[0].parts, "memit", edits[0].requests, {0: edits[0].changes[0], 2: layer_of_other_size()}
    )
    with pytest.raises(EditError, match="does not fit"):
        wrong.apply()
    assert same(model, before)


def layer_of_other_size():
    from toumei.transformers.rome.weight_edits.low_rank import LowRank

    return LowRank(torch.zeros(128, 1), torch.zeros(1, 32))
