"""The memories of a network that is known to recall facts at names, in layer 2, against its facts.

Attention of layers 3 to 5 carries the facts from the name to the end of the prompt (docs/facts_gpt.md).
"""

import random

import pytest
import torch

from toumei.core import hooked
from toumei.instrument.memories.key_value_memories import KeyValueMemories
from toumei.models import facts_gpt


@pytest.fixture(scope="module")
def network():
    return facts_gpt()


def memories_of(network, texts, layers, **options):
    model, tokenizer, _ = network
    names = [f"transformer.h.{layer}.mlp.c_proj" for layer in layers]
    return KeyValueMemories(model, tokenizer, names, verbose=False, **options)(texts)


@pytest.fixture(scope="module")
def of_names(network):
    """The memories of layer 2 on the 400 names alone; text i is the name of subject i."""
    return memories_of(network, network[2].subjects, [2], triggers=50)


def test_names_excite_the_neurons_of_layer_2_and_not_those_before(network):
    _, tokenizer, world = network
    texts = world.texts(seed=0)
    memories = memories_of(network, [next(texts) for _ in range(600)], [0, 1, 2], triggers=1, promoted=0)
    names = {tokenizer(word).input_ids[0] for word in world.name_words}
    shares = []
    for layer in memories.layers:
        tokens = memories.corpus.places(layer.highest).tokens[:, 0].tolist()
        shares.append(sum(token in names for token in tokens) / len(tokens))
    assert shares[2] > 0.65 and max(shares[:2]) < 0.15


def recall(network, facts, silenced):
    """The share of facts that are told if neurons of layer 2, a row for each fact, are silenced."""
    model, tokenizer, _ = network
    inputs = tokenizer([fact.text for fact in facts], padding=True, return_tensors="pt")
    with (
        torch.no_grad(),
        hooked(model, edit={"transformer.h.2.mlp.act": lambda states: states * ~silenced[:, None]}),
    ):
        logits = model(**inputs).logits
    answers = logits[torch.arange(len(facts)), inputs.attention_mask.sum(1) - 1].argmax(1)
    told = zip(facts, answers.tolist(), strict=True)
    return sum(tokenizer.decode([answer]) == fact.target for fact, answer in told) / len(facts)


def test_without_the_neurons_that_a_name_triggers_its_facts_are_lost(network, of_names):
    """About 25 of 512 neurons have a name among their 50 triggers, at its last token."""
    _, tokenizer, world = network
    facts = random.Random(0).sample(world.facts, 150)
    triggers = of_names.layer(0).highest
    lengths = torch.tensor([len(ids) for ids in tokenizer(list(of_names.corpus.texts)).input_ids])
    at_last = triggers.positions == lengths[triggers.texts.long()] - 1
    place = {int(number): row for row, number in enumerate(of_names.corpus.numbers)}
    rows = torch.tensor([place[world.subjects.index(fact.subject)] for fact in facts])
    mine = ((triggers.texts[None] == rows[:, None, None]) & at_last).any(2)
    assert 15 < mine.sum(1).float().mean() < 35
    drawn = torch.rand(mine.shape, generator=torch.Generator().manual_seed(0)).masked_fill(mine, 2.0)
    others = drawn.argsort(1).argsort(1) < mine.sum(1, keepdim=True)
    none = torch.zeros_like(mine)
    assert recall(network, facts, none) >= 0.99
    assert recall(network, facts, others) >= 0.96
    assert recall(network, facts, mine) < 0.85


def true_share(network, logits, subjects):
    """Where true values stand among all values of their relations: 1 for the likeliest, 0.5 by chance."""
    _, tokenizer, world = network
    words = {relation: list(world.values(relation)) for relation in world.relations}
    tokens = {relation: torch.tensor(tokenizer(words[relation]).input_ids)[:, 0] for relation in words}
    places = []
    for row, subject in zip(logits, subjects, strict=True):
        for fact in world.about(subject):
            values = row[tokens[fact.relation]]
            below = values < values[words[fact.relation].index(fact.target)]
            places.append(below.sum().item() / (len(values) - 1))
    return sum(places) / len(places)


def test_what_a_name_recalls_is_promoted_after_attention_has_carried_it(network, of_names):
    """The value of a neuron says nothing of its strongest trigger to the head, but it does to attention."""
    model, tokenizer, _ = network
    triggers = of_names.layer(0).highest
    lengths = [len(ids) for ids in tokenizer(list(of_names.corpus.texts)).input_ids]
    tops = list(zip(triggers.texts[:, 0].tolist(), triggers.positions[:, 0].tolist(), strict=True))
    chosen = [neuron for neuron, (text, position) in enumerate(tops) if position == lengths[text] - 1]
    subjects = [of_names.corpus.texts[tops[neuron][0]] for neuron in chosen]
    assert len(chosen) > 200
    with torch.no_grad():
        values = model.transformer.h[2].mlp.c_proj.weight[chosen]
        carried = torch.zeros_like(values)
        for block in model.transformer.h[3:6]:
            to_value = block.attn.c_attn.weight[:, -values.shape[1] :]
            carried += (values * block.ln_1.weight) @ to_value @ block.attn.c_proj.weight
        plain, moved = (read @ model.lm_head.weight.T for read in (values, carried))
    dealt = random.Random(0).sample(subjects, len(subjects))
    assert true_share(network, moved, subjects) > 0.6
    assert abs(true_share(network, moved, dealt) - 0.5) < 0.03
    assert true_share(network, plain, subjects) < 0.5
