"""Ctrl-C at any line of a surgery leaves a model with all of its parts, or with what it should have."""

import itertools

import pytest
import torch
from test_interrupts import interrupted_at
from transformers import GPT2Config, GPT2LMHeadModel

from toumei.transformers.surgery import Surgery, delete_layers, revert_surgeries

KINDS = ["signal", "raise"]
EXIT = Surgery.__exit__.__code__.co_firstlineno + 1  # where nothing of ours can catch an interrupt


@pytest.fixture
def model():
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=20, n_positions=16, n_embd=8, n_layer=3, n_head=2, bos_token_id=1, eos_token_id=2
    )
    return GPT2LMHeadModel(config).eval()


def parts(model):
    numbers = [block.attn.layer_idx for block in model.transformer.h]
    return list(model.modules()), numbers, model.config.n_layer, [m.training for m in model.modules()]


@pytest.mark.parametrize("kind", KINDS)
def test_an_interrupted_block_leaves_the_model_whole(model, kind):
    before, surgery = parts(model), delete_layers(model, [0])
    for number in itertools.count(1 + KINDS.index(kind), 11):
        with interrupted_at(number, kind) as reached, surgery:
            pass
        if not reached:
            break
        if reached[0][0].endswith("surgery.py") and reached[0][1] in (EXIT - 1, EXIT):
            revert_surgeries(model)
        assert parts(model) == before and not surgery.applied, reached
    assert number > 100


@pytest.mark.parametrize("kind", KINDS)
def test_an_interrupted_revert_can_be_finished(model, kind):
    before, surgery = parts(model), delete_layers(model, [0])
    for number in itertools.count(1 + KINDS.index(kind), len(KINDS)):  # together every line
        surgery.apply()
        with interrupted_at(number, kind) as reached:
            surgery.revert()
        if not reached:
            break
        if surgery.applied:
            surgery.revert()
        assert parts(model) == before, reached
