"""Models that are sent to other processes."""

import pickle

import torch

from toumei.core.sent_functions import _pickled

IDS = torch.tensor([[3, 5, 7, 9]])


def test_a_model_whose_hidden_states_were_asked_for_can_be_sent(language_model):
    model = language_model("llama")
    states = model(IDS, output_hidden_states=True).hidden_states  # transformers puts up hooks that stay
    there = pickle.loads(_pickled(model))
    found = there(IDS, output_hidden_states=True).hidden_states
    assert len(found) == len(states) == 4 and all(map(torch.equal, found, states))
