"""The tour of the bench runs, and finds what the heads of the small GPT are for."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "experiments"))

import bench_tour

from toumei.bench import Bench


def test_the_tour_keeps_every_run_and_finds_heads_that_answers_need(tmp_path, capsys):
    family = bench_tour.main(["--facts", "5", "--out", str(tmp_path / "new")])
    assert len(family) == 24 and float(family.p_values.min()) < 0.05
    printed = capsys.readouterr().out
    assert "equal bit for bit" in printed and "argument prompt" in printed
    for name in ("runs.html", "heads.png", "profile.png", "trace.json.gz"):
        assert (tmp_path / "new" / name).stat().st_size > 1000
    runs = Bench(tmp_path / "new").runs()
    assert len(runs) == 7 and {run.status for run in runs} == {"finished"}


def test_a_model_needs_prompts():
    with pytest.raises(SystemExit):
        bench_tour.main(["--model", "gpt2"])
