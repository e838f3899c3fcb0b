"""The page of all units and the benchmark of sweeps run, small; a page that was killed goes on."""

import json
import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "experiments"))
sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

import sweeps
import torch
import units_of_a_network
from torchvision.utils import save_image

from toumei.cnns.all_units import _UnitTask

LAYERS = ("conv2", "conv4", "conv6")


def units_on(page):
    return json.loads(re.search(r"const data = (.*);\n", page.read_text()).group(1))


def test_a_page_of_units_goes_on_where_it_was_killed(tmp_path, monkeypatch):
    out = tmp_path / "units.html"
    for number in range(12):
        save_image(torch.rand(3, 32, 32), tmp_path / f"{number}.png")
    settings = {"images": tmp_path, "limit": 3, "steps": 1, "size": 32, "device": "cpu", "out": out}
    arguments = [text for name, value in settings.items() for text in (f"--{name}", str(value))]
    made = []

    def counted(task, channels, call=_UnitTask.__call__):
        made.append(task.layer)
        if made == list(LAYERS):
            raise KeyboardInterrupt
        return call(task, channels)

    monkeypatch.setattr(_UnitTask, "__call__", counted)
    with pytest.raises(KeyboardInterrupt):
        units_of_a_network.main(arguments)
    assert len(units_on(out)) == 6
    assert units_of_a_network.main(arguments) == out
    assert made == [*LAYERS, "conv6"]
    units = units_on(out)
    assert [unit["name"] for unit in units] == [f"{layer}:{k}" for layer in LAYERS for k in range(3)]
    assert all(unit["picture"].startswith("data:image/png") and unit["contrast"] > 0 for unit in units)


def test_the_benchmark_compares_two_workers_with_one():
    figures = sweeps.main(["--items", "4", "--rounds", "1", "--megabytes", "0.1"])
    assert figures["two workers over half of one"] > 0
