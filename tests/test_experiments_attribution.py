import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "experiments"))

import attribution
import attribution_baselines
import attribution_sanity


def test_methods_on_shapes_as_a_table_and_a_figure(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(attribution, "PERTURBING", ("KernelShap",))
    out, table = tmp_path / "new" / "methods.png", tmp_path / "page" / "table.md"
    attribution.main(["--images", "1", "--samples", "120", "--out", str(out), "--table", str(table)])
    assert out.stat().st_size > 10_000
    rows = [line for line in table.read_text().splitlines() if line.startswith("| ")]
    assert len(rows) == 2 + 12 and all(line.count("|") == 6 for line in rows)
    assert "DeepLift" in capsys.readouterr().out


def test_without_weights_or_a_photograph_it_says_so(tmp_path):
    with pytest.raises(SystemExit, match="no weights"):
        attribution.main(["--weights", str(tmp_path / "none.safetensors")])


def test_baselines(tmp_path, capsys, monkeypatch):
    few = {name: attribution_baselines.kinds()[name] for name in ("gray", "other images")}
    monkeypatch.setattr(attribution_baselines, "kinds", lambda: few)
    out = tmp_path / "baselines.png"
    attribution_baselines.main(["--images", "1", "--samples", "130", "--draws", "2", "--out", str(out)])
    assert out.stat().st_size > 10_000 and capsys.readouterr().out.count("mass inside") == 2


def test_sanity(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(attribution_sanity, "LAYERS", ("head", "conv6"))
    monkeypatch.setattr(attribution_sanity, "METHODS", {"GuidedBackprop": attribution_sanity.GuidedBackprop})
    out = tmp_path / "sanity.png"
    attribution_sanity.main(["--images", "1", "--out", str(out)])
    assert out.stat().st_size > 10_000 and "GuidedBackprop" in capsys.readouterr().out
