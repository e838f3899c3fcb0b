"""Memories against a restatement that keeps every coefficient, and against planted answers."""

import copy

import pytest
import torch
from memory_models import WORDS, Planted, corpus, layers_of, tiny, words
from torch import nn

from toumei.core import run
from toumei.core.errors import (
    ArchitectureError,
    ArgumentError,
    LayerError,
    NonFiniteError,
    ShapeError,
    ToumeiError,
    UnitError,
)
from toumei.instrument.memories import coefficient_reader, text_batches
from toumei.instrument.memories.key_value_memories import KeyValueMemories
from toumei.instrument.memories.result import Memories

ACTIVATIONS = {"gpt2": "transformer.h.{}.mlp.act", "bert": "bert.encoder.layer.{}.intermediate"}


def memories_of(model, layers, texts, **options):
    return KeyValueMemories(model, words(), layers, verbose=False, **options)(texts)


def coefficients(model, kind, text, layer):
    """The coefficients of one text alone, (tokens, neurons), from the outputs of other modules."""
    ids = words()(text, return_tensors="pt").input_ids
    with torch.no_grad():
        if kind == "llama":
            names = [f"model.layers.{layer}.mlp.{part}" for part in ("act_fn", "up_proj")]
            parts = run(model, ids, record=names)
            return (parts[names[0]] * parts[names[1]])[0]
        name = ACTIVATIONS[kind].format(layer)
        return run(model, ids, record=[name])[name][0]


@pytest.mark.parametrize("kind", ["gpt2", "llama", "bert"])
@pytest.mark.parametrize("strategy", ["prefix", "cls"])
def test_they_are_those_of_all_coefficients_together(kind, strategy, watched):
    model, texts = watched(tiny(kind)), corpus(count=25)
    memories = memories_of(model, layers_of(kind), texts, triggers=4, strategy=strategy, batch_size=7)
    assert (memories.read, memories.cut, memories.strategy) == (25, 0, strategy)
    for index, layer in enumerate(memories.layers):
        every = [coefficients(model, kind, text, index) for text in texts]
        every = [one[:1] for one in every] if strategy == "cls" else every
        flat = torch.cat(every)
        assert memories.prefixes == len(flat)
        torch.testing.assert_close(layer.mean, flat.mean(0))
        torch.testing.assert_close(layer.variance, flat.var(0))
        assert [name for name, _, _ in layer.tails()] == (
            ["highest", "lowest"] if kind == "llama" else ["highest"]
        )
        for name, triggers, _ in layer.tails():
            pick = torch.amax if name == "highest" else torch.amin
            best = torch.stack([pick(one, 0) for one in every], 1)
            expected = best.sort(1, descending=name == "highest").values[:, :4]
            torch.testing.assert_close(triggers.values, expected)
            z = layer.z(triggers.values)
            torch.testing.assert_close(z, (expected - flat.mean(0)[:, None]) / flat.std(0)[:, None])
            for neuron in (0, 5):
                shown = memories.neuron(index, neuron)
                for trigger in shown.triggers if name == "highest" else shown.lowest:
                    assert trigger.text == texts[trigger.number]
                    there = every[trigger.number][trigger.position, neuron]
                    assert there.item() == pytest.approx(trigger.value)


@pytest.mark.parametrize("kind", ["gpt2", "llama", "bert"])
def test_batches_and_padding_change_nothing(kind, monkeypatch):
    model, texts = tiny(kind), corpus(count=40)
    first = memories_of(model, layers_of(kind), texts, triggers=3, batch_size=1)
    monkeypatch.setattr(coefficient_reader, "_PRUNED_FROM", 5)
    for size in (6, 40):
        other = memories_of(model, layers_of(kind), iter(texts), triggers=3, batch_size=size)
        assert other.corpus.texts == first.corpus.texts
        for one, two in zip(first.layers, other.layers, strict=True):
            torch.testing.assert_close(one.variance, two.variance)
            for (_, left, _), (_, right, _) in zip(one.tails(), two.tails(), strict=True):
                torch.testing.assert_close(left.values, right.values)
                assert torch.equal(left.texts, right.texts) and torch.equal(left.positions, right.positions)


