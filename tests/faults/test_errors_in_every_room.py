"""An error or Ctrl-C at any call of a module, in every public entry: nothing is left, and the error arrives.

``TOUMEI_ERRORS`` sets how many entries of each room are tried, 4 by default.
"""

import os
import random
import warnings
from contextlib import contextmanager, suppress
from functools import partial

import pytest
import torch
from matplotlib import pyplot
from test_errors_in_the_middle import check_same, state
from torch import nn
from valid_calls import MODELS, ROOMS, of_circuits, of_patching, world

from toumei.bench import Bench
from toumei.core.errors import ArgumentError
from toumei.instrument import (
    AttentionHeadClusterAnalyzer,
    KeyValueAnalyzer,
    KeyValueMaxSearchStrategy,
    Probe,
    fmrai,
    instrument_model,
)
from toumei.instrument.heads.attention_source import AttentionSource
from toumei.models import facts_gpt
from toumei.transformers import ActivationSource, ActivationStore, HookedModel

COUNT = int(os.environ.get("TOUMEI_ERRORS", "4"))


def watched_models():
    wired = {"patched": of_patching.hooked().model, "circuit": of_circuits.hooked().model}
    return {**MODELS, "facts": world()[0], **wired}


def kinds_of_leaves(given):
    """The classes of the modules without children in models and arguments."""
    found, waiting, seen = set(), [given], set()
    while waiting:
        one = waiting.pop()
        if id(one) in seen or len(seen) > 5000:
            continue
        seen.add(id(one))
        if isinstance(one, nn.Module):
            found |= {type(module) for module in one.modules() if not list(module.children())}
        elif isinstance(one, dict):
            waiting += one.values()
        elif isinstance(one, list | tuple):
            waiting += one
        elif isinstance(one, partial):
            waiting += [one.func, *one.args, *one.keywords.values()]
        else:
            inside = getattr(one, "__self__", None), getattr(one, "model", None)
            waiting += [part for part in inside if part is not None and not isinstance(part, type)]
    return found


@contextmanager
def failing_at(kinds, at, error):
    """Raises an error at a call of a module of some classes; a call of 0 only counts."""
    calls, originals = [0], {kind: kind.forward for kind in kinds}

    def failing(original):
        def forward(self, *args, **kwargs):
            calls[0] += 1
            if calls[0] == at:
                raise error
            return original(self, *args, **kwargs)

        return forward

    for kind, original in originals.items():
        kind.forward = failing(original)
    try:
        yield calls
    finally:
        for kind, original in originals.items():
            kind.forward = original


class OfTheUser(Exception):
    """An error that no library knows."""


def stays(name, error, found):
    """Whether a call may have gone on: a probe has another way, an optimization ends with what there is."""
    if name == "render_icons":  # the icons that are left are noise, as its documentation says
        return True
    return not isinstance(error, KeyboardInterrupt) or getattr(found, "ended", "") == "interrupted"


def arrives(error, arrived):
    """Whether an error is what arrived, or the cause of it, as where torch traces a network."""
    while arrived is not None and arrived is not error:
        arrived = arrived.__cause__ or arrived.__context__
    return arrived is error


def calls_of(room):
    draw, calls = random.Random(0), list(room())
    return draw.sample(calls, min(COUNT, len(calls)))


def left_by(call, models):
    """What a call raises, returns and leaves changed."""
    draws = torch.get_rng_state()
    before = {name: state(model) for name, model in models.items()}
    found = arrived = None
    try:
        found = call()
    except BaseException as error:
        arrived = error
    left = []
    for name, model in models.items():
        try:
            check_same(before[name], state(model))
        except AssertionError as error:
            left.append(f"{name}: {str(error)[:100]}")
    torch.set_rng_state(draws)
    pyplot.close("all")
    return found, arrived, left


@pytest.fixture
def quiet(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.__name__)
def test_an_error_in_a_module_arrives_and_leaves_nothing_behind(room):
    draw, models, wrong = random.Random(0), watched_models(), []
    for function, arguments in calls_of(room):
        call = partial(function, **arguments)
        kinds = kinds_of_leaves([models, function, arguments])
        for _ in range(2):  # the second one knows what is cached
            with failing_at(kinds, 0, None) as counted:
                _, refused, allowed = left_by(call, models)
        if refused is not None or not counted[0]:
            continue
        for error in (OfTheUser("stop"), KeyboardInterrupt("stop")):
            at = draw.randint(1, counted[0])
            with failing_at(kinds, at, error):
                found, arrived, left = left_by(call, models)
            name = getattr(function, "__qualname__", str(function))
            said = f"{name}({sorted(arguments)}), call {at} of {counted[0]}"
            if not (arrives(error, arrived) or (arrived is None and stays(name, error, found))):
                wrong.append(f"{said}: {error!r} became {arrived!r}")
            if left and not allowed:
                wrong.append(f"{said}: {error!r} left {left}")
    assert not wrong, "\n".join(wrong)


