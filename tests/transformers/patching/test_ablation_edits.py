"""Ablations as edits: what they leave, and what they put in place of the rest."""

import pytest
import torch

from toumei.core.errors import ArgumentError, ShapeError
from toumei.transformers import HookedModel, ablation

ROWS = [[5, 9, 33, 7], [8, 21, 3, 50]]


@pytest.fixture
def model(language_model):
    return HookedModel(language_model("llama"))


def changed(model, name, edit, rows=ROWS):
    """An activation before and after an edit."""
    _, before = model.run_with_cache(rows, [name])
    with model.edit({name: edit}):
        _, after = model.run_with_cache(rows, [name])
    return before[name].detach(), after[name].detach()


@pytest.mark.parametrize("name", [("z", 1), ("q", 1), ("pattern", 1)])
def test_heads_at_positions_become_zero_and_the_rest_stays(model, name):
    before, after = changed(model, name, ablation(heads=[2, 0], positions=[-1, 1]))
    expected = before.clone()
    axes = (1, 2) if name[0] == "pattern" else (2, 1)
    for head in (0, 2):
        for position in (1, 3):
            expected.select(axes[0], head).select(axes[1] - (axes[1] > axes[0]), position).zero_()
    assert torch.equal(after, expected) and not torch.equal(before, after)


def test_neurons_and_whole_layers(model):
    before, after = changed(model, ("post", 0), ablation(neurons=[3, 47]))
    assert not after[..., [3, 47]].any() and torch.equal(after[..., 4:47], before[..., 4:47])
    assert not changed(model, ("mlp_out", 1), ablation())[1].any()


def test_a_mean_is_that_of_the_positions_or_of_all(model):
    _, cache = model.run_with_cache([[1, 2, 3, 4], [9, 8, 7, 6], [30, 31, 32, 33]], [("z", 1)])
    reference = cache["z", 1].detach()
    after = changed(model, ("z", 1), ablation("mean", reference=cache))[1]
    assert torch.allclose(after, reference.mean(0).expand_as(after), atol=1e-6)
    after = changed(model, ("z", 1), ablation("mean", reference=cache, pooled=True))[1]
    assert torch.allclose(after, reference.mean((0, 1)).expand_as(after), atol=1e-6)
    before, after = changed(model, ("z", 1), ablation("mean"))
    assert torch.allclose(after, before.mean(0).expand_as(before), atol=1e-6)


def test_resampling_takes_other_texts(model):
    before, after = changed(model, ("z", 1), ablation("resample", heads=[1]))
    assert torch.equal(after[:, :, 1], before[[1, 0], :, 1]) and torch.equal(after[:, :, 0], before[:, :, 0])
    _, cache = model.run_with_cache([[1, 2, 3, 4], [9, 8, 7, 6]], [("z", 1)])
    assert torch.equal(changed(model, ("z", 1), ablation("resample", reference=cache))[1], cache["z", 1])


@pytest.mark.parametrize("kind", ["zero", "mean", "resample"])
def test_only_the_component_along_a_direction_changes(model, kind):
    direction = torch.linspace(-1, 2, model.width)
    before, after = changed(model, ("resid_pre", 1), ablation(kind, direction=direction))
    unit = direction / direction.norm()
    target = {"zero": before * 0, "mean": before.mean(0, keepdim=True).expand_as(before)}.get(kind)
    target = before[[1, 0]] if target is None else target
    assert torch.allclose(after @ unit, target @ unit, atol=1e-4)
    across = torch.eye(model.width) - unit[:, None] * unit
    assert torch.allclose(after @ across, before @ across, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "edit", "error", "message"),
    [
        (("resid_pre", 0), {"heads": [0]}, ArgumentError, "has no heads"),
        (("z", 0), {"heads": [4]}, ArgumentError, "heads are from 0 to 3, got 4"),
        (("z", 0), {"heads": []}, ArgumentError, "got none"),
        (("z", 0), {"positions": [4]}, ArgumentError, "positions are from 0 to 3"),
        (("post", 0), {"neurons": [-49]}, ArgumentError, "neurons are from 0 to 47"),
        (("resid_pre", 0), {"direction": torch.zeros(32)}, ShapeError, "not all zero"),
        (("resid_pre", 0), {"direction": torch.ones(31)}, ShapeError, "32 numbers"),
    ],
)
def test_what_an_activation_does_not_have_is_refused(model, name, edit, error, message):
    with pytest.raises(error, match=message), model.edit({name: ablation(**edit)}):
        model(ROWS)


def test_references_that_do_not_fit_are_refused(model):
    _, cache = model.run_with_cache([[1, 2, 3]], [("z", 0)])
    for kind in ("mean", "resample"):
        with pytest.raises(ShapeError), model.edit({("z", 0): ablation(kind, reference=cache)}):
            model(ROWS)
    with pytest.raises(ArgumentError, match="single text"), model.edit({("z", 0): ablation("resample")}):
        model(ROWS[:1])
    with pytest.raises(ArgumentError, match="kind is one of"):
        ablation("median")