def test_what_is_kept_does_not_grow_with_the_texts(monkeypatch):
    sizes = []
    monkeypatch.setattr(coefficient_reader, "_PRUNED_FROM", 5)
    add = coefficient_reader.KeptTexts.add

    def counted(self, texts):
        add(self, texts)
        sizes.append(len(self._texts))

    monkeypatch.setattr(coefficient_reader.KeptTexts, "add", counted)
    keys = torch.tensor([3, 7])
    texts = [f"w{3 + index % 5} w{index % WORDS}" for index in range(2000)]
    memories = memories_of(Planted(keys, keys), ["down"], texts, triggers=2, batch_size=10)
    assert memories.read == 2000 and max(sizes) <= 20
    assert len(memories.corpus) <= 4 and len(memories.corpus.ids) <= 8


def test_values_that_promote_what_follows_agree_and_permuted_ones_by_chance():
    keys, values = torch.arange(20), torch.randperm(20, generator=torch.Generator().manual_seed(0)) + 20
    texts = [f"w{key} w{value}" for key, value in zip(keys.tolist(), values.tolist(), strict=True)]
    model = Planted(keys, values)
    agreement = memories_of(model, ["down"], texts, triggers=3).agreement
    assert agreement.rates.tolist() == [1.0] and agreement.counted.tolist() == [20]
    assert agreement.chance.tolist() == pytest.approx([1 / 20]) and agreement.uniform == 1 / WORDS
    assert agreement.ranks.tolist() == [0.0]
    with torch.no_grad():
        model.down.weight.copy_(model.down.weight[:, torch.arange(20).roll(1)])
    moved = memories_of(model, ["down"], texts, triggers=3)
    assert moved.agreement.rates.tolist() == [0.0]
    # all other tokens are equally likely, and one is likelier than the token that follows
    assert moved.agreement.ranks.tolist() == [1.0]
    assert moved.agreement.chance.tolist() == pytest.approx([1 / 20])


def test_a_neuron_shows_its_triggers_and_its_tokens():
    model = Planted(torch.tensor([5]), torch.tensor([8]))
    neuron = memories_of(model, ["down"], ["w1  w5 w8", "w5", "w2 w3"], promoted=2).neuron("down", 0)
    first, second, third = neuron.triggers
    assert (first.text, first.prefix, first.token, first.next_token) == ("w5", "w5", "w5", None)
    assert (second.text, second.prefix, second.position) == ("w1  w5 w8", "w1  w5", 1)
    assert (second.marked, second.next_token, second.number) == ("w1  [w5] w8", "w8", 0)
    assert (third.value, third.z) == (0.0, pytest.approx(-((1 / 3) / (4 / 15) ** 0.5)))
    assert neuron.promoted[0][0] == "w8" and neuron.promoted[0][1] == pytest.approx(
        torch.e / (torch.e + WORDS - 1)
    )
    assert "[w5]" in str(neuron) and len(repr(neuron)) < 200 and "<b>w5</b>" in neuron._repr_html_()


def test_a_transposed_linear_layer_is_the_same():
    model = tiny("gpt2")
    other = copy.deepcopy(model)
    for block in other.transformer.h:
        transposed = block.mlp.c_proj
        block.mlp.c_proj = nn.Linear(*transposed.weight.shape).double()
        with torch.no_grad():
            block.mlp.c_proj.weight.copy_(transposed.weight.T)
            block.mlp.c_proj.bias.copy_(transposed.bias)
    one, two = (memories_of(each, layers_of("gpt2"), corpus()) for each in (model, other))
    for first, second in zip(one.layers, two.layers, strict=True):
        assert torch.equal(first.highest.texts, second.highest.texts)
        assert torch.equal(first.promoted.tokens, second.promoted.tokens)
        torch.testing.assert_close(first.promoted.probabilities, second.promoted.probabilities)


@pytest.mark.parametrize(
    ("kind", "gated"),
    [("gpt2", False), ("llama", True), ("phi3", True), ("gpt_neox", False), ("bert", False)],
)
def test_gates_are_seen(kind, gated):
    memories = KeyValueMemories(tiny(kind), words(), layers_of(kind))
    assert [projection.gated for projection in memories.projections] == [gated, gated]
    told = KeyValueMemories(tiny(kind), words(), layers_of(kind), gated=not gated)
    assert told.projections[0].gated is not gated


