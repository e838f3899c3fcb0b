"""An interrupt at any line of ours leaves no hook, mode, flag, forward, generator or file changed."""

import linecache
import random
import signal
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.overrides import _get_current_function_mode

import toumei
from toumei.attribution import LRP, DeepLift, GuidedBackprop, IntegratedGradients, KernelShap, Saliency
from toumei.cnns import Pipeline, parameterization, redirected_relu, relaxed_max_pool
from toumei.core import evaluating, frozen, hooked, run, seeded, survey, sweep, threads
from toumei.core.files import atomic_write
from toumei.core.generators import Generators, drawing_from
from toumei.core.hooks import listening, repeated_run
from toumei.core.interrupts import uninterrupted
from toumei.core.modules import wrapped_forward
from toumei.core.threads import alone
from toumei.instrument import (
    AttentionHeadClusterAnalyzer,
    KeyValueAnalyzer,
    KeyValueMaxSearchStrategy,
    Probe,
    fmrai,
    instrument,
    instrument_model,
)
from toumei.instrument.fmrai_names import _scopes
from toumei.instrument.heads.attention_source import AttentionSource
from toumei.instrument.tensors import TensorFiles
from toumei.models import facts_gpt

ROOT = str(Path(toumei.__file__).parent)


class TimeoutOfAnotherLibrary(Exception):
    """What the handler of another signal raises, which is not held back."""


@contextmanager
def interrupted_at(number, kind):
    """Interrupts the block at a line of toumei; yields a list that is empty if there were fewer lines."""
    reached, left = [], [number]

    def trace(frame, event, argument):
        if not frame.f_code.co_filename.startswith(ROOT):
            return None
        if event == "line":
            left[0] -= 1
            if left[0] == 0:
                reached.append((frame.f_code.co_filename, frame.f_lineno))
                sys.settrace(None)
                if kind == "signal":
                    signal.raise_signal(signal.SIGINT)
                else:
                    raise KeyboardInterrupt if kind == "raise" else TimeoutOfAnotherLibrary
        return trace

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    tracer = sys.gettrace()
    sys.settrace(trace)
    try:
        yield reached
    except (KeyboardInterrupt, TimeoutOfAnotherLibrary):
        assert reached
    finally:
        sys.settrace(tracer)
        handler = signal.getsignal(signal.SIGINT)
        signal.signal(signal.SIGINT, before)
        assert handler is signal.default_int_handler, "Ctrl-C is dead"


def network():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.MaxPool1d(1), nn.Linear(3, 2))
    net[1].train(False)
    net[0].bias.requires_grad_(False)
    net[2].forward = net[2].forward  # an attribute of the user's
    return net


def state_of(net):
    """Everything that has to be as before."""
    hooks = [
        [len(getattr(module, name)) for name in vars(module) if name.endswith("_hooks")]
        for module in net.modules()
    ]
    return {
        "hooks": hooks,
        "modes": [module.training for module in net.modules()],
        "flags": [(one.requires_grad, one.grad is None) for one in net.parameters()],
        "weights": [one.detach().clone() for one in net.state_dict().values()],
        "forwards": [module.__dict__.get("forward") for module in net.modules()],
        "torch": torch.get_rng_state(),
        "numpy": np.random.get_state()[1].copy(),
        "python": random.getstate(),
        "gradients": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "function mode": _get_current_function_mode(),
        "threads": (list(threads._holds), dict(threads._waiting), threads._changed._is_owned()),
        "fast path": torch.backends.mha.get_fastpath_enabled(),
        "scopes": _scopes.get(),
    }


def same(one, other):
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, (torch.Tensor, np.ndarray)):
        return bool((one == other).all())
    return one is other or one == other


def changes(before, after):
    return [name for name, value in before.items() if not same(value, after[name])]


