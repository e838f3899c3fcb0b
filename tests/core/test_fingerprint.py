"""A fingerprint tells models apart by every element, and depends on nothing else."""

import copy
import time
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from toumei.core.fingerprint import fingerprint_of


def network(dtype=torch.float32, size=70):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(size, size), nn.BatchNorm1d(size), nn.Linear(size, 3)).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_every_element_counts(dtype):
    model = network(dtype)
    before = fingerprint_of(model)
    assert fingerprint_of(copy.deepcopy(model)) == before
    generator = torch.Generator().manual_seed(1)
    for tensor in model.state_dict().values():
        flat = tensor.view(-1)
        index = int(torch.randint(flat.numel(), (), generator=generator))
        kept = flat[index].clone()
        flat[index] = 1 - kept if tensor.dtype == torch.int64 else kept * 2 + 1
        assert fingerprint_of(model) != before
        flat[index] = kept
    assert fingerprint_of(model) == before


def test_the_order_the_names_the_shapes_and_the_types_count():
    model = network()
    before = fingerprint_of(model)
    swapped = copy.deepcopy(model)
    flat = swapped[0].weight.data.view(-1)
    flat[[0, 4096]] = flat[[4096, 0]]  # the same place in two chunks
    renamed = nn.Sequential(model[0], nn.Identity(), model[1], model[2])
    reshaped = copy.deepcopy(model)
    reshaped[2].weight.data = reshaped[2].weight.data.view(70, 3)
    found = {fingerprint_of(other) for other in (swapped, renamed, reshaped, copy.deepcopy(model).double())}
    assert len(found) == 4 and before not in found


def test_a_sign_of_zero_and_kinds_of_nan_count_but_not_the_strides():
    model = nn.Linear(2, 2, bias=False)
    seen = set()
    for values in ([0.0, 0.0], [-0.0, 0.0], [torch.nan, 0.0]):
        model.weight.data = torch.tensor([values, values])
        seen.add(fingerprint_of(model))
    assert len(seen) == 3
    model.weight.data = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    before = fingerprint_of(model)
    model.weight.data = torch.tensor([[1.0, 3.0], [2.0, 4.0]]).T
    assert not model.weight.is_contiguous() and fingerprint_of(model) == before


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_signs_that_change_together_do_not_cancel(dtype):
    model = network(dtype)
    seen = {fingerprint_of(model)}
    for rows in (slice(0, 1), slice(0, 2), slice(None)):
        other = copy.deepcopy(model)
        other[0].weight.data[rows] *= -1
        seen.add(fingerprint_of(other))
    assert len(seen) == 4


def test_tensors_in_the_place_of_others_count():
    model = network()
    before = fingerprint_of(model)
    original = model[0].weight.detach().clone()
    model[0].weight.data += 1
    assert fingerprint_of(model) != before
    assert fingerprint_of(model, {"0.weight": original}) == before


def test_what_has_no_weights_has_a_fingerprint_too():
    assert fingerprint_of(nn.ReLU()) == fingerprint_of(nn.Tanh()) != fingerprint_of(nn.Linear(1, 1))
    empty = nn.Module()
    empty.weight = nn.Parameter(torch.zeros(0, 3))
    assert fingerprint_of(empty) != fingerprint_of(nn.ReLU())


def test_random_state_is_left_alone_and_reading_is_fast():
    model = nn.Sequential(*(nn.Linear(1024, 1024) for _ in range(12)))  # 50 MB
    state = torch.get_rng_state()
    fingerprint_of(model)
    start = time.process_time()
    fingerprint_of(model)
    assert time.process_time() - start < 1
    assert torch.equal(torch.get_rng_state(), state)


def test_weights_that_several_names_share_count_as_copies_of_them_do():
    torch.manual_seed(0)
    tied = nn.ModuleDict({"read": nn.Embedding(7, 5), "write": nn.Linear(5, 7, bias=False)})
    apart = copy.deepcopy(tied)
    apart["write"].weight.data = apart["read"].weight.detach().clone()
    tied["write"].weight = tied["read"].weight
    assert fingerprint_of(tied) == fingerprint_of(apart)
    apart["write"].weight.data[0, 0] += 1
    assert fingerprint_of(tied) != fingerprint_of(apart)


def test_a_write_that_torch_does_not_count_is_seen():
    model = network()
    before, version = fingerprint_of(model), model[0].weight._version
    model[0].weight.data[3, 3] += 1
    assert model[0].weight._version == version and fingerprint_of(model) != before


class ReadAnew(dict):
    """Weights that each access copies, as those on disk, always to the same memory."""

    memory = torch.zeros(4, 4)

    def __getitem__(self, name):
        return self.memory.copy_(super().__getitem__(name))


def test_weights_that_are_read_one_after_the_other_to_the_same_place_all_count():
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    wanted = fingerprint_of(model)
    stored = ReadAnew({name: one.detach().clone() for name, one in model.state_dict().items()})
    model.to("meta")
    model._hf_hook = SimpleNamespace(weights_map=stored)
    assert fingerprint_of(model) == wanted
    stored["1.weight"] = torch.ones(4, 4)
    assert fingerprint_of(model) != wanted
