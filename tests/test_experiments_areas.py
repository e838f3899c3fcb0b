"""The experiment on activation areas runs, with few shuffles, and finds what the network is known to do."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "experiments"))

import activation_areas


def test_the_answer_is_found_where_the_network_recalls_it(tmp_path, capsys):
    out = tmp_path / "new" / "areas.png"
    found = activation_areas.main(["--permutations", "19", "--size", "6", "--out", str(out)])
    assert out.stat().st_size > 10_000 and "distance of maps" in capsys.readouterr().out
    accuracies = found.evaluation.states.mean(1)
    assert accuracies[:4].max() < 0.7 and accuracies[6] > 0.9  # blocks 3 to 5 carry the fact to the end
    assert found.comparison.distance_p_values[6] == 1 / 20


def test_another_model(realdata, tmp_path):
    stories = json.loads((realdata / "text" / "tinystories_1000.json").read_text())
    articles = (realdata / "text" / "wikitext2_valid.txt").read_text().splitlines()
    kinds = {"stories": stories, "articles": [line for line in articles if len(line.split()) > 30]}
    for name, texts in kinds.items():
        lines = "\n".join(" ".join(text.split()[:20]) for text in texts[:30])
        (tmp_path / f"{name}.txt").write_text(lines)
    files = [str(tmp_path / f"{name}.txt") for name in kinds]
    options = [
        "--model",
        str(realdata / "stories260k"),
        "--texts",
        *files,
        "--size",
        "5",
        "--permutations",
        "4",
    ]
    found = activation_areas.main([*options, "--out", str(tmp_path / "out.png")])
    assert found.areas.class_names == ("articles", "stories") and len(found.areas.areas) == 60
    with pytest.raises(SystemExit):
        activation_areas.main(["--model", "gpt2"])