X = torch.tensor([[0.5, -1.0, 2.0]])
BLOCKS = {
    "hooked": lambda net: hooked(net, ["0", "1#0", "3/linear"]),
    "frozen": frozen,
    "evaluating": evaluating,
    "alone": alone,
    "wrapped_forward": lambda net: wrapped_forward(net[1], lambda forward, args, kwargs: forward(*args)),
    "seeded": lambda net: seeded(3),
    "drawing_from": lambda net: drawing_from(Generators()),
    "redirected_relu": redirected_relu,
    "relaxed_max_pool": relaxed_max_pool,
    "uninterrupted": lambda net: uninterrupted(),
    "instrument": instrument,
    "track": lambda net: Probe(net).track(),
    "track by name": lambda net: Probe(net).track(["0", "3/linear"]),
    "fmrai": lambda net: fmrai(),
    "listening": lambda net: listening(net, None),
    "repeated_run": lambda net: repeated_run(net, ["0", "3/linear"]),
}


@pytest.mark.parametrize("kind", ["signal", "raise"])
@pytest.mark.parametrize("name", BLOCKS)
def test_a_block_interrupted_at_each_line_leaves_all_as_it_was(name, kind):
    net = network()
    before = state_of(net)
    for number in range(1, 1000):
        with interrupted_at(number, kind) as reached, BLOCKS[name](net):
            pass
        left = changes(before, state_of(net))
        assert not left, f"{left} after an interrupt at {reached}"
        if not reached:
            break
    assert 5 < number < 1000


def lines_of(call):
    """How many lines of toumei a call runs."""
    count = [0]

    def trace(frame, event, argument):
        if not frame.f_code.co_filename.startswith(ROOT):
            return None
        count[0] += event == "line"
        return trace

    tracer = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(tracer)
    return count[0]


CALLS = {
    "run": lambda net: run(net, X, record=["1", "3/linear"]),
    "survey": lambda net: survey(net, ["0", "3"], lambda: net(X)),
    "saliency": lambda net: Saliency(net)(X, 1),
    "integrated gradients": lambda net: IntegratedGradients(net, steps=4)(X, 1),
    "deep lift": lambda net: DeepLift(net)(X, 1),
    "lrp": lambda net: LRP(net)(X, 1),
    "guided backpropagation": lambda net: GuidedBackprop(net)(X, 1),
    "kernel shap": lambda net: KernelShap(net, samples=6)(X, 1),
    "track": lambda net: tracked(net, None),
    "track by name": lambda net: tracked(net, ["0", "3/linear"]),
    "fmrai": lambda net: fmrai_tracked(net),
    "replay": lambda net: tracked(net, None).build_graph().replay(X),
}


def tracked(net, only):
    with instrument(net) as probe, probe.track(only) as tracker:
        net(X)
    return tracker


def fmrai_tracked(net):
    with fmrai() as scope:
        instrument_model(net)
        with scope.track() as tracker:
            net(X)
    return tracker


