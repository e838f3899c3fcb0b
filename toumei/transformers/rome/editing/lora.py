"""An edit as a LoRA adapter for PEFT: both are a product of two thin matrices for each layer."""

import json
from pathlib import Path

import torch

from ....core.checks import checked
from ....core.errors import EditError
from ....core.files import atomic_pair
from ....core.serialization import write_safetensors
from .edit import Edit


@checked
def export_lora(edit: Edit, folder: str | Path) -> None:
    """Writes an edit as a LoRA adapter that gives the same logits.

    ``peft.PeftModel.from_pretrained(model, folder)`` loads it (``pip install toumei[peft]``). Writing does
    not need PEFT.

    Args:
        edit: The edit, of any method.
        folder: The folder for `adapter_config.json` and `adapter_model.safetensors`.

    Raises:
        EditError: The layers' down-projections are partly `Conv1D` and partly `nn.Linear`.

    Example:
        >>> from itertools import islice
        >>> from tempfile import TemporaryDirectory
        >>> from toumei.models import facts_gpt
        >>> from toumei.transformers import RankOneEditor, collect_statistics
        >>> model, tokenizer, world = facts_gpt()
        >>> texts = islice(world.texts(seed=0), 100)
        >>> statistics = collect_statistics(model, tokenizer, texts, [2], verbose=False)
        >>> fact = world.facts[0]
        >>> editor = RankOneEditor(model, tokenizer, statistics)
        >>> edit = editor.edit(fact.prompt, fact.subject, world.alternatives(fact)[0], layer=2)
        >>> with TemporaryDirectory() as folder:
        ...     export_lora(edit, folder)
        ...     sorted(path.name for path in Path(folder).iterdir())
        ['adapter_config.json', 'adapter_model.safetensors']
    """
    parts, folder = edit.parts, Path(folder)
    transposed = {parts.keys_first(layer) for layer in edit.layers}
    if len(transposed) > 1:
        raise EditError("an adapter has one orientation of weights, but the edited layers have both")
    rank = max(change.left.shape[1] for change in edit.changes.values())
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": str(getattr(parts.model.config, "name_or_path", "")),
        "r": rank,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": [parts.down(layer) for layer in edit.layers],
        "fan_in_fan_out": transposed.pop(),
        "inference_mode": True,
    }
    tensors: dict[str, torch.Tensor] = {}
    for layer, change in edit.changes.items():
        name = f"base_model.model.{parts.down(layer)}"
        missing = rank - change.left.shape[1]
        left = torch.nn.functional.pad(change.left, (0, missing))
        right = torch.nn.functional.pad(change.right, (0, 0, 0, missing))
        tensors[f"{name}.lora_A.weight"] = right.contiguous()
        tensors[f"{name}.lora_B.weight"] = left.contiguous()
    files = folder / "adapter_model.safetensors", folder / "adapter_config.json"
    with atomic_pair(*files) as (weights, described):
        described.write_text(json.dumps(config, indent=2))
        write_safetensors(tensors, weights, {"format": "pt"})
