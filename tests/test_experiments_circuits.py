"""The experiment on circuits runs, with few prompts, and finds what is known of the networks that ship."""

import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "experiments"))

import find_circuit

from toumei.transformers import attribution_graph, circuit_checks


def test_the_circuit_of_facts_goes_through_the_mlp_of_layer_2(tmp_path):
    """Training let later layers read nothing of a name but what layers 0 to 2 leave at its last token."""
    out = tmp_path / "new" / "circuit.png"
    found = find_circuit.main(["--count", "6", "--steps", "4", "--random", "1", "--out", str(out)])
    with Image.open(out) as image:
        assert image.width > 800
    assert "m2-" in out.with_suffix(".html").read_text()
    graph = found.graphs["EAP-IG"]
    later = [
        row for row, label in enumerate(graph.readers) if label[:2] in ("a3", "a4", "a5") and "<v>" in label
    ]
    values = graph.scores[later].nan_to_num(0).abs().sum(0)  # what heads of layers 3 to 5 carry, by writer
    assert graph.writers[int(values.argmax())] == "m2"
    curves = found.curves
    assert curves.at("EAP-IG", 0.2) > 0.7 and curves.at("EAP-IG", 0.05) > 0.2 > curves.at("random", 0.2)


def test_the_circuit_of_facts_needs_the_mlp_of_layer_2_most():
    options = find_circuit.parse_arguments(["--count", "6"])
    model, pairs, others = find_circuit.loaded(options)
    circuit = attribution_graph(model, *pairs, "eap-ig", steps=4).prune(share=0.2)
    checks = circuit_checks(model, circuit, *others, sets=1)
    lost = dict(zip(checks.nodes, checks.minimality.tolist(), strict=True))
    assert max(lost, key=lost.get) == "m2" and lost["m2"] > 0.6
    assert checks.faithfulness > 0.8 and max(lost[f"m{layer}"] for layer in (1, 3, 4, 5)) < lost["m2"] / 2


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