@pytest.mark.parametrize("name", CALLS)
def test_a_method_interrupted_anywhere_leaves_all_as_it_was(name):
    net = network()
    CALLS[name](net)  # what is cached and imported later
    before, total = state_of(net), lines_of(lambda: CALLS[name](net))
    for number in range(1, total, max(1, total // 40)):
        with interrupted_at(number, "signal") as reached:
            CALLS[name](net)
        left = changes(before, state_of(net))
        assert not left, f"{left} after an interrupt at {reached}"


class Picture(nn.Module):
    """A network of pictures."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 2, 3), nn.Linear(2, 2)

    def forward(self, x):
        return self.head(self.conv(x).relu().mean((2, 3)))


def test_an_interrupted_optimization_returns_what_there_is_and_changes_nothing():
    net = Picture()
    pipeline = Pipeline(parameterization.PixelImage(1, 3, 6, 6, seed=0), "conv:1").attach(net)
    pipeline.optimize(2, verbose=False, seed=1)
    before = state_of(net)
    total = lines_of(lambda: pipeline.optimize(2, verbose=False, seed=1))
    ended = set()
    for number in range(1, total, max(1, total // 25)):
        result = None
        with interrupted_at(number, "signal"):
            result = pipeline.optimize(2, verbose=False, seed=1)
        assert not changes(before, state_of(net))
        assert all(one.grad is None for one in pipeline.generator.parameters)
        if result is not None:
            assert result.steps == len(result.losses) and (result.ended == "interrupted") == (
                result.steps < 2
            )
            ended.add(result.ended)
    assert "interrupted" in ended


@pytest.mark.parametrize("kind", ["signal", "raise"])
def test_a_file_that_is_interrupted_at_each_line_is_the_old_one_or_the_new_one(tmp_path, kind):
    path = tmp_path / "x.txt"
    for number in range(1, 1000):
        path.write_text("old")
        with interrupted_at(number, kind) as reached, atomic_write(path) as partial:
            partial.write_text("new")
        assert path.read_text() in ("old", "new") and list(tmp_path.iterdir()) == [path], reached
        if not reached:
            break
    assert path.read_text() == "new" and number > 10


def test_a_sweep_ends_where_it_is_interrupted_and_keeps_only_what_is_whole(tmp_path):
    calls = []

    def slow(item):
        calls.append(item)
        if item == 2 and len(calls) == 3:
            signal.raise_signal(signal.SIGINT)
        return item

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            sweep(slow, range(5), folder=tmp_path, verbose=False)
    finally:
        signal.signal(signal.SIGINT, before)
    assert calls == [0, 1, 2] and len(list(tmp_path.glob("*.result"))) == 2


# ---------------------------------------------------------------- instrument


@pytest.mark.parametrize("only", [None, ["0"]])
@pytest.mark.parametrize("kind", ["signal", "raise"])
def test_a_pass_that_is_interrupted_is_not_among_the_whole_ones_of_a_batched_tracker(kind, only):
    net = network().eval()
    tracked(net, only)
    before, total = state_of(net), lines_of(lambda: tracked(net, only))
    for number in range(1, total, max(1, total // 30)):
        with Probe(net).track(only, batched=True) as tracker:
            net(X)
            with interrupted_at(number, kind) as reached:
                net(X)
            net(X)
        shapes = {name: len(values) for name, values in tracker.build_map().items()}
        over = not reached or linecache.getline(*reached[-1]).strip() == "return output"
        assert set(shapes.values()) <= ({2, 3} if over else {2}), (reached, shapes)
        assert not changes(before, state_of(net)), reached


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # a file that was just opened
@pytest.mark.parametrize("kind", ["signal", "raise"])
def test_files_of_tensors_count_whole_passes_at_any_line(tmp_path, kind):
    for number in range(1, 1000):
        files = TensorFiles(tmp_path / str(number))
        files.append({"a": torch.zeros(2)})
        with interrupted_at(number, kind) as reached:
            files.append({"a": torch.ones(2)})
        assert [one["a"].tolist() for one in files] in ([[0, 0]], [[0, 0], [1, 1]]), reached
        files.append({"a": torch.ones(2)})
        assert [one["a"].tolist() for one in files][:2] == [[0, 0], [1, 1]]
        assert len(list(tmp_path.joinpath(str(number)).iterdir())) == len(files)
        if not reached:
            break
    assert 10 < number < 999


def test_analyzers_count_a_batch_whole_or_not_at_all():
    model, tokenizer, world = facts_gpt()
    inputs = tokenizer([fact.text for fact in world.facts[:2]], padding=True, return_tensors="pt")
    rows = int(inputs.attention_mask.sum())
    with fmrai():
        instrument_model(model)
        memories = KeyValueAnalyzer(KeyValueMaxSearchStrategy.PREFIX, max_entries=2)
        heads = AttentionHeadClusterAnalyzer(AttentionSource(Probe(model)))
    before = state_of(model)

    def batch(analyzer):
        mask = {"attention_mask": inputs.attention_mask} if analyzer is memories else {}
        with analyzer.track_batch(**mask):
            model(**inputs)

    for analyzer in (memories, heads):
        batch(analyzer)
        total = lines_of(lambda analyzer=analyzer: batch(analyzer))
        for number in range(1, total, max(1, total // 25)):
            with interrupted_at(number, "signal") as reached:
                batch(analyzer)
            assert not changes(before, state_of(model)), reached
            if analyzer is memories:
                counts = {reader.moments.count for reader in analyzer._reader.layers.values()}
                assert counts == {analyzer._tracked // 2 * rows}, reached
            else:
                found = analyzer._divergences
                assert found.rows == found.texts // 2 * rows, reached
