"""The experiments on modularity run, with little training, and write what they say."""

import sys
from pathlib import Path

import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "experiments"))

import digits_modularity
import mlp_modularity
import modularity
import modularly_varying_goals


@pytest.mark.parametrize(
    ("experiment", "arguments", "says"),
    [
        (modularity, "--samples 2 --images 10", "combined p"),
        (mlp_modularity, "--steps 10 --samples 2", "locality"),
        (
            digits_modularity,
            "--seeds 1 --width 24 --epochs 4 --samples 2 --clusters 3",
            "pruned, dropout: mean z",
        ),
        (modularly_varying_goals, "--seeds 1 --epochs 2 --samples 2", "known modules: error"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_it_prints_a_table_and_writes_a_picture(experiment, arguments, says, tmp_path, capsys):
    path = experiment.main([*arguments.split(), "--out", str(tmp_path / "new" / "picture.png")])
    with Image.open(path) as picture:
        assert min(picture.size) > 500
    printed = capsys.readouterr().out
    assert says in printed and str(path) in printed
