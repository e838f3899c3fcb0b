"""A search that did not move and an edit that did not take say so, and say what to try."""

import copy
import warnings

import pytest
import torch
from torch import nn

from toumei.cnns import (
    Pipeline,
    Visualization,
    accentuate,
    caricature,
    deep_dream,
    invert,
    objectives,
    parameterization,
    robustness,
)
from toumei.core.errors import ArgumentError
from toumei.models import facts_gpt
from toumei.transformers import RankOneEditor
from toumei.transformers.rome.editing import Edit

pytestmark = pytest.mark.filterwarnings("ignore:the editor has no key statistics")


class Rounded(nn.Module):
    """A network whose gradient ends at a function without one."""

    def __init__(self, end=torch.round):
        super().__init__()
        self.end, self.conv = end, nn.Conv2d(3, 4, 3)

    def forward(self, x):
        return self.conv(self.end(3 * x))


def dead():
    """A network whose units say nothing to any picture, and let no gradient through."""
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1)).eval()
    with torch.no_grad():
        net[0].bias.fill_(-1e3)
    return net


def said(work):
    """What a call returns, and the warnings about progress."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = work()
    found = [str(one.message) for one in caught]
    words = ("did not move", "regularizers", " took ", "not take")
    return result, [text for text in found if any(word in text for word in words)]


def pictures(count=1):
    return parameterization.FFTImage(count, 3, 12, 12, seed=0)


@pytest.mark.parametrize("end", [torch.sign, torch.round, torch.floor, lambda x: x.detach() + 0 * x])
def test_a_picture_that_gets_no_gradient_is_said_not_to_move(end):
    pipeline = Pipeline(pictures(), "conv:1").attach(Rounded(end).eval())
    result, told = said(lambda: pipeline.optimize(5, verbose=False, seed=0))
    assert len(told) == 1 and "the picture did not move in 5 steps ('conv:1')" in told[0]
    assert "redirect" in told[0] and "lr" in told[0]
    assert not result.moved.any() and "moved by 0, finished" in repr(result)


@pytest.mark.parametrize("name", ["PixelImage", "FFTImage", "Laplacian"])
def test_every_parameterization_says_so(name):
    kind = getattr(parameterization, name, parameterization.PixelImage)
    pipeline = Pipeline(kind(1, 3, 16, 16, seed=0), "conv:1").attach(Rounded().eval())
    assert len(said(lambda: pipeline.optimize(3, verbose=False, seed=0))[1]) == 1


def test_units_that_are_dead_are_named_among_others():
    torch.manual_seed(0)
    net = nn.Conv2d(3, 3, 3).eval()
    with torch.no_grad():
        net.weight[1] = 0.0
    model = nn.Sequential(net)
    pipeline = Pipeline(pictures(3), ["0:0", "0:1", "0:2"]).attach(model)
    result, told = said(lambda: pipeline.optimize(3, verbose=False, seed=0))
    assert len(told) == 1 and "1 of 3 pictures did not move in 3 steps ('0:1')" in told[0]
    assert (result.moved > 0).tolist() == [True, False, True] and "moved by 0 to " in repr(result)


def test_a_dead_network_says_so_where_no_gradient_is_redirected():
    pipeline = Pipeline(pictures(), "2:1").attach(dead())
    assert said(lambda: pipeline.optimize(3, verbose=False, seed=0, redirect=0))[1]


def test_methods_that_start_from_a_photograph_say_so():
    photograph = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0))
    net = Rounded().eval()
    dream, told = said(lambda: deep_dream(net, photograph, "conv", octaves=1, steps=2, verbose=False))
    assert told and not dream.moved.any()
    assert said(lambda: caricature(net, photograph, "conv", steps=2, verbose=False))[1]


@pytest.mark.parametrize("options", [{"tv_loss": True}, {"tv_loss": 0.5}])
def test_a_picture_that_only_its_regularizer_moves_is_told(options):
    """Total variation has a gradient where the network has none: the picture moves, and shows nothing."""
    pipeline = Pipeline(pictures(), "conv:1").attach(Rounded().eval())
    result, told = said(lambda: pipeline.optimize(5, verbose=False, seed=0, **options))
    assert len(told) == 1 and "moved in 5 steps by regularizers and noise only ('conv:1')" in told[0]
    assert result.moved.min() > 1e-4
    good = Pipeline(pictures(), "conv:1").attach(Rounded(torch.tanh).eval())
    assert not said(lambda: good.optimize(5, verbose=False, seed=0, **options))[1]


@pytest.mark.parametrize("work", [accentuate, invert])
def test_methods_with_penalties_say_that_the_network_moved_nothing(work):
    photograph = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0))
    layer = "conv:1" if work is accentuate else "conv"
    for net, silent in ((Rounded(), False), (Rounded(torch.tanh), True)):
        found = said(lambda net=net: work(net.eval(), photograph, layer, steps=2, seed=0, verbose=False))[1]
        assert bool(found) != silent


def test_one_of_several_pictures_that_only_its_regularizer_moves_is_named():
    torch.manual_seed(0)
    net = nn.Conv2d(3, 3, 3).eval()
    with torch.no_grad():
        net.weight[1] = 0.0
    views = parameterization.Transform(pictures(3), robustness.Crops(2, 8))
    pipeline = Pipeline(views, ["0:0", "0:1", "0:2"]).attach(nn.Sequential(net))
    told = said(lambda: pipeline.optimize(3, verbose=False, seed=0, tv_loss=True))[1]
    assert len(told) == 1 and "1 of 3 pictures moved in 3 steps by regularizers" in told[0]
    assert "'0:1'" in told[0]


def test_how_far_pictures_came_is_a_number_that_is_kept(tmp_path):
    pipeline = Pipeline(pictures(2), objectives.Channel("conv", channels=[0, 1]))
    pipeline.attach(Rounded(torch.tanh).eval())
    first = pipeline.image
    result, told = said(lambda: pipeline.optimize(4, verbose=False, seed=0))
    expected = (result.images - first).square().mean((1, 2, 3)).sqrt()
    assert not told and torch.equal(result.moved, expected) and (expected > 1e-3).all()
    result.save(tmp_path / "result.safetensors")
    assert torch.equal(Visualization.load(tmp_path / "result.safetensors").moved, expected)


def test_no_steps_are_no_standstill():
    pipeline = Pipeline(pictures(), "conv:1").attach(Rounded().eval())
    assert not said(lambda: pipeline.optimize(0, verbose=False))[1]


# ---------------------------------------------------------------- edits


@pytest.fixture(scope="module")
def network():
    return facts_gpt()


def editor_of(network):
    model, tokenizer, _ = network
    return RankOneEditor(copy.deepcopy(model), tokenizer, contexts=("And. {}", "So it is. {}"))


def fact_of(network, number=0):
    _, _, world = network
    fact = world.facts[number]
    return {"prompt": fact.prompt, "subject": fact.subject, "target": world.alternatives(fact)[0]}, fact


def odds(model, tokenizer, text):
    with torch.no_grad():
        return model(torch.tensor([tokenizer(text)["input_ids"]])).logits[0, -1].softmax(-1)


def test_an_edit_says_how_far_it_came(network, tmp_path):
    editor, (ask, fact) = editor_of(network), fact_of(network)
    edit, told = said(lambda: editor.edit(**ask, layer=2))
    (effect,), tokenizer, model = edit.effects, network[1], editor.model
    new, old = (tokenizer(text)["input_ids"][-1] for text in (ask["target"], fact.target))
    before = odds(model, tokenizer, fact.text)
    with edit:
        after = odds(model, tokenizer, fact.text)
        elsewhere = [odds(model, tokenizer, f"{start}{fact.text}") for start in ("", "And. ", "So it is. ")]
    assert effect.target == pytest.approx((before[new].item(), after[new].item()), rel=1e-3, abs=1e-6)
    assert effect.old == pytest.approx((before[old].item(), after[old].item()), rel=1e-3, abs=1e-6)
    in_contexts = torch.stack(elsewhere)[:, new].mean().item()
    assert effect.target_in_contexts[1] == pytest.approx(in_contexts, rel=1e-3)
    assert effect.took and not effect.weak and not told and effect.likeliest_in_contexts == 1.0
    assert effect.old_answer == tokenizer.decode([old])
    assert f"p {effect.target[0]:.2g} to {effect.target[1]:.2g}" in repr(edit) and len(repr(edit)) < 200
    edit.save(tmp_path / "edit.safetensors")
    assert tuple(Edit.load(tmp_path / "edit.safetensors", model).effects) == edit.effects


@pytest.mark.parametrize("weak", [{"steps": 2}, {"clamp": 1e-3}, {"lr": 1e-4}, {"layer": 4, "steps": 3}])
def test_an_edit_that_does_not_take_says_so_and_what_to_try(network, weak):
    editor, (ask, fact) = editor_of(network), fact_of(network)
    edit, told = said(lambda: editor.edit(**{**ask, "layer": 2, **weak}))
    assert len(told) == 1 and "the edit did not take" in told[0] and not edit.effects[0].took
    assert all(word in told[0] for word in ("trace", "steps", "clamp", fact.target.strip(), ask["target"]))
    with edit:
        assert (
            network[1].decode(odds(editor.model, network[1], fact.text).argmax()).strip()
            == fact.target.strip()
        )


def test_one_of_many_facts_that_did_not_take_is_counted(network):
    editor = editor_of(network)
    facts = [tuple(fact_of(network, number)[0].values()) for number in (0, 10, 20)]
    edit, told = said(lambda: editor.edit_many(facts, layers=[2], steps=2, verbose=False))
    missed = sum(not effect.took for effect in edit.effects)
    assert missed and f"{missed} of 3 facts did not take" in told[0]
    assert f"3 facts, {3 - missed} took" in repr(edit)
    edit, told = said(lambda: editor.edit_many(facts, layers=[2], ridge=1e-2, verbose=False))
    assert all(effect.took for effect in edit.effects) and not told


@pytest.mark.parametrize("method", ["rome", "r-rome", "memit", "emmet"])
def test_a_layer_that_cannot_reach_the_answer_changes_nothing_and_says_so(network, method):
    editor, (ask, fact) = editor_of(network), fact_of(network)
    assert not fact.prompt.endswith("{}")
    edit, told = said(lambda: editor.edit(**ask, layer=5, method=method))
    assert len(told) == 1 and "layer 5 adds at the subject's last token cannot reach the answer" in told[0]
    assert edit.effects[0].ended == "unreachable" and edit.changes[5].dense.abs().max() < 1e-6
    assert edit.effects[0].target[0] == pytest.approx(edit.effects[0].target[1], rel=1e-2)


@pytest.mark.parametrize("layers", [[5], [3, 4, 5]])
def test_many_facts_in_layers_that_cannot_reach_an_answer_are_refused(network, layers):
    editor = editor_of(network)
    facts = [tuple(fact_of(network, number)[0].values()) for number in (0, 10)]
    before = {name: tensor.clone() for name, tensor in editor.model.state_dict().items()}
    with pytest.raises(ArgumentError, match="layer 5 cannot reach the answer of .* earlier layers"):
        editor.edit_many([("In the town {}", *facts[1][1:]), *facts], layers=layers, verbose=False)
    assert all(torch.equal(tensor, before[name]) for name, tensor in editor.model.state_dict().items())


def test_the_last_layer_reaches_the_answer_where_the_subject_ends_the_prompt(network):
    editor, (ask, _) = editor_of(network), fact_of(network)
    edit, _ = said(lambda: editor.edit("In the town lives {}", ask["subject"], ask["target"], layer=5))
    assert edit.effects[0].target[1] > 10 * edit.effects[0].target[0]


def test_what_a_network_says_already_needs_no_step_and_is_no_failure(network):
    editor, (ask, fact) = editor_of(network), fact_of(network)
    edit, told = said(lambda: editor.edit(**{**ask, "target": fact.target}, layer=2))
    assert not told and edit.effects[0].took
