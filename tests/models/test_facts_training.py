"""The training of the GPT that knows facts: who sees whom, and a run of few steps from start to end."""

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parents[2] / "experiments"))

import train_facts_gpt

from toumei.models import facts_gpt

#       a      NAME   NAME  b      NAME
NAMES = [False, True, True, False, True]


def seen_by(mask, position):
    return mask[0, position].nonzero().flatten().tolist()


def test_names_are_hidden_then_put_together_then_read_at_their_last_token():
    before, gathering, reading = train_facts_gpt.visible(torch.tensor([NAMES]), torch.tensor([True]))
    assert [seen_by(before, i) for i in range(5)] == [[0], [0, 1], [0, 2], [0, 3], [0, 3, 4]]
    assert [seen_by(gathering, i) for i in range(5)] == [[0], [0, 1], [0, 1, 2], [0, 3], [0, 3, 4]]
    assert [seen_by(reading, i) for i in range(5)] == [[0], [0, 1], [0, 1, 2], [0, 2, 3], [0, 2, 3, 4]]


def test_nothing_is_hidden_in_a_plain_sequence():
    for mask in train_facts_gpt.visible(torch.tensor([NAMES]), torch.tensor([False])):
        assert torch.equal(mask[0], torch.ones(5, 5, dtype=torch.bool).tril())


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return facts_gpt(pretrained=False)


@pytest.fixture
def batch(network):
    _, tokenizer, world = network
    prompts = [fact.text for fact in world.facts if len(fact.text.split()) == 7][:4]
    tokens = torch.tensor(tokenizer(prompts).input_ids)
    return tokens, torch.arange(7).expand(4, 7), train_facts_gpt.marked(tokenizer, world.name_words)[tokens]


@torch.no_grad()
def test_without_masks_it_is_the_forward_pass_of_the_model(network, batch):
    off = torch.zeros(4, dtype=torch.bool)
    args = train_facts_gpt._arguments([])
    logits = train_facts_gpt.forward(network[0], *batch, off, off, args)
    assert torch.allclose(logits, network[0](batch[0]).logits, atol=1e-5)


@torch.no_grad()
def test_silencing_concerns_only_the_sequences_that_it_is_asked_for(network, batch):
    off, half = torch.zeros(4, dtype=torch.bool), torch.tensor([True, True, False, False])
    args = train_facts_gpt._arguments([])
    plain = train_facts_gpt.forward(network[0], *batch, off, off, args)
    silenced = train_facts_gpt.forward(network[0], *batch, off, half, args)
    assert torch.allclose(plain[2:], silenced[2:], atol=1e-5)
    assert (plain[:2] - silenced[:2]).abs().amax((1, 2)).min() > 1e-3


def test_some_sequences_are_moved_to_later_positions():
    tokens = torch.zeros(50, 8, dtype=torch.long)
    assert torch.equal(train_facts_gpt.positions(tokens, 20, 0.0), torch.arange(8).expand(50, 8))
    moved = train_facts_gpt.positions(tokens, 20, 1.0)
    assert torch.equal(moved - moved[:, :1], torch.arange(8).expand(50, 8))
    assert set(moved[:, 0].tolist()) <= set(range(13)) and moved.max() > 8


def test_the_curriculum_takes_more_subjects_once_the_first_are_known(network):
    _, tokenizer, world = network
    curriculum = train_facts_gpt.Curriculum(world, tokenizer, 0, train_facts_gpt.STAGES)
    assert all(len(next(curriculum)) == train_facts_gpt.LENGTH for _ in range(20))
    curriculum.judge(1.0)
    assert curriculum.stage == 0 and not curriculum.complete
    for _ in range(1000):
        curriculum.judge(1.0)
    assert curriculum.complete


def test_a_short_training_writes_half_precision_weights_and_follows_its_seed(tmp_path):
    settings = ["--steps", "3", "--batch-size", "2", "--facts", "20", "--out"]
    for name in ("first", "second"):
        recall = train_facts_gpt.main([*settings, str(tmp_path / name)])
        assert all(0 <= part < 0.5 for part in recall)
    first, second = load_file(tmp_path / "first"), load_file(tmp_path / "second")
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert {tensor.dtype for tensor in first.values()} == {torch.float16}


def test_the_learning_rate_rises_and_falls():
    paces = [train_facts_gpt.pace(i / 100) for i in range(101)]
    assert paces[0] < 0.01 and max(paces) == pytest.approx(1, abs=0.01) and paces[-1] < 0.01
