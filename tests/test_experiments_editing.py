"""The experiments on editing run with tiny settings, and write what they say they write."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "experiments"))

import mass_editing
import rank_one_editing
import rome_on_a_real_model

from toumei.models import facts_gpt
from toumei.transformers.rome.editing import Edit, RankOneEditor

# A few steps do not write a fact.
pytestmark = pytest.mark.filterwarnings("ignore:.*(did not take|took only weakly)")


def test_rank_one_editing(tmp_path, capsys):
    path = rank_one_editing.main(
        ["--layer", "0", "--steps", "3", "--tokens", "3", "--out", str(tmp_path / "out.png")]
    )
    assert path.stat().st_size > 10_000
    printed = capsys.readouterr().out
    assert "before: Edit(r-rome, layer 0" in printed and "inside the edit" in printed
    assert Edit.load(tmp_path / "edit.safetensors", facts_gpt()[0]).layers == (0,)


class QuickEditor(RankOneEditor):
    """Takes two steps where no number is given."""

    def edit(self, *arguments, **settings):
        return super().edit(*arguments, **{"steps": 2, **settings})

    def edit_many(self, *arguments, **settings):
        return super().edit_many(*arguments, **{"steps": 2, **settings})


@pytest.fixture
def few_steps(monkeypatch):
    monkeypatch.setattr(mass_editing, "RankOneEditor", QuickEditor)
    monkeypatch.setitem(mass_editing.LARGE_STEPS, "steps", 2)
    for name, value in {"hold": 2, "steps": 2, "prefixes": ((1, 3),)}.items():
        monkeypatch.setitem(mass_editing.HELD, name, value)


def test_mass_editing(tmp_path, capsys, few_steps):
    options = ["--facts", "1", "--at-once", "2", "--weights", "1", "--texts", "100", "--layer", "0"]
    path = mass_editing.main([*options, "--out", str(tmp_path / "out.png")])
    assert path.stat().st_size > 10_000
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("small steps", "memit", "emmet", "alphaedit", "r-rome"))


def test_mass_editing_of_another_model(realdata, tmp_path, capsys, few_steps):
    records = [
        {
            "requested_rewrite": {
                "prompt": "{} lived in a",
                "subject": name,
                "target_new": {"str": "box"},
                "target_true": {"str": "house"},
            },
            "paraphrase_prompts": [f"Once upon a time {name} lived in a"],
        }
        for name in ("Lily", "Timmy", "The old cat")
    ]
    (tmp_path / "records.json").write_text(json.dumps(records))
    stories = json.loads((realdata / "text" / "tinystories_1000.json").read_text())
    (tmp_path / "texts.txt").write_text("\n".join(" ".join(text.split()) for text in stories[:60]))
    options = ["--model", str(realdata / "stories260k"), "--records", str(tmp_path / "records.json")]
    options += ["--corpus", str(tmp_path / "texts.txt"), "--facts", "1", "--at-once", "2", "--weights", "1"]
    path = mass_editing.main([*options, "--layer", "1", "--out", str(tmp_path / "out.png")])
    assert path.stat().st_size > 10_000 and "the paper's" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        mass_editing.main(["--model", "gpt2-xl"])


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setitem(rome_on_a_real_model.EDIT, "steps", 2)
    monkeypatch.setitem(rome_on_a_real_model.EDIT, "prefixes", ((1, 2),))
    monkeypatch.setitem(rome_on_a_real_model.HELD, "hold", 2)


def test_rome_on_the_network_that_ships(tmp_path, capsys, quick):
    options = ["--facts", "1", "--samples", "1", "--enough", "0.1", "--tokens", "2"]
    path = rome_on_a_real_model.main([*options, "--out", str(tmp_path / "out.png")])
    assert path.stat().st_size > 20_000 and (tmp_path / "keys_of_facts_gpt.safetensors").exists()
    printed = capsys.readouterr().out
    words = ("r-rome, held", "memit, held", "inside the edit:", "KeyStatistics(")
    assert all(word in printed for word in words)


def test_rome_on_another_model_asks_for_what_it_needs(capsys):
    with pytest.raises(SystemExit):
        rome_on_a_real_model.main(["--model", "smollm2"])
    assert "--corpus" in capsys.readouterr().err


def test_facts_that_a_model_knows_are_changed_to_other_values_of_the_same_relation():
    model, tokenizer, world = facts_gpt()
    relation = world.facts[0].relation
    known = [fact for fact in world.facts if fact.relation == relation][:12]
    records = [
        {
            "subject": fact.subject,
            "attribute": fact.target,
            "prompt": fact.text,
            "relation_id": fact.relation,
        }
        for fact in known
    ]
    wrong = next(fact.target for fact in known if fact.target != known[0].target)
    unknown = {**records[0], "attribute": wrong}
    editor = RankOneEditor(model, tokenizer)
    cases = rome_on_a_real_model.known_cases(editor, [*records, unknown], 3)
    assert len(cases) == 3
    for case in cases:
        truth = {fact.subject: fact.target for fact in known}[case.request.subject]
        assert case.truth == truth != case.request.target in {fact.target for fact in known}
        assert case.request.text not in {prompt for prompt, _ in case.neighbours}


def test_another_model_needs_a_fact():
    with pytest.raises(SystemExit, match="--prompt"):
        rank_one_editing.main(["--model", "gpt2-xl"])
