"""The experiments on dataset examples and on the sanity score run, small, and write what they say."""

import sys
from pathlib import Path

import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "experiments"))
sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

import dataset_examples
import example_search
import sanity

SMALL = ("--images", "20", "--steps", "2", "--device", "cpu")


def test_pictures_beside_their_examples_and_again_from_what_was_kept(tmp_path):
    arguments = ["--units", "conv2:3", "conv6:1", "--k", "4", *SMALL, "--out", str(tmp_path / "a.png")]
    for _ in range(2):
        path = dataset_examples.main(arguments)
        with Image.open(path) as image:
            assert image.width > image.height
    assert (tmp_path / "a_20_4.safetensors").exists()


@pytest.mark.filterwarnings("ignore:there is no score")  # for one of two units, of few images
def test_curves_of_the_sanity_score(tmp_path, capsys):
    path = sanity.main(["--per-layer", "2", *SMALL, "--out", str(tmp_path / "new" / "sanity.png")])
    with Image.open(path) as image:
        assert image.width > image.height
    assert "conv6, one more exciting image" in capsys.readouterr().out


def test_the_benchmark_times_both_over_the_same_batches():
    figures = example_search.main(["--images", "100", "--batch-size", "5"])
    assert figures["search / forward pass, 100 images"] > 0
    kept = [figures[f"numbers alive between batches, thousands, {count} images"] for count in (10, 100)]
    assert abs(kept[1] - kept[0]) < 0.1 * kept[0]
