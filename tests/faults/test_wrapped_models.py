"""A model that is wrapped, compiled or run under autocast is the model that is looked at and edited."""

import copy

import pytest
import torch
from torch import nn

from toumei.attribution import InputXGradient, randomization
from toumei.core import run
from toumei.core.errors import ArchitectureError
from toumei.models import facts_gpt
from toumei.transformers import CausalTracer, RankOneEditor, anatomy, collect_statistics, logit_lens
from toumei.transformers.rome.editing import Edit, EditRequest, revert_all
from toumei.transformers.rome.evaluation import evaluate, world_cases
from toumei.transformers.rome.weight_edits import LowRank

pytestmark = pytest.mark.filterwarnings("ignore:the editor has no key statistics")


@pytest.fixture(scope="module")
def network():
    return facts_gpt()


@pytest.fixture
def model(network):
    return copy.deepcopy(network[0])


def fact_of(network):
    _, _, world = network
    fact = world.facts[0]
    return {"prompt": fact.prompt, "subject": fact.subject, "target": world.alternatives(fact)[0]}, fact


def weights(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(model, before):
    return all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def random_edit(model, layers=(1,), scale=1.0):
    draw, parts = torch.Generator().manual_seed(0), anatomy(model)
    pairs = {
        layer: LowRank(
            scale * torch.randn(parts.width, 1, generator=draw),
            torch.randn(1, 4 * parts.width, generator=draw),
        )
        for layer in layers
    }
    return Edit(parts, "random", (EditRequest("{} lives in", "Ann", "Rome"),), pairs)


# ---------------------------------------------------------------- autocast


@pytest.mark.parametrize("how", ["block", "apply", "force", "all", "two"])
def test_autocast_sees_an_edit_and_that_it_is_gone(model, how):
    ids, edit, other = torch.tensor([[5, 6, 7]]), random_edit(model), random_edit(model, (1, 2))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        before = model(ids).logits
        if how == "two":
            other.apply()
            model(ids)
        edit.apply()
        during = model(ids).logits
        if how == "all":
            revert_all(model)
        else:
            edit.revert(force=how == "force")
        if how == "two":
            assert not torch.equal(model(ids).logits, before)
            other.revert()
        after = model(ids).logits
    assert not torch.equal(during, before) and torch.equal(after, before)
    with torch.no_grad(), edit, torch.autocast("cpu", torch.bfloat16):
        assert (how == "two") or torch.equal(model(ids).logits, during)


def test_an_edit_that_is_made_under_autocast_measures_what_it_does(network, model):
    ask, fact = fact_of(network)
    editor = RankOneEditor(model, network[1], contexts=("And. {}",))
    with torch.autocast("cpu", torch.bfloat16):
        model(torch.tensor([network[1](fact.text)["input_ids"]]))
        edit = editor.edit(**ask, layer=2)
    assert edit.effects[0].took


def test_weights_that_are_forgotten_are_forgotten_under_autocast():
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).eval(), torch.randn(4, 6)
    with torch.autocast("cpu", torch.bfloat16):
        found = randomization(InputXGradient(net), x, target=1)
    assert (found.correlations.mean(1) < 0.99).all()


# ---------------------------------------------------------------- wrappers


class SeenThrough(nn.Module):
    """A wrapper whose attributes are those of the model inside of it."""

    def __init__(self, model):
        super().__init__()
        self.inside = model

    def __getattr__(self, name):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("inside"), name)

    def forward(self, *args, **kwargs):
        return self.inside(*args, **kwargs)


class Plain(nn.Module):
    """A wrapper that shows nothing of the model inside of it."""

    def __init__(self, model):
        super().__init__()
        self.inside = model

    def forward(self, tokens):
        return self.inside(tokens).logits


class Prompted(SeenThrough):
    """As prompt tuning does it: the model sees something else in front."""

    def forward(self, tokens, **options):
        return self.inside(torch.cat([tokens.new_full((len(tokens), 2), 7), tokens], 1), **options)


class Hotter(SeenThrough):
    def forward(self, tokens, **options):
        return 0.5 * self.inside(tokens, **options).logits


@pytest.mark.parametrize("wrap", [SeenThrough, Plain, lambda model: SeenThrough(Plain(model))])
def test_everything_takes_a_wrapped_model_for_the_model(network, model, wrap):
    _, tokenizer, world = network
    (ask, fact), wrapped, before = fact_of(network), wrap(model), weights(model)
    lens = logit_lens(wrapped, tokenizer, fact.text, fact.target)
    plain = logit_lens(network[0], tokenizer, fact.text, fact.target)
    torch.testing.assert_close(lens.probabilities, plain.probabilities)
    trace = CausalTracer(wrapped, tokenizer).trace(fact.text, fact.subject, samples=2)
    expected = CausalTracer(network[0], tokenizer).trace(fact.text, fact.subject, samples=2)
    torch.testing.assert_close(trace.scores, expected.scores)
    statistics = collect_statistics(wrapped, tokenizer, [fact.text] * 3, [1], verbose=False)
    statistics.check(wrapped)
    statistics.check(network[0])
    edit = RankOneEditor(wrapped, tokenizer, contexts=()).edit(**ask, layer=2)
    with edit:
        assert evaluate(wrapped, tokenizer, world_cases(world, 1)).values["efficacy"].isfinite()
        assert logit_lens(wrapped, tokenizer, fact.text, ask["target"]).ranks[-1] == 0
    edit.apply()
    revert_all(wrapped)
    assert same(model, before) and not edit.applied


