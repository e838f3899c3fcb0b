"""The experiment on attention heads runs, with few texts, and writes what it says."""

import sys
from pathlib import Path

import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "experiments"))

import attention_heads


def test_heads_of_the_network_that_ships(tmp_path, capsys):
    out = tmp_path / "new" / "heads.png"
    result = attention_heads.main(["--count", "12", "--batch-size", "5", "--out", str(out)])
    assert len(result) == 24 and result.texts == 12
    printed = capsys.readouterr().out
    assert "cluster of" in printed and "previous" in printed and "separator" not in printed
    with Image.open(out) as image:
        assert image.width > 1.9 * image.height


def test_heads_of_a_real_bert(realdata, tmp_path, capsys):
    lines = (realdata / "text" / "wikitext2_valid.txt").read_text(encoding="utf-8").splitlines()
    texts = [line for line in lines if 200 < len(line) < 400][:8]
    (tmp_path / "texts.txt").write_text("\n".join(texts), encoding="utf-8")
    options = ["--model", str(realdata / "minilm_l6"), "--texts", str(tmp_path / "texts.txt")]
    result = attention_heads.main([*options, "--rows-per-text", "40", "--out", str(tmp_path / "out.png")])
    labels = dict(zip(result.names, result.labels, strict=True))
    assert (labels["0.2"], labels["1.8"]) == ("previous", "next")
    assert "separator" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        attention_heads.main(["--model", "bert-base-uncased"])
