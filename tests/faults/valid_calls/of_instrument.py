"""Valid calls of instrument: graphs, searches, attention heads, memories."""

import os
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import torch
from torch import nn

import toumei.instrument as ins

from .small_models import NET, QUIET, X, entered, text, world


@cache
def tracked():
    """The tracker of a pass of the small network."""
    with ins.instrument(NET) as probe, probe.track() as tracker:
        NET(X)
    return tracker


@contextmanager
def empty_folder():
    """An empty folder as the current one, so that whatever is written is gone after it."""
    before = Path.cwd()
    with TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(before)


def writing(method):
    """A call that writes to a path in an empty folder."""

    def write(path, **given):
        with empty_folder():
            return method(path, **given)

    return write


def tracking(**given):
    """A pass that is tracked by a probe."""
    with empty_folder(), ins.instrument(NET) as probe, probe.track(**given) as tracker:
        NET(X)
    return tracker.build_map()


def fmrai_tracking(model, **given):
    with ins.fmrai() as scope:
        ins.instrument_model(model)
        with scope.track(**given) as tracker:
            NET(X)
    return tracker.build_map()


def added(weights, mask, tokens):
    analyzer = ins.AttentionHeadClusterAnalyzer(separators=[1])
    analyzer.add(weights, mask, tokens)
    return analyzer.analyze()


def head_batch(**given):
    return ins.cluster_attention_heads([ins.AttentionBatch(**given)], **QUIET)


def memories_of(texts):
    return ins.KeyValueMemories(
        **text()[0], layers=["transformer.h.2.mlp.c_proj"], triggers=2, promoted=2, **QUIET
    )(texts)


@cache
def memories():
    return memories_of([fact.text for fact in world()[2].facts[:6]])


@cache
def analyzed():
    """An analyzer with the names of fMRAi after one batch, and its inputs."""
    model, tokenizer, facts = world()
    inputs = tokenizer([fact.text for fact in facts.facts[:4]], padding=True, return_tensors="pt")
    with ins.fmrai():
        ins.instrument_model(model)
        analyzer = ins.KeyValueAnalyzer(ins.KeyValueMaxSearchStrategy.PREFIX, max_entries=2)
    with analyzer.track_batch(attention_mask=inputs.attention_mask):
        model(**inputs)
    return analyzer, inputs


def analyzing(attention_mask):
    analyzer, inputs = analyzed()
    with analyzer.track_batch(attention_mask=attention_mask):
        world()[0](**inputs)


def stored(ask):
    """A call of a store of memories in a file."""

    def call(**given):
        with empty_folder():
            memories().save_sqlite("memories.db")
            return ask(ins.MemoryStore("memories.db"))(**given)

    return call


def graphs():
    graph = tracked().build_graph()
    yield entered(ins.instrument), {"model": NET}
    yield entered(ins.Probe(NET).track), {"only": ["0"], "batched": False, "device": "cpu"}
    yield tracking, {"only": ["0/linear"], "batched": True, "device": None, "folder": "kept"}
    yield fmrai_tracking, {"model": NET, "batched": True, "track_tensors": ["0"]}
    yield graph.tensor, {"place": "0/linear"}
    yield graph.operation, {"place": "0/linear"}
    yield graph.producer, {"place": "0/linear"}
    yield graph.consumers, {"place": "0/linear"}
    yield graph.matching, {"pattern": "*/relu"}
    yield graph.replay, {"values": {"0/linear": torch.ones(2, 5)}, "record": ["1/relu"]}
    yield graph.replay, {"values": X}
    yield graph.plot, {"ax": None, "module": "", "depth": 1}
    yield writing(graph.save_dot), {"path": "graph.dot", "parameters": True}
    page = {"tensors": tracked().build_map(), "focus": "0/linear", "hops": 2}
    yield writing(graph.save_html), {"path": "graph.html", **page}
    yield ins.compare_with_fx, {"graph": graph}
    yield ins.compare_with_export, {"graph": graph, "args": (X,), "kwargs": {}}
    kept = [{"a": torch.ones(2, 3)}, {"a": torch.ones(1, 2)}]
    found = ins.TensorMap(kept, batched=True)
    yield ins.TensorMap, {"passes": kept, "batched": True}
    yield found.__getitem__, {"place": "a"}
    yield found.get_cat, {"place": "a", "dim": 0, "pad": 0.0}
    yield found.filter_ids, {"wanted": lambda name: True}
    yield writing(found.save), {"path": "kept"}
    yield ins.TensorMap.load, {"folder": "no such folder"}