def test_an_edit_of_a_wrapped_model_is_one_of_the_model(network, model, tmp_path):
    ask, _ = fact_of(network)
    edit = RankOneEditor(SeenThrough(model), network[1], contexts=()).edit(**ask, layer=2)
    edit.save(tmp_path / "edit.safetensors")
    loaded = Edit.load(tmp_path / "edit.safetensors", network[0])
    assert torch.equal(loaded.changes[2].dense, edit.changes[2].dense)
    assert Edit.load(tmp_path / "edit.safetensors", Plain(model)).parts.model is model


@pytest.mark.parametrize("wrap", [Prompted, Hotter])
def test_wrappers_that_say_something_else_are_refused(network, model, wrap):
    with pytest.raises(ArchitectureError, match=f"{wrap.__name__} gives other logits .* the inner model"):
        logit_lens(wrap(model), network[1], "a", "b")


@pytest.mark.parametrize("entry", [anatomy, lambda m: run(m, torch.ones(1, 3), record=["module"])])
def test_data_parallel_is_refused_with_the_way_out(model, entry):
    with pytest.raises(ArchitectureError, match=r"give model\.module"):
        entry(nn.DataParallel(model))


# ---------------------------------------------------------------- adapters


class Adapted(nn.Module):
    """As PEFT puts LoRA around a linear layer or a `Conv1D`."""

    def __init__(self, base_layer):
        super().__init__()
        self.base_layer = base_layer
        sizes = (
            base_layer.weight.shape
            if type(base_layer).__name__ == "Conv1D"
            else base_layer.weight.shape[::-1]
        )
        self.in_features, self.out_features = sizes
        self.lora_A = nn.ModuleDict({"default": nn.Linear(sizes[0], 2, bias=False)})
        self.lora_B = nn.ModuleDict({"default": nn.Linear(2, sizes[1], bias=False)})

    @property
    def weight(self):
        return self.base_layer.weight

    def forward(self, x):
        return self.base_layer(x) + self.lora_B["default"](self.lora_A["default"](x))


def adapted(kind):
    """A tiny model of a known or an unknown architecture, with an adapter around each down-projection."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 32}
    sizes["intermediate_size"] = (
        48 if kind == "granite" else 32
    )  # whose parts are searched for by their sizes
    options = {"n_inner": 32, "n_embd": 32, "n_layer": 2, "n_head": 4} if kind == "gpt2" else sizes
    config = AutoConfig.for_model(kind, vocab_size=50, pad_token_id=0, **options)
    model = AutoModelForCausalLM.from_config(config).eval()
    for block in model.transformer.h if kind == "gpt2" else model.model.layers:
        name = "c_proj" if kind == "gpt2" else "down_proj"
        setattr(block.mlp, name, Adapted(getattr(block.mlp, name)))
    return model


@pytest.mark.parametrize("kind", ["gpt2", "llama", "granite"])
def test_a_layer_with_an_adapter_is_edited_inside_of_it(kind):
    """Most down-projections are square here: only the type of the layer says which axis has the keys."""
    model = adapted(kind)
    parts, before, ids = anatomy(model), weights(model), torch.tensor([[3, 4, 5]])
    draw = torch.Generator().manual_seed(0)
    change = LowRank(
        torch.randn(32, 1, generator=draw), torch.randn(1, 48 if kind == "granite" else 32, generator=draw)
    )
    edit = Edit(parts, "random", (EditRequest("{} lives in", "Ann", "Rome"),), {1: change})
    down, name = parts.down(1), f"{parts.down(1)}.base_layer.weight"
    with torch.no_grad():
        key = run(model, ids, record=[down], inputs=True)[down]
        old = run(model, ids, record=[down])[down]
        with edit:
            new = run(model, ids, record=[down])[down]
            assert [n for n, tensor in model.state_dict().items() if not torch.equal(tensor, before[n])] == [
                name
            ]
    torch.testing.assert_close(new - old, key @ change.dense.T, rtol=1e-3, atol=1e-4)
    assert same(model, before) and parts.keys_first(1) == (kind == "gpt2")


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:.*(did not take|took only weakly)")
def test_models_of_peft(network, model):
    peft = pytest.importorskip("peft", reason="PEFT is not installed")
    (ask, fact), tokenizer = fact_of(network), network[1]
    config = peft.LoraConfig(target_modules=["c_proj"], r=2, fan_in_fan_out=True, init_lora_weights=False)
    wrapped = peft.get_peft_model(model, config).eval()
    before, ids = weights(wrapped), torch.tensor([tokenizer(fact.text)["input_ids"]])
    with torch.no_grad():
        odds = wrapped(ids).logits[0, -1].softmax(-1)
    lens = logit_lens(wrapped, tokenizer, fact.text, fact.target)
    assert lens.top_probabilities[-1, 0].item() == pytest.approx(odds.max().item(), rel=1e-3)
    edit = RankOneEditor(wrapped, tokenizer, contexts=()).edit(**ask, layer=2)
    with edit, torch.no_grad():
        new = tokenizer(ask["target"])["input_ids"][-1]
        found = wrapped(ids).logits[0, -1].softmax(-1)[new].item()
    assert found == pytest.approx(edit.effects[0].target[1], rel=1e-3) and same(wrapped, before)
    tuned = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    with pytest.raises(ArchitectureError, match="prompt tuning"):
        anatomy(peft.get_peft_model(copy.deepcopy(network[0]), tuned))
