"""The experiments on heads run, with few texts, and find what is known of the networks that ship."""

import json
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "experiments"))

import indirect_objects
import induction_heads
import tinystories_heads

from toumei.models import InductionTransformer
from toumei.transformers import HookedModel


def test_the_wired_circuit_is_found(tmp_path, capsys):
    path = induction_heads.main(
        ["--count", "3", "--length", "8", "--out", str(tmp_path / "new" / "heads.png")]
    )
    with Image.open(path) as image:
        assert image.width > 2 * image.height
    printed = capsys.readouterr().out
    assert "noising of z to 1.0 k" in printed and "\n0.0       1.000\n" in printed


def test_heads_of_another_model(realdata, tmp_path):
    options = ["--model", str(realdata / "stories260k"), "--count", "2", "--length", "10"]
    assert induction_heads.main([*options, "--out", str(tmp_path / "heads.png")]).exists()


def test_a_model_that_does_not_repeat_has_no_paths():
    network = InductionTransformer()
    torch.nn.init.zeros_(network.lm_head.weight)
    found = induction_heads.paths_to(HookedModel(network), network.sequences(3, 8), 1, 0)
    assert "so small a gap" in found


def test_the_attention_of_all_heads_and_what_they_cost(tmp_path):
    out = tmp_path / "new" / "heads.png"
    result = tinystories_heads.main(["--count", "6", "--shown", "2", "--out", str(out)])
    assert out.stat().st_size > 10_000 and result.by_text.shape == (6, 6, 4)
    assert "Attention of all heads" in out.with_suffix(".html").read_text()


def test_heads_of_a_small_model_of_stories(realdata, tmp_path):
    stories = realdata / "text" / "tinystories_1000.json"
    (tmp_path / "texts.txt").write_text("\n".join(json.loads(stories.read_text())[3].split("\n")))
    out = str(tmp_path / "heads.png")
    for texts in (str(stories), str(tmp_path / "texts.txt")):
        options = ["--model", str(realdata / "stories260k"), "--texts", texts, "--tokens", "24"]
        result = tinystories_heads.main([*options, "--count", "4", "--shown", "1", "--out", out])
        assert result.by_text.shape[1:] == (5, 8)
    with pytest.raises(SystemExit):
        tinystories_heads.main(["--model", "gpt2"])


def test_what_decides_an_answer(tmp_path):
    out = tmp_path / "objects.png"
    found = indirect_objects.main(["--count", "4", "--out", str(out)])
    assert out.exists() and (found.differences > 0).all()
    strongest = {name for name, _ in found.heads.top(4)}
    assert strongest & {name for name, _ in found.needed.top(4)}
    assert found.stream.values[-1, -1] > 0.3 and found.stream.values[0, -1] < 1e-6
