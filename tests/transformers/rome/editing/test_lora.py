"""An exported adapter gives the logits of its edit."""

import copy
import json

import pytest
import torch
from editing_helpers import (
    ASK,
    FACTS,
)

from toumei.transformers.rome.editing import export_lora

# Tiny networks with random weights take few edits.
pytestmark = pytest.mark.filterwarnings("ignore:.*(did not take|took only weakly)")


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize("layers", [[1], [0, 2]])
@pytest.mark.filterwarnings("ignore::FutureWarning")  # PEFT's own use of transformers
def test_peft_gives_the_logits_of_the_edit(kind, layers, editor_of, tmp_path):
    peft = pytest.importorskip("peft", reason="PEFT is not installed")
    editor = editor_of(kind)
    edit = editor.edit_many(FACTS[:2], layers=layers, ridge=1e-3, steps=4, verbose=False)
    export_lora(edit, tmp_path)
    ids = torch.tensor([[8, 2, 3]])
    with torch.no_grad():
        with edit:
            expected = editor.model(ids).logits
        adapted = peft.PeftModel.from_pretrained(copy.deepcopy(editor.model), tmp_path)
        torch.testing.assert_close(adapted(ids).logits, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_the_adapter_is_the_edit(kind, editor_of, tmp_path):
    from safetensors.torch import load_file

    editor = editor_of(kind)
    edit = editor.edit(**ASK, layer=1, steps=4)
    export_lora(edit, tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    name = f"base_model.model.{editor.parts.down(1)}"
    change = (
        tensors[f"{name}.lora_B.weight"]
        @ tensors[f"{name}.lora_A.weight"]
        * config["lora_alpha"]
        / config["r"]
    )
    assert config["target_modules"] == [editor.parts.down(1)] and config["fan_in_fan_out"] == (kind == "gpt2")
    original = editor.parts.module(editor.parts.down(1)).weight.detach().clone()
    with edit:
        now = editor.parts.module(editor.parts.down(1)).weight
        assert torch.allclose(now - original, change.T if kind == "gpt2" else change, atol=1e-5)
