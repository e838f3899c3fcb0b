"""The experiment on circuits runs, with few prompts, and finds what is known of the networks that ship."""

import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "experiments"))

import find_circuit


def test_the_circuit_of_facts_goes_through_the_mlp_of_layer_2(tmp_path):
    """Training let later layers read nothing of a name but what layers 0 to 2 leave at its last token."""
    out = tmp_path / "new" / "circuit.png"
    found = find_circuit.main(["--count", "6", "--steps", "4", "--random", "1", "--out", str(out)])
    with Image.open(out) as image:
        assert image.width > 800
    assert "m2-" in out.with_suffix(".html").read_text()
    graph = found.graphs["EAP-IG"]
    mlps = {label: abs(value) for label, value in graph.out_of.items() if label[0] == "m"}
    assert max(mlps, key=mlps.get) in ("m0", "m2")
    values = {name: 0.0 for name in ("m0", "m1", "m2", "m3", "m4", "embed")}
    for writer in values:
        column = graph.writers.index(writer)
        rows = [row for row, label in enumerate(graph.readers) if label[:2] in ("a3", "a4", "a5")]
        values[writer] = float(graph.scores[rows, column].nan_to_num(0).clamp(min=0).sum())
    assert max(values, key=values.get) == "m2"  # what heads of layers 3 to 5 read
    curves = found.curves
    assert curves.at("EAP-IG", 0.2) > 0.7 and curves.at("EAP-IG", 0.05) > 0.2 > curves.at("random", 0.2)


def test_the_wired_edges_are_found(tmp_path, capsys):
    out = str(tmp_path / "circuit.png")
    found = find_circuit.main(["--task", "induction", "--count", "2", "--random", "1", "--out", out])
    printed = capsys.readouterr().out
    assert "AUROC of EAP-IG: 1.000" in printed and "AUROC of exact: 1.000" in printed
    assert found.curves.at("EAP-IG", 0.2) == pytest.approx(1) and torch.isfinite(found.curves.values).all()


@pytest.mark.parametrize("options", [["--task", "ioi"], ["--task", "facts", "--model", "gpt2"]])
def test_tasks_go_with_their_models(options):
    with pytest.raises(SystemExit):
        find_circuit.main(options)
