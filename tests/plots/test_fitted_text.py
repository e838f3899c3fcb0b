"""Headings of columns do not touch each other, in figures of any width, with any layout."""

from itertools import combinations

import numpy as np
import pytest
import torch
from matplotlib import pyplot

from toumei import plots
from toumei.attribution import GuidedBackprop, InputXGradient, IntegratedGradients, Saliency, overlay
from toumei.models import ShapesCNN
from toumei.plots.fitted_text import FittedText

IMAGES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def results():
    model = ShapesCNN()
    methods = [Saliency, IntegratedGradients, InputXGradient, GuidedBackprop]
    return [method(model)(IMAGES, 0) for method in methods]


def assert_apart(ax):
    """Draws the figure; no text of the axes covers another one."""
    ax.figure.draw_without_rendering()
    extents = [text.get_window_extent() for text in ax.texts if text.get_text()]
    assert len(extents) > 2 and all(extent.width > 1 for extent in extents)
    assert not any(one.padded(-0.5).overlaps(other.padded(-0.5)) for one, other in combinations(extents, 2))


@pytest.mark.parametrize("layout", ["constrained", "none"])
@pytest.mark.parametrize("width", [4, 8, 20])
def test_names_of_methods_in_axes_of_any_width_do_not_touch(results, width, layout):
    axes = pyplot.figure(figsize=(width, 3), layout=layout).subplots(1, 2)
    overlay(results, IMAGES, show=("original", "map", "blend"), ax=axes[1])
    assert_apart(axes[1])
    names = "".join(text.get_text() for text in axes[1].texts).replace("\n", "")
    assert "IntegratedGradients" in names  # broken, not cut


@pytest.mark.parametrize("width", [2, 9])
def test_titles_of_grids_and_of_examples_do_not_touch(width):
    axes = pyplot.figure(figsize=(width, 9)).subplots(3)
    titles = [f"features.{index}.conv.depthwise:{index}" for index in range(4)]
    images = IMAGES[:1].expand(4, -1, -1, -1)
    assert_apart(plots.image_grid(images, titles, ax=axes[0]))
    groups = {"optimizedPicture": [images[:1]] * 4, "highest activations": [images] * 4}
    assert_apart(plots.side_by_side(groups, titles, 2, ax=axes[1]))
    names = [f"AClassOfPictures{index}" for index in range(8)]
    result = Saliency(ShapesCNN())(images, np.arange(4), class_names=names)
    assert_apart(result.plot(ax=axes[2]))


def test_a_heading_with_room_is_as_it_was_and_grows_back_when_it_has_room_again():
    figure, ax = pyplot.subplots(figsize=(1, 1), layout="none")
    text = ax.add_artist(FittedText(0.5, 1, "IntegratedGradients", 0.5, lines=2, fontsize=10))
    figure.draw_without_rendering()
    assert text.get_text() == "Integrated\nGradients" and text.get_fontsize() < 8
    figure.set_size_inches(10, 1)
    figure.draw_without_rendering()
    assert text.get_text() == "IntegratedGradients" and text.get_fontsize() == 10
    text.set(text="mine", fontsize=12)
    figure.draw_without_rendering()
    assert text.get_text() == "mine" and text.get_fontsize() == 12