def searches():
    graph = tracked().build_graph()
    search = lambda graph, pattern: list(ins.find(graph, pattern))  # noqa: E731
    yield search, {"graph": graph, "pattern": ins.chain("linear", "relu")}
    for one in (
        *(ins.find_activations, ins.find_linear, ins.find_normalizations, ins.find_residual_sums),
        *(ins.find_feed_forward, ins.find_multi_head_attention),
    ):
        yield (lambda graph, one=one: list(one(graph))), {"graph": graph}
    yield (lambda graph: list(ins.FindTransformerFFN(graph).search())), {"graph": graph}
    found = lambda pattern: list(ins.find(graph, pattern))  # noqa: E731
    x = ins.Value("x")
    yield (lambda first, second: found(ins.chain(first, second))), {"first": "linear", "second": "relu"}
    yield (
        (lambda functions, x, **given: found(ins.Step(functions, x, **given))),
        {**{"functions": "linear", "x": x, "name": "a", "of": x, "where": None, "module": "Linear"}},
    )
    yield (
        (lambda **given: found(ins.Skip(**given))),
        {"functions": "relu", "of": ins.Step("linear"), "most": 1},
    )
    yield (lambda first, second: found(ins.Either(first, second))), {"first": x, "second": ins.Step("relu")}
    yield (
        (lambda **given: found(ins.Step("relu", ins.Value(**given)))),
        {"name": "a", "of": ins.Step("linear"), "computed": True},
    )
    yield (lambda name: found(ins.Step("linear", x, ins.Weight(name)))), {"name": "w"}
    yield (
        (lambda **given: found(ins.Step("linear", x, x, ins.Constant(**given)))),
        {"value": None, "name": "c"},
    )
    model = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    with ins.instrument(model) as probe, probe.track() as tracker:
        model(torch.ones(1, 3, 8))
    (attention,) = ins.find_multi_head_attention(tracker.build_graph())
    yield attention.weights, {"values": None}


def heads():
    weights = [torch.rand(2, 2, 4, 4).softmax(-1) for _ in range(2)]
    mask, tokens = torch.ones(2, 4), torch.arange(8).view(2, 4)
    given = {"weights": weights, "mask": mask, "tokens": tokens}
    settings = {"separators": [1], "punctuation": [2], "rows_per_text": 3, "seed": 0}
    yield ins.AttentionHeadClusterAnalyzer, {"source": None, **settings}
    yield added, given
    yield head_batch, {**given, "separators": mask, "punctuation": mask}
    batches = [ins.AttentionBatch(weights, mask, tokens)]
    yield ins.cluster_attention_heads, {"batches": batches, **settings, **QUIET}
    yield ins.head_divergences, {"weights": weights[0][0], "tile": 100}
    analyzer = ins.AttentionHeadClusterAnalyzer()
    analyzer.add(weights)
    yield analyzer.analyze, {"position": 0.5, "special": 0.6, "broad": 3.8, "seed": 0}
    result = analyzer.analyze()
    yield result.clusters, {"k": 2}
    yield result.plot, {"figsize": (3, 3), "ax": None}
    yield result.plot_divergences, {"ax": None}
    yield result.behaviours.labels, {"position": 0.5, "special": 0.6, "broad": 3.8}


def key_values():
    parts, fact = text()
    layers = ["transformer.h.2.mlp.c_proj"]
    settings = {"triggers": 2, "promoted": 2, "norm": None, "gated": None, "batch_size": 2, "max_length": 9}
    yield ins.KeyValueMemories, {**parts, "layers": layers, "strategy": "prefix", **settings, **QUIET}
    yield memories_of, {"texts": [fact.text, fact.text + " ", fact.text[:9]]}
    found = memories()
    yield found.layer, {"layer": 0}
    yield found.neuron, {"layer": 0, "index": 3}
    yield found.agreement.plot, {"ax": None}
    yield writing(found.save_html), {"path": "memories.html", "triggers": 2}
    yield writing(found.save_sqlite), {"path": "memories.db"}
    yield ins.MemoryStore, {"path": "no such file"}
    yield stored(lambda store: store.key_sentences), {"layer": 0, "neuron": 3, "limit": 2}
    yield stored(lambda store: store.key_heatmap), {"layer": 0, "sigma": 1.0}
    strategy = ins.KeyValueMaxSearchStrategy.PREFIX
    source = SimpleNamespace(model=parts["model"], down_projections=layers)
    yield ins.KeyValueAnalyzer, {"strategy": strategy, "max_entries": 2, "source": source}
    yield analyzing, {"attention_mask": analyzed()[1].attention_mask}
    yield analyzed()[0].analyze, {"tokenizer": parts["tokenizer"]}
    yield analyzed()[0].analyze(tokenizer=None).get, {"layer": 0, "neuron": 3}


def instrument():
    for part in (graphs, searches, heads, key_values):
        yield from part()