@pytest.mark.parametrize("gate", [True, False])
def test_the_pass_that_finds_layers_tells_which_are_gated(gate):
    """Two maps of the same size beside the last one; one is a gate or does something else."""

    class Both(Planted):
        def __init__(self):
            super().__init__([3, 4], [5, 6])
            self.dummy_inputs = {"input_ids": torch.tensor([[1, 2, 3]])}
            self.beside = nn.Linear(WORDS, 2)

        def forward(self, input_ids):
            x = self.embedding(input_ids)
            hidden = self.up(x).relu()
            other = self.beside(x)
            hidden = hidden * other if gate else hidden
            return self.head(x + self.down(hidden)) + other.mean()

    (found,) = KeyValueMemories(Both(), words()).projections
    assert (found.name, found.gated) == ("down", gate)
    (told,) = KeyValueMemories(Both(), words(), gated=not gate).projections
    assert told.gated is not gate


def test_of_gated_layers_the_negative_value_goes_with_the_lowest_coefficient():
    memories = memories_of(tiny("llama"), layers_of("llama"), corpus(), promoted=3)
    model = tiny("llama")
    whole = (-model.model.layers[1].mlp.down_proj.weight.T @ model.lm_head.weight.T).softmax(1)
    layer = memories.layer(1)
    assert torch.equal(layer.lowered.tokens.long(), whole.topk(3).indices)
    following = memories.corpus.places(layer.lowest).following[:, 0]
    expected = (whole.argmax(1) == following)[following >= 0].float().mean()
    assert memories.lowest_agreement.rates[1] == expected


def test_the_final_norm_is_applied_on_request():
    model = tiny("gpt2")
    normed = memories_of(model, layers_of("gpt2"), corpus(), norm="transformer.ln_f")
    with torch.no_grad():
        values = model.transformer.ln_f(model.transformer.h[0].mlp.c_proj.weight)
        expected = (values @ model.lm_head.weight.T).argmax(1)
    assert torch.equal(normed.layer(0).promoted.tokens[:, 0].long(), expected)


def test_runs_of_a_shared_layer_have_their_numbers():
    class Twice(Planted):
        def forward(self, ids):
            stream = self.embedding(ids)
            for _ in range(2):
                stream = stream + self.down(self.up(stream).relu())
            return self.head(stream)

    model = Twice(torch.tensor([4, 6]), torch.tensor([6, 4]))
    found = memories_of(model, ["down#0", "down", "down#1"], ["w4 w1", "w6 w2"], promoted=1)
    first, last, second = (layer.highest.values[:, 0].tolist() for layer in found.layers)
    assert first == [1, 1] and last == second == [1, 1]
    at_six = [neuron.triggers[1].value for neuron in (found.neuron("down#0", 0), found.neuron("down#1", 0))]
    assert at_six == [0, 1]  # in the second run the value of the other neuron is there


def test_it_is_saved_and_read(tmp_path):
    memories = memories_of(tiny("llama"), layers_of("llama"), corpus(), triggers=3)
    memories.save(tmp_path / "m.safetensors")
    read = Memories.load(tmp_path / "m.safetensors")
    assert repr(read) == repr(memories) and read.neuron(1, 7) == memories.neuron(1, 7)
    assert str(read.agreement) == str(memories.agreement) and len(repr(memories)) < 200


def test_the_model_and_its_weights_stay_as_they_are(watched):
    model = watched(tiny("gpt2").train())
    memories_of(model, layers_of("gpt2"), corpus(count=5))


# ---------------------------------------------------------------- bad input


def test_texts_longer_than_the_model_takes_are_cut_off_with_a_warning():
    long = " ".join(["w1"] * 30 + ["w9"])
    with pytest.warns(UserWarning, match="1 of 2 texts cut off at the 24 tokens that the model takes"):
        memories = memories_of(tiny("gpt2"), layers_of("gpt2"), ["w1 w2", long])
    assert memories.cut == 1 and memories.prefixes == 26
    short = memories_of(tiny("gpt2"), layers_of("gpt2"), ["w1 w2", long], max_length=4)
    assert short.cut == 1 and short.prefixes == 6


def test_an_unknown_layer_names_the_nearest():
    with pytest.raises(LayerError, match=r"did you mean .*transformer\.h\.1\.mlp\.c_proj"):
        KeyValueMemories(tiny("gpt2"), words(), ["transformer.h.1.mlp.c_prog"])


