"""The experiments on surgery and on knowledge run, with little work, and write what they say."""

import json
import sys
from pathlib import Path

import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "experiments"))

import knowledge
import surgery


def test_the_layers_that_a_model_can_lose(tmp_path, capsys):
    out = tmp_path / "new" / "surgery.png"
    found = surgery.main(
        ["--changes", "delete", "--without", "1", "--max-tokens", "512", "--device", "cpu", "--out", str(out)]
    )
    assert set(found) == {"delete"} and len(found["delete"]) == 6
    assert (found["delete"].rises[:2] > 0).all()
    with Image.open(out) as image:
        assert image.width > image.height
    printed = capsys.readouterr().out
    assert f"without [{found['delete'].least(1)[0]}]: perplexity" in printed


def test_what_a_model_knows(tmp_path, monkeypatch):
    loaded = knowledge.loaded

    def fewer(options):
        hooked, facts, steering = loaded(options)
        known = [fact for fact in facts.known if fact[1] == "seat"][:16]
        probed = [pair for pair in facts.probed if pair[1] in ("baker", "judge", "lawyer")]
        return hooked, facts._replace(known=known, probed=probed), steering

    monkeypatch.setattr(knowledge, "loaded", fewer)
    options = ["--every", "3", "--splits", "2", "--max-tokens", "128", "--device", "cpu"]
    found = knowledge.main([*options, "--out", str(tmp_path)])
    assert found.graph.precision > 0.9 and found.probes.correct.shape[0] == 2
    assert found.steering.means[0] < 0 < found.steering.means[-1]
    for name in ("probes", "graph", "heads", "steering"):
        assert (tmp_path / f"knowledge_{name}.png").exists()


def test_facts_of_a_file(tmp_path):
    rows = [
        {"subject": f"s{n}", "attribute": f"a{n % 2}", "template": "{} is in ", "relation_id": f"P{n % 3}"}
        for n in range(9)
    ]
    (tmp_path / "facts.json").write_text(json.dumps(rows), encoding="utf-8")
    options = knowledge.parse_arguments(
        ["--model", "x", "--facts", str(tmp_path / "facts.json"), "--texts", "y", "--relations", "2"]
    )
    facts = knowledge.facts_of_file(options)
    assert facts.templates == {"is in (P0)": "{} is in", "is in (P1)": "{} is in"} and len(facts.known) == 6
    assert facts.probed[0] == ("s0", "is in (P0)")


@pytest.mark.parametrize("experiment", [surgery, knowledge])
def test_a_model_needs_texts(experiment):
    with pytest.raises(SystemExit):
        experiment.main(["--model", "gpt2"])
