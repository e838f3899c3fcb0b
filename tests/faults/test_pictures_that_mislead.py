"""Pictures and pages say what they show: names of classes, ties; and no text turns a page round."""

import dataclasses
import warnings

import pytest
import torch
from matplotlib import pyplot
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from toumei.attribution import Saliency
from toumei.cnns import activation_atlas, dataset_examples

NAMES = ("apple", "bear", "cat", "dog", "egg")
OVERRIDE = "cat\u202egnp.exe"


def network(bias: float = 0.0, categories: tuple[str, ...] = NAMES) -> nn.Module:
    torch.manual_seed(0)
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)]
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), *head).eval()
    nn.init.constant_(model[0].bias, bias)
    model.categories = categories
    return model


def pictures(count: int = 12) -> torch.Tensor:
    return torch.rand(count, 3, 12, 12, generator=torch.Generator().manual_seed(0))


def atlas(model: nn.Module, **options):
    settings = {"grid": 2, "min_count": 1, "layout": "pca", "steps": 2, "count": 12, "size": 12}
    loader = DataLoader(TensorDataset(pictures()), batch_size=4)
    return activation_atlas(model, "1", loader, verbose=False, **settings, **options)


def test_an_atlas_names_the_classes_of_a_classifier_without_being_told():
    found = atlas(network())
    assert len(found.labels) == len(found.cells) and set(found.labels) <= set(NAMES)
    assert found.labels == atlas(network(), logits="").labels
    assert all(name in found.page() for name in set(found.labels))


@pytest.mark.parametrize("categories", [(), NAMES[:3]])
def test_an_atlas_names_no_classes_where_the_names_are_not_those_of_the_outputs(categories):
    assert atlas(network(categories=categories)).labels == ()


def test_an_atlas_of_a_network_whose_output_is_a_map_has_no_classes():
    model = network()
    model[2] = nn.Conv2d(4, 5, 1)
    del model[3:]
    assert atlas(model).labels == ()


def test_the_figure_of_an_atlas_is_as_wide_as_high():
    axes = atlas(network()).plot()
    axes.figure.canvas.draw()
    width, height = axes.figure.get_size_inches()
    assert 0.8 < width / height < 1.25 and "activations of 1" in axes.get_title()
    box = axes.get_window_extent()
    assert box.width == pytest.approx(box.height, rel=0.02) and box.height > 0.7 * axes.figure.bbox.height
    pyplot.close("all")


def test_names_do_not_turn_pages_round():
    found = dataclasses.replace(atlas(network()), categories=(OVERRIDE,) * 5)
    assert "\u202e" not in found.page() and "gnp.exe" in found.page()
    shown = dataclasses.replace(Saliency(network())(pictures(1), 1), names=(OVERRIDE,))
    assert "\u202e" not in shown._repr_html_()


@pytest.mark.parametrize(("bias", "lowest"), [(-0.6, True), (-9.0, False), (-9.0, True)])
def test_images_that_all_have_the_same_activation_are_not_shown_without_a_word(bias, lowest):
    """After a ReLU most images have the lowest activation, 0, and all of them for a unit that never fires."""
    found = dataset_examples(network(bias), "1", DataLoader(pictures(), batch_size=4), k=3, verbose=False)
    tied = [unit for unit in range(4) if (found.values(f"1:{unit}", lowest=lowest) == 0).all()]
    assert tied
    word = "lowest" if lowest else "highest"
    with pytest.warns(UserWarning, match=f"the 3 {word} images of '1:{tied[0]}' all have the activation 0"):
        found.images(f"1:{tied[0]}", lowest=lowest)
    with pytest.warns(UserWarning, match="say nothing about the unit"):
        found.plot([f"1:{tied[0]}"])
    pyplot.close("all")


def test_images_with_different_activations_are_shown_without_a_warning():
    found = dataset_examples(network(1.0), "1", DataLoader(pictures(), batch_size=4), k=3, verbose=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found.plot([f"1:{unit}" for unit in range(4)])
    pyplot.close("all")


def test_an_attribution_names_the_class_that_it_explains():
    assert Saliency(network())(pictures(2), 2).names == ("cat",)
    assert Saliency(network())(pictures(2), [0, -1]).names == ("apple", "egg")
    assert Saliency(network())(pictures(2), ["1:3", 1]).names == ("1:3", "bear")
    assert Saliency(network(categories=()))(pictures(2), 2).names is None
    axes = Saliency(network())(pictures(2), 2).plot()
    assert any("contribution to cat" in bar.get_ylabel() for bar in axes.figure.axes)
    pyplot.close("all")