def functions_in(given):
    """For each function in arguments, what replaces it by another one."""
    kind = type(given)
    if callable(given) and (hasattr(given, "__code__") or kind is partial):
        yield lambda function: function
    elif kind is dict:
        for name, part in given.items():
            for inner in functions_in(part):
                yield lambda function, name=name, inner=inner: {**given, name: inner(function)}
    elif kind in (list, tuple):
        for place, part in enumerate(given):
            for inner in functions_in(part):
                yield lambda function, place=place, inner=inner: kind(
                    [*given[:place], inner(function), *given[place + 1 :]]
                )


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.__name__)
def test_an_error_in_a_function_of_the_user_arrives_and_leaves_nothing_behind(room):
    models, wrong = watched_models(), []
    for function, arguments in room():
        for replaced in functions_in(arguments):
            for error in (OfTheUser("stop"), KeyboardInterrupt("stop")):
                called = []

                def failing(*given, error=error, called=called, **named):
                    called.append(1)
                    raise error

                _, arrived, left = left_by(partial(function, **replaced(failing)), models)
                if called and not arrives(error, arrived):
                    wrong.append(f"{function}({sorted(arguments)}): {error!r} became {arrived!r}")
                if left:
                    wrong.append(f"{function}({sorted(arguments)}): {error!r} left {left}")
    assert not wrong, "\n".join(wrong)


@pytest.fixture
def facts():
    """The model of facts, two texts as its inputs, and a block that fails in the second of its passes."""
    model, tokenizer, world = facts_gpt()
    texts = [fact.text for fact in world.facts[:12]]
    inputs = dict(tokenizer(texts[:2], padding=True, return_tensors="pt"))

    def failing(at):
        return failing_at({type(model.transformer.h[0].mlp.c_proj)}, at, OfTheUser("stop"))

    return model, tokenizer, texts, inputs, failing


def test_a_pass_with_an_error_is_not_counted_by_trackers_and_analyzers(facts):
    model, _, _, inputs, failing = facts
    with Probe(model).track(["transformer.h.1"], batched=True) as tracker:
        model(**inputs)
        with pytest.raises(OfTheUser), failing(20):
            model(**inputs)
        model(**inputs)
    assert len(tracker.build_map()["transformer.h.1"]) == 2
    with fmrai():
        instrument_model(model)
        memories = KeyValueAnalyzer(KeyValueMaxSearchStrategy.PREFIX, max_entries=2)
        heads = AttentionHeadClusterAnalyzer(AttentionSource(Probe(model)))
    for analyzer in (memories, heads):
        mask = {"attention_mask": inputs["attention_mask"]} if analyzer is memories else {}
        for fails in (False, True, False):
            with suppress(OfTheUser), failing(20 if fails else 0), analyzer.track_batch(**mask):
                model(**inputs)
    rows = int(inputs["attention_mask"].sum())
    assert {reader.moments.count for reader in memories._reader.layers.values()} == {2 * rows}
    assert heads._divergences.texts == 4


def test_what_is_written_before_an_error_is_whole_and_goes_on(facts, tmp_path):
    model, tokenizer, texts, _, failing = facts
    source = ActivationSource(HookedModel(model, tokenizer), texts, ("resid_post", 1), batch_size=2)

    def write(folder):
        return ActivationStore.write(source, tmp_path / folder, shard_tokens=30, verbose=False)

    whole = write("whole")
    with failing(0) as counted:
        write("counted")
    with pytest.raises(OfTheUser), failing(counted[0] - 1):
        write("failed")
    assert 0 < len(list((tmp_path / "failed").glob("shard*"))) < len(whole.shards)
    again = write("failed")
    for first, second in zip(whole.blocks(), again.blocks(), strict=True):
        assert all(torch.equal(values, second[name]) for name, values in first.items())


def test_a_run_whose_model_fails_is_kept_as_failed_and_raises_the_error_of_the_user(facts, tmp_path):
    model, tokenizer, texts, _, failing = facts
    hooked = HookedModel(model, tokenizer)
    bench = Bench(tmp_path, hooked)

    def logits(number):
        return hooked(texts[number])

    logged = bench.log_experiment(logits)
    before, draws = state(model), torch.get_rng_state()
    with pytest.raises(OfTheUser), failing(9):
        logged(0)
    check_same(before, state(model))
    assert torch.equal(torch.get_rng_state(), draws)
    logged(1)
    failed, finished = bench.runs("logits")
    assert (failed.status, finished.status) == ("failed", "finished")
    assert failed.error["type"] == "OfTheUser"
    with pytest.raises(ArgumentError, match="has no result"):
        failed.result()
