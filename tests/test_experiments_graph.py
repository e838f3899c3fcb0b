"""The experiment on the graph of a network runs, and writes what it says."""

import sys
from pathlib import Path

from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "experiments"))

import graph_of_a_network


def test_the_graph_of_the_language_model_that_ships(tmp_path):
    page, picture, text = graph_of_a_network.main(["--model", "facts_gpt", "--out", str(tmp_path)])
    assert "GPT2LMHeadModel" in page.read_text() and text.read_text().startswith("digraph")
    with Image.open(picture) as image:
        assert image.height > image.width > 100