@pytest.mark.parametrize(
    ("layers", "error", "message"),
    [
        (
            ["transformer.h.0.mlp.act"],
            ArchitectureError,
            "is a GELU|is a NewGELUActivation.*expected the last",
        ),
        (["transformer.h.0.mlp/add"], ArgumentError, "names no module"),
        ([], ArgumentError, "expected the names of down projections"),
        ([3], ToumeiError, "layers"),
    ],
)
def test_a_layer_that_is_no_linear_map(layers, error, message):
    with pytest.raises(error, match=message):
        KeyValueMemories(tiny("gpt2"), words(), layers)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([], "an empty corpus"),
        (["", ""], "none in 2 texts"),
        ("w1 w2", "texts is|expected an iterable of texts"),
        (["w1", 3], "texts"),
        (iter(["w1", 3]), "expected texts, got 3 among them"),
    ],
)
def test_texts_that_are_none(texts, message):
    with pytest.raises(ArgumentError, match=message):
        memories_of(tiny("gpt2"), layers_of("gpt2"), texts)


@pytest.mark.parametrize(
    "options", [{"triggers": 0}, {"promoted": -1}, {"strategy": "all"}, {"batch_size": 0}, {"norm": "no"}]
)
def test_settings_that_make_no_sense(options):
    with pytest.raises(ToumeiError):
        KeyValueMemories(tiny("gpt2"), words(), layers_of("gpt2"), **options)


def test_no_tokenizer():
    with pytest.raises(ArgumentError, match="tokenizer is a tokenizer of Hugging Face, got None"):
        KeyValueMemories(tiny("gpt2"), None, layers_of("gpt2"))


def test_without_an_output_embedding_there_are_triggers_alone():
    body, layers = tiny("gpt2").transformer, ["h.0.mlp.c_proj"]
    with pytest.raises(ArchitectureError, match="GPT2Model has no output embedding.*promoted=0"):
        KeyValueMemories(body, words(), layers)
    memories = memories_of(body, layers, corpus(), promoted=0)
    assert len(memories.neuron(0, 1).triggers) == 25 and memories.neuron(0, 1).promoted == ()
    with pytest.raises(ArgumentError, match="promoted=1 or more"):
        _ = memories.agreement


def test_values_of_another_width_than_the_embedding():
    with pytest.raises(ArchitectureError, match="have 64 numbers and the output embedding 16"):
        KeyValueMemories(tiny("gpt2"), words(), ["transformer.h.0.mlp.c_fc"])


def test_neurons_and_layers_that_are_not_there():
    memories = memories_of(tiny("gpt2"), layers_of("gpt2"), corpus(count=3))
    with pytest.raises(UnitError, match="has neurons 0 to 63, got 64"):
        memories.neuron(0, 64)
    for layer in ("nothing", 2, -1):
        with pytest.raises(LayerError, match=r"there are transformer.*numbers from 0 to 1"):
            memories.neuron(layer, 0)
    with pytest.raises(ArgumentError, match="gated layers"):
        _ = memories.lowest_agreement


def test_coefficients_that_are_not_finite():
    model = tiny("gpt2")
    with torch.no_grad():
        model.transformer.h[1].mlp.c_fc.weight[0, 0] = torch.inf
    with pytest.raises(NonFiniteError, match=r"transformer\.h\.1\.mlp\.c_proj"):
        memories_of(model, layers_of("gpt2"), corpus(count=3))


def test_a_layer_that_sees_a_part_of_the_tokens():
    class Routed(Planted):
        def forward(self, ids):
            stream = self.embedding(ids)
            return self.head(stream), self.down(self.up(stream[ids > 3]))

    with pytest.raises(ShapeError, match=r"was given \(1, 1\) for 1 text of 3 tokens.*experts"):
        memories_of(Routed(torch.tensor([4]), torch.tensor([4])), ["down"], ["w1 w2 w9"])


def test_the_order_of_texts_does_not_depend_on_batches():
    texts = corpus(count=700)
    orders = []
    for size, most in ((1, 10**6), (64, 10**6), (64, 30)):
        batches = text_batches.TextBatches(words(), texts, batch_size=size, most_tokens=most, limit=None)
        read = list(batches)
        assert all(len(batch) * len(batch[-1].ids) <= most or len(batch) == 1 for batch in read)
        orders.append([text.number for batch in read for text in batch])
    assert orders[0] == orders[1] == orders[2] and sorted(orders[0]) == list(range(700))
