"""Edits of one model, whatever happens between making and reverting them, leave nothing in the weights."""

import copy

import pytest
import torch

from toumei.core.errors import EditError
from toumei.transformers.model.families import anatomy
from toumei.transformers.rome.editing import Edit, EditRequest, revert_all
from toumei.transformers.rome.weight_edits import registry
from toumei.transformers.rome.weight_edits.low_rank import LowRank

ASK = {"prompt": "w9 w8 {}", "subject": "w3 w4 w5", "target": "w11"}


@pytest.fixture
def model(language_model):
    return copy.deepcopy(language_model("gpt2"))


def weights(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(model, before):
    return all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def random_edit(model, layers=(0, 1, 2), seed=0):
    draw = torch.Generator().manual_seed(seed)
    changes = {
        layer: LowRank(torch.randn(32, 1, generator=draw), torch.randn(1, 128, generator=draw))
        for layer in layers
    }
    return Edit(anatomy(model), "random", (EditRequest(**ASK),), changes)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, KeyboardInterrupt])
def test_an_edit_that_fails_between_two_layers_changes_nothing(model, error, monkeypatch):
    before, put, calls = weights(model), registry.set_weight, []

    def failing(module, tensor):
        calls.append(module)
        if len(calls) == 2:
            raise error
        put(module, tensor)

    first, second = random_edit(model, (1,), seed=1).apply(), random_edit(model)
    with monkeypatch.context() as patched, pytest.raises(error):
        patched.setattr(registry, "set_weight", failing)
        second.apply()
    assert not second.applied and first.applied
    with second:
        pass
    first.revert()
    assert same(model, before)


def test_what_was_written_over_an_edit_is_taken_back_only_by_force(model):
    before = weights(model)
    edit = random_edit(model, (0, 1)).apply()
    model.load_state_dict(before)
    with pytest.raises(EditError, match="changed by something else"):
        edit.revert()
    assert edit.applied
    assert not edit.revert(force=True).applied and same(model, before)
    with edit:
        pass
    assert same(model, before)


def test_every_edit_is_taken_back_even_those_that_are_lost(model):
    before = weights(model)
    random_edit(model, (0, 2)).apply()
    kept = random_edit(model, (1, 2), seed=1).apply()
    with torch.no_grad():
        model.transformer.h[2].mlp.c_proj.weight.zero_()
    revert_all(model)
    assert same(model, before) and not kept.applied
    revert_all(model)


def test_an_error_inside_the_block_is_not_hidden_by_that_of_taking_back(model):
    edit = random_edit(model, (1,))
    with pytest.warns(UserWarning, match="changed by something else"), pytest.raises(ZeroDivisionError), edit:
        with torch.no_grad():
            model.transformer.h[1].mlp.c_proj.weight.zero_()
        _ = 1 / 0
    edit.revert(force=True)
