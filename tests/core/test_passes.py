"""A pass that is begun again, computed again, or interrupted is as if there had been one."""

import os
import signal
import sys

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import toumei
from toumei.core import hooked, run, survey
from toumei.core.errors import ArchitectureError, ArgumentError, LayerError, UnreachedLayerError
from toumei.transformers.model.prefix_cache import cache_option


class Twice(nn.Module):
    """Runs its two layers twice, one after the other."""

    def __init__(self, first=None):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.linear, self.relu = first or nn.Identity(), nn.Linear(3, 3), nn.ReLU()

    def forward(self, x):
        x = self.first(x)
        return self.relu(self.linear(self.relu(self.linear(x))))


def rows(seed=1):
    return torch.randn(4, 3, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("outer", [True, False])
def test_other_blocks_do_not_see_the_abandoned_pass(outer, watched):
    model, x = watched(Twice()), rows()
    recording, editing = {"record": ["relu", "linear#1"], "every": True}, {"edit": {"relu": torch.neg}}
    with hooked(model, **(recording if outer else editing)) as first:
        with hooked(model, **(editing if outer else recording)) as second:
            output = model(x)
    found = first if outer else second
    assert len(found.calls("relu")) == 2 and found.runs("relu") == 2
    assert torch.equal(found["linear#1"], model.linear(model.relu(model.linear(x))))
    assert torch.equal(output, -model(x))


def test_blocks_on_the_parent_do_not_see_it_either(watched):
    parent, x = watched(nn.Sequential(Twice(), nn.Linear(3, 2))), rows()
    with hooked(parent, ["0.relu"], every=True) as found, hooked(parent[0], edit={"relu": torch.neg}):
        parent(x)
    assert len(found.calls("0.relu")) == 2


def test_random_numbers_and_running_statistics_are_those_of_one_pass():
    results = []
    for edit in ({}, {"relu": lambda tensor: tensor}):
        model = Twice(nn.Sequential(nn.Dropout(), nn.BatchNorm1d(3))).train()
        torch.manual_seed(0)
        with hooked(model, edit=edit):
            output = model(rows())
        norm = model.first[1]
        results.append((output, norm.running_mean, norm.num_batches_tracked, torch.rand(1)))
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


def test_a_pass_that_wrote_into_its_input_is_not_begun_again():
    class Writing(Twice):
        def forward(self, x):
            return super().forward(x.mul_(2))

    model = Writing()
    with pytest.raises(ArchitectureError, match="cannot be begun again"):
        with hooked(model, edit={"relu": torch.neg}):
            model(rows())


class Checkpointed(nn.Module):
    """One block, which may be computed again in the backward pass."""

    def __init__(self, block, again):
        super().__init__()
        self.block, self.again = block, again

    def forward(self, x):
        return checkpoint(self.block, x, use_reentrant=False) if self.again else self.block(x)


@pytest.mark.parametrize("name", ["block.1", "block.1#0", "block.0", "block.1/tanh"])
def test_an_edit_inside_a_checkpoint_has_the_same_gradients(name):
    torch.manual_seed(0)
    block, slopes = nn.Sequential(nn.Linear(3, 3), nn.Tanh()), []
    for again in (False, True):
        model, x = Checkpointed(block, again), rows().requires_grad_()
        with hooked(model, ["block.0"], {name: torch.square}) as found:
            model(x).sin().sum().backward()
        assert found.runs(name) == 1
        slopes.append(x.grad)
    assert torch.equal(*slopes)


def test_an_edit_of_one_run_of_several_inside_a_checkpoint_is_refused():
    model = Checkpointed(Twice(), True)
    with hooked(model, edit={"block.relu#0": torch.square}):
        output = model(rows().requires_grad_())
        with pytest.raises(ArchitectureError, match="ran 2 times, and a checkpoint computes it again"):
            output.sum().backward()


def test_ctrl_c_at_any_line_of_the_engine_leaves_nothing(watched):
    model, x = nn.Sequential(Twice(), nn.Linear(3, 2)), rows()
    root = os.path.join(os.path.dirname(toumei.__file__), "core")
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    tracing = sys.gettrace()

    def interrupted(number):
        left = [number]

        def trace(frame, event, argument):
            if event == "line" and frame.f_code.co_filename.startswith(root):
                left[0] -= 1
                if left[0] == 0:
                    sys.settrace(None)
                    signal.raise_signal(signal.SIGINT)
            return trace

        sys.settrace(trace)
        try:
            with hooked(model, ["0.relu#0", "0/relu", "1/linear"], {"1": torch.neg}):
                model(x)
        except (KeyboardInterrupt, LayerError):
            pass
        finally:
            sys.settrace(tracing)
        return left[0] <= 0

    number = 1
    try:
        while interrupted(number):
            hooks = [
                name for name, one in model.named_modules() if one._forward_hooks or "forward" in vars(one)
            ]
            assert not hooks, f"left at line {number} on {hooks}"
            assert torch.overrides._get_current_function_mode() is None, number
            assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
            number += 3  # each line would take a minute
    finally:
        signal.signal(signal.SIGINT, handler)
    assert number > 50


def test_a_survey_leaves_random_numbers_and_caches_as_they_were():
    from transformers import DynamicCache, GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        n_layer=1, n_head=2, n_embd=8, vocab_size=11, n_positions=16, bos_token_id=0, eos_token_id=0
    )
    model, cache = GPT2LMHeadModel(config).eval(), DynamicCache()
    ids = torch.tensor([[1, 2]])
    survey(model, ["transformer.h.0"], lambda: model(ids, **cache_option(model, cache)))
    assert cache.get_seq_length() == 0

    class Noisy(nn.Module):
        def forward(self, x):
            return x + torch.rand(3)

    noisy, before = Noisy(), torch.get_rng_state()
    survey(noisy, [""], lambda: noisy(rows()))
    assert torch.equal(torch.get_rng_state(), before)


