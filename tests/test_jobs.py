"""Every entry that takes `jobs` gives the same with two processes as in this one."""

import time
from dataclasses import fields, is_dataclass
from tempfile import TemporaryDirectory

import joblib
import pytest
import torch
from joblib.externals.loky import get_reusable_executor
from torch import Tensor, nn

from toumei.attribution import IntegratedGradients, KernelShap, Saliency, attribute_many, compare
from toumei.cnns import render_icons
from toumei.core import sweep
from toumei.core.errors import ArgumentError
from toumei.misc import MLPGraph, lesion_test, null_test
from toumei.models import SimpleMLP, facts_gpt
from toumei.transformers import (
    ActivationSource,
    ActivationStore,
    CausalTracer,
    HookedModel,
    RankOneEditor,
    cache_many,
    collect_statistics,
    evaluate_edits,
    head_ablation,
    world_cases,
)

pytestmark = pytest.mark.usefixtures("processes")

QUIET = {"verbose": False}


@pytest.fixture(scope="module")
def processes():
    """Two processes that have imported what sweeps use: joblib starts one anew that grows by 300 MB."""

    def imported(seconds):
        import toumei.cnns
        import toumei.misc
        import toumei.transformers

        toumei.models.facts_gpt()
        time.sleep(seconds)  # so that each process takes one

    get_reusable_executor().shutdown()  # those of other tests
    sweep(imported, [0.5, 0.5], jobs=2, **QUIET)


def same(one, two):
    """Whether two results have the same numbers, bit for bit; NaN equals NaN."""
    if isinstance(one, Tensor):
        return torch.equal(one.nan_to_num(-7.5), two.nan_to_num(-7.5))
    if is_dataclass(one):
        return all(same(getattr(one, field.name), getattr(two, field.name)) for field in fields(one))
    if isinstance(one, dict):
        return list(one) == list(two) and all(same(one[name], two[name]) for name in one)
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(map(same, one, two))
    return one == two


def pictures():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 64, 3))
    return network.eval(), torch.rand(4, 3, 8, 8)


def shuffles(**more):
    torch.manual_seed(0)
    return null_test(SimpleMLP(6, 8, 8, 4), 2, samples=5, **more, **QUIET)


def zeros_kept(**more):
    torch.manual_seed(0)
    return null_test(
        SimpleMLP(6, 8, 8, 4), 2, samples=4, shuffle="layer-nonzero", measure="modularity", **more
    )


def lesions(**more):
    torch.manual_seed(0)
    network, inputs = SimpleMLP(6, 8, 8, 4), torch.rand(20, 6)
    graph = MLPGraph(network)
    labels = torch.arange(26) % 2
    return lesion_test(network, graph, labels, inputs, torch.arange(20) % 4, samples=4, **more)


def icons(**more):
    network, _ = pictures()
    settings = {"size": 8, "steps": 2, "batch_size": 2}
    return render_icons(network, "0", torch.eye(4), **settings, **more, **QUIET)


def methods(**more):
    network, images = pictures()
    chosen = [
        Saliency(network),
        IntegratedGradients(network, steps=4),
        KernelShap(network, samples=200, seed=1),
    ]
    found = compare(chosen, images, 1, torch.rand(4, 8, 8) > 2, samples=4, steps=4, **more)
    found.columns.pop("seconds")
    return found


def ablations(**more):
    model, tokenizer, world = facts_gpt()
    texts = [fact.text for fact in world.facts[:60]]
    return head_ablation(HookedModel(model, tokenizer), texts, layers=[2, 3], **more)


def effects(**more):
    model, tokenizer, world = facts_gpt()
    return CausalTracer(model, tokenizer).trace_many(world.facts[:3], samples=2, **more)


def edits(**more):
    model, tokenizer, world = facts_gpt()
    texts = [fact.text for fact in world.facts[:400]]
    statistics = collect_statistics(model, tokenizer, texts, [2], **QUIET)
    editor = RankOneEditor(model, tokenizer, statistics, contexts=["{}"])
    settings = {"layer": 2, "method": "memit", "steps": 2}
    return evaluate_edits(editor, world_cases(world, 2), **settings, **more, **QUIET)


def statistics(**more):
    model, tokenizer, world = facts_gpt()
    texts = [fact.text for fact in world.facts[:300]]
    return collect_statistics(model, tokenizer, texts, [1, 2], batch_size=4, **more, **QUIET)


def attributions(**more):
    network, images = pictures()
    method = KernelShap(network, samples=200, seed=1)
    return attribute_many(method, images, torch.arange(4) % 3, batch_size=1, **more, **QUIET)


def caches(**more):
    model, tokenizer, world = facts_gpt()
    texts = [fact.text for fact in world.facts[:4]]
    names = ["pattern", ("z", 1), "transformer.h.0.mlp"]
    found = cache_many(HookedModel(model, tokenizer), texts, names, **more, **QUIET)
    return [dict(cache) for cache in found]


def shards(**more):
    model, tokenizer, world = facts_gpt()
    texts = [fact.text for fact in world.facts[:300]]
    source = ActivationSource(HookedModel(model, tokenizer), texts, [("mlp_out", 1), ("z", 2)])
    with TemporaryDirectory() as folder:
        store = ActivationStore.write(source, folder, shard_tokens=500, **more, **QUIET)
        return len(store.shards), list(store.blocks(seed=0))


ENTRIES = [
    shards,
    caches,
    attributions,
    statistics,
    shuffles,
    zeros_kept,
    lesions,
    icons,
    methods,
    ablations,
    effects,
    edits,
]


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.__name__)
def test_two_processes_give_what_one_gives(entry):
    assert same(entry(), entry(jobs=2))


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.__name__)
def test_a_wrong_number_of_jobs_is_refused(entry):
    with pytest.raises(ArgumentError, match="jobs is a whole number from 1 on, or -1"):
        entry(jobs=0)


def test_statistics_of_an_endless_corpus_end_with_enough_keys():
    model, tokenizer, world = facts_gpt()
    one, two = (
        collect_statistics(model, tokenizer, world.texts(seed=0), [1], enough=2, jobs=jobs, **QUIET)
        for jobs in (1, 2)
    )
    assert same(one, two)


def test_finished_edits_are_found_and_those_of_another_setting_are_not(tmp_path):
    def made():
        return len(list(tmp_path.glob("*.result")))

    first = edits(folder=tmp_path)
    assert made() == 2 and same(edits(folder=tmp_path), first) and made() == 2
    edits(folder=tmp_path, batch_size=32)
    assert made() == 4
    with pytest.raises(ArgumentError, match="written together are one edit"):
        edits(folder=tmp_path, together=True)


def test_threads_of_this_process_take_turns_with_the_model():
    with joblib.parallel_config("threading"):
        found = effects(jobs=2)
    assert same(found, effects())
