"""The experiment on key-value memories runs, with few texts, and writes what it says."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "experiments"))

import key_value_memories

from toumei.instrument.memories.store import MemoryStore


def test_memories_of_the_network_that_ships(tmp_path, capsys):
    out = tmp_path / "new" / "memories.png"
    memories = key_value_memories.main(["--count", "40", "--triggers", "3", "--out", str(out)])
    assert out.stat().st_size > 10_000 and "const data" in out.with_suffix(".html").read_text()
    assert MemoryStore(out.with_suffix(".db")).stats().read == memories.read == 40
    assert "transformer.h.5.mlp.c_proj" in capsys.readouterr().out


def test_memories_of_another_model(realdata, tmp_path, capsys):
    stories = json.loads((realdata / "text" / "tinystories_1000.json").read_text())
    lines = "\n".join(" ".join(text.split()[:30]) for text in stories[:30])
    (tmp_path / "texts.txt").write_text(lines)
    options = ["--model", str(realdata / "stories260k"), "--texts", str(tmp_path / "texts.txt")]
    memories = key_value_memories.main([*options, "--triggers", "3", "--out", str(tmp_path / "out.png")])
    assert memories.layers[0].lowest is not None and memories.read == 30
    assert "lowest coefficients" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        key_value_memories.main(["--model", "gpt2"])