def test_modules_whose_names_have_characters_of_the_grammar():
    model, x = nn.Sequential(), rows()
    for name, module in {"a/b": Twice(), "c#1": nn.ReLU(), "d[0]": nn.Linear(3, 2)}.items():
        model.add_module(name, module)
    names = ["a/b", "a/b.relu#0", "a/b.linear/linear#1", "c#1", "c#1#0", "c#1/relu", "d[0]"]
    found = run(model, x, record=names)
    first = model[0](x)
    for name in ("a/b", "c#1", "c#1#0", "c#1/relu"):
        assert torch.equal(found[name], first), name
    assert torch.equal(found["d[0]"], model(x))
    assert survey(model, ["a/b.relu"], lambda: model(x)).names == {"a/b.relu": "a/b.relu#1"}


def test_an_operation_is_found_by_each_name_of_its_function():
    class Clipped(nn.Module):
        def forward(self, x):
            return torch.clip(x, 0).add_(1)

    found = run(Clipped(), rows(), record=["/clip", "/clamp", "/__add__", "/add"])
    assert torch.equal(found["/clip"], rows().relu()) and torch.equal(found["/__add__"], found["/add"])


def test_a_list_of_modules_never_runs_and_says_what_it_holds():
    class Listed(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList([nn.ReLU(), nn.ReLU()])

        def forward(self, x):
            return self.layers[0](x)

    model = Listed()
    found = run(model, rows(), record=[name for name, _ in model.named_modules()])
    assert set(found) == {"", "layers.0"}
    with pytest.raises(UnreachedLayerError, match="'layers'.*never runs.*layers.0, layers.1"):
        found["layers"]


def test_arguments_that_cannot_be_meant_are_refused_before_anything_runs():
    model = nn.Sequential(nn.ReLU())
    with pytest.raises(ArgumentError, match=r"got the string '0': give \['0'\]"):
        run(model, rows(), record="0")
    with pytest.raises(ArgumentError, match="edit of '0', got int"), hooked(model, edit={"0": 3}):
        pass


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_scripted_modules_inside_a_model_are_seen_from_outside_only():
    model = nn.Sequential(torch.jit.trace(nn.Linear(3, 3), rows()), nn.ReLU())
    assert torch.equal(run(model, rows(), record=["1/relu"])["1/relu"], model(rows()))
    with pytest.raises(ArchitectureError, match="'0' is compiled by TorchScript"):
        run(model, rows(), record=["0"])
