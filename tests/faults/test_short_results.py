"""Results that are printed: a line for each, however large they are, and numbers that are numbers."""

import copy
import importlib
import pickle
import pkgutil
import re
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace

import networkx as nx
import pytest
import torch
from matplotlib import pyplot
from torch import nn

import toumei
from toumei.attribution import Attribution, Comparison, Curve, Explanation, Randomization
from toumei.attribution.base.contributions import Contributions
from toumei.attribution.metrics.removed_sets import Removals
from toumei.bench import HypothesisFamily, HypothesisTest, Profile
from toumei.cnns import (
    ActivationAtlas,
    ChannelGroups,
    DatasetExamples,
    ExpandedWeights,
    SanityScore,
    Visualization,
)
from toumei.cnns.examples.ranking import Ranking
from toumei.core import Activations
from toumei.core.errors import ArgumentError, ShapeError
from toumei.core.notebooks import Displayed
from toumei.core.serialization import Saved
from toumei.core.summaries import counted, listed, shortened
from toumei.instrument import (
    Agreement,
    AttentionHeadClusteringResult,
    GraphDifferences,
    HeadBehaviours,
    KeyValueMemories,
    Step,
    TensorMap,
    find,
    find_activations,
    find_feed_forward,
    find_linear,
    find_multi_head_attention,
    find_normalizations,
    find_residual_sums,
    instrument,
)
from toumei.instrument import chain as steps
from toumei.misc import MLPGraph, WeightGraph, ncut, null_test, spectral_partition
from toumei.misc.circuits import Faithfulness, NodeCircuit
from toumei.misc.modularity import (
    Lesion,
    LesionTest,
    ModelGraph,
    NullTest,
    SpectralPartition,
    chain,
    lesion_test,
    modularity,
    plot_blocks,
    plot_layers,
)
from toumei.misc.sharpness import Sharpness
from toumei.models import SimpleMLP, facts_gpt
from toumei.transformers import (
    ActivationCache,
    CompositionScores,
    KeyStatistics,
    LensEvaluation,
    LensTable,
    LogitAttribution,
    LogitLens,
    TunedLens,
)
from toumei.transformers.areas import AreaComparison, AreaEvaluation, Areas
from toumei.transformers.circuits import AttributionGraph, Circuit, CircuitChecks, FaithfulnessCurves
from toumei.transformers.features import (
    DictionaryEvaluation,
    DictionarySettings,
    DictionaryTraining,
    FeatureMatches,
    FeatureTable,
    Reconstruction,
    SparseAutoencoder,
    Superposition,
)
from toumei.transformers.heads import SCORES, HeadScores, HeadValues, SingularReadOut
from toumei.transformers.knowledge import (
    HeadRelations,
    KnowledgeGraph,
    ProbeResult,
    SteeringSweep,
    SteeringVector,
)
from toumei.transformers.lenses import LensRecipe
from toumei.transformers.patching import AttributionPatching, HeadAblation, PatchingResult
from toumei.transformers.rome import AverageEffects, CausalTrace, Evaluation
from toumei.transformers.rome.editing.edit import Edit
from toumei.transformers.rome.statistics.second_moments import IdentityMoment
from toumei.transformers.surgery import LayerPerplexities
from toumei.transformers.tools import Directions

LAYERS = tuple(f"features.stage{index}.block{index}.conv2.activation" for index in range(80))
UNITS = tuple(f"{layer}:123:10:10" for layer in LAYERS)
PROMPT = "The Eiffel Tower, which was built by a company of engineers, is in the city of " * 40
WORD = " pneumonoultramicroscopicsilicovolcanoconiosis" * 3
RANKING = Ranking(torch.rand(512, 9), torch.zeros(512, 9, dtype=torch.long), torch.rand(512, 9, 2))
MEASURES = "inside inside_chance pointing pointing_chance balance insertion deletion correlation gap seconds"


def heads_of_a_large_model():
    """The comparison of 24 x 16 heads whose layers have long names."""
    torch.manual_seed(0)
    count = 24 * 16
    square = torch.rand(count, count, dtype=torch.float64)
    columns = HeadBehaviours(*torch.rand(8, count))
    return AttentionHeadClusteringResult(
        divergences=(square + square.T).fill_diagonal_(0),
        standard_errors=square,
        layer_names=LAYERS[:24],
        layers=torch.arange(24).repeat_interleave(16),
        heads=torch.arange(16).repeat(24),
        behaviours=columns,
        labels=columns.labels(),
        coordinates=torch.rand(count, 2),
        stress=0.25,
        texts=10**6,
        rows=10**8,
        compared_rows=10**7,
    )


def memories_of_facts():
    """Memories of one layer, whose name is as long as they get in wrapped models."""
    model, tokenizer, world = facts_gpt()
    layers = ["transformer.h.2.mlp.c_proj"]
    texts = [fact.text for fact in world.facts[:6]]
    return KeyValueMemories(model, tokenizer, layers, triggers=2, verbose=False)(texts)


def weights_of_heads():
    """Results of the heads of layers with long names, and the singular vectors of one."""
    torch.manual_seed(0)
    table = {name: torch.rand(80, 16) for name in SCORES}
    yield HeadScores(**table, layer_names=LAYERS, texts=10**6, rows=10**8)
    yield HeadValues("share of its queries", torch.rand(80, 16), LAYERS)
    scores = torch.rand(3, 24, 16, 24, 16)
    yield CompositionScores(*scores, layer_names=LAYERS[:24], baseline=0.1, subtracted=True)
    words = ((WORD,) * 2,) * 5
    yield SingularReadOut(circuit="ov", head="79.15", values=torch.rand(5), rows=words, columns=words)


def read_out_of_a_large_model():
    """Lenses of 80 layers on a long prompt, and what the layers add to a logit."""
    torch.manual_seed(0)
    recipe = LensRecipe(10**4, 2**18, 2048, 8, "sgd", 1.0, 1e-3, "cross_entropy", False, 0)
    losses = torch.rand(100, 80) * 1e4
    yield TunedLens(LAYERS, torch.rand(80, 4, 4), torch.rand(80, 4), losses, recipe, "model")
    yield LensEvaluation(LAYERS, torch.rand(80, 2) * 1e4, torch.rand(80, 2) * 1e4, 10**9, 4.5)
    yield LensTable(
        prompt=PROMPT,
        lens="tuned lens",
        tokens=(WORD,) * 99,
        layers=LAYERS,
        top=(((WORD,) * 5,) * 99,) * 80,
        top_probabilities=torch.rand(80, 99, 5),
        entropies=torch.rand(80, 99),
        divergences=torch.rand(80, 99),
        next_probabilities=torch.rand(80, 98),
        next_ranks=torch.ones(80, 98, dtype=torch.long),
    )
    yield LogitAttribution(PROMPT, WORD, WORD, LAYERS, torch.rand(80, dtype=torch.float64), 40.0, True)


def patches_of_a_large_model():
    """Ablated and patched heads of 80 layers with long names, on a long prompt."""
    torch.manual_seed(0)
    yield HeadAblation(
        kind="resample",
        measure="logit difference" * 9,
        by_text=torch.rand(9, 80, 16, dtype=torch.float64) * 1e6,
        before=torch.rand(9, dtype=torch.float64) * 1e6,
        confidence=0.95,
        layer_names=tuple(map(str, range(80))),
    )
    receivers = ", ".join(f"79.{head} {kind}" for head in range(99) for kind in "qkv")
    effects = PatchingResult(
        values=torch.rand(80, 16, 99, dtype=torch.float64) * 1e6,
        raw=torch.rand(80, 16, 99, dtype=torch.float64),
        clean=1e6,
        corrupt=-1e6,
        metric="logit difference" * 9,
        what=f"z to {receivers}",
        axes=("layer", "head", "position"),
        direction="denoising",
        layer_names=tuple(map(str, range(80))),
        tokens=(WORD,) * 99,
    )
    yield effects
    places = tuple(f"79.15.{place}" for place in range(99))
    sample = torch.rand(2, 99, dtype=torch.float64) * 1e6
    yield AttributionPatching(
        estimate=effects, gradient_at="corrupt", places=places, estimated=sample[0], exact=sample[1]
    )


def areas_of_a_large_model():
    """Areas of many texts in 80 layers with long names, and how two categories with long names differ."""
    torch.manual_seed(0)
    names = (WORD, f"{WORD}s", *map(str, range(60)))
    yield Areas.of(
        10,
        layers=LAYERS,
        categories=names,
        labels=torch.arange(500) % 62,
        groups=torch.arange(500),
        coordinates=torch.rand(80, 500, 2, dtype=torch.float64),
        explained=torch.rand(80, 2),
        constant=LAYERS,
        reduction="pca",
        pooling="last",
    )
    yield AreaEvaluation(layers=LAYERS, states=torch.rand(80, 10), maps=torch.rand(80, 10), chance=1 / 62)
    metrics = tuple(f"{kind}_strength" for kind in ("mean", "var", "skew", "kurt"))
    yield AreaComparison(
        categories=names[:2],
        texts=(10**6, 10**6),
        layers=LAYERS,
        distances=torch.rand(80),
        null_distances=torch.rand(99, 80),
        metrics=metrics,
        values=torch.rand(2, 4) * 1e6,
        null_differences=torch.randn(99, 4),
    )


def known_by_a_large_model():
    """Facts, probes and directions of 80 layers with long names, and what each layer is worth."""
    torch.manual_seed(0)
    facts = tuple((f"{WORD} {number}", f"{number % 40} {PROMPT}", PROMPT) for number in range(99))
    graph = KnowledgeGraph(facts=facts, scores=torch.rand(99), source=PROMPT)
    yield graph
    yield graph.compared(facts)
    yield HeadRelations(
        relations=tuple(f"{number} {PROMPT}" for number in range(40)),
        heads=tuple(f"79.{head}" for head in range(1280)),
        accuracies=torch.rand(40, 1280),
        chance=torch.rand(40),
        chosen=torch.arange(40),
        graph=graph,
        known=facts,
        read="embedding",
    )
    yield ProbeResult(
        names=LAYERS,
        kind="linear",
        position="token",
        classes=(PROMPT,) * 99,
        correct=torch.rand(80, 1000).round(),
        control=torch.rand(80, 1000).round(),
        random=torch.rand(0, 1000),
        groups=torch.arange(1000),
        majority=0.1,
        confidence=0.95,
    )
    strengths = torch.linspace(-1, 1, 99, dtype=torch.float64)
    swept = {"values": torch.rand(99, 9) * 1e9, "losses": torch.rand(99, 9) * 1e9}
    yield SteeringVector(
        name=LAYERS[0], vector=torch.rand(4096), size=1e-9, texts=(10**6, 10**6), position="last"
    )
    yield SteeringSweep(strengths=strengths, metric=PROMPT, name=LAYERS[0], **swept)
    losses = torch.rand(80, 9, dtype=torch.float64) * 40
    yield LayerPerplexities(
        change="delete", layers=tuple(range(80)), losses=losses, before=losses[0], length=4096
    )


def circuits_of_a_large_model():
    """A circuit of the channels of layers with long names, and how faithful it is."""
    nodes = tuple(f"{layer}:{channel}" for layer in LAYERS for channel in range(16))
    yield NodeCircuit(
        nodes=nodes,
        values=torch.rand(9, len(nodes)) * 1e6,
        sites=tuple(layer for layer in LAYERS for _ in range(16)),
        full=torch.rand(9) * 1e6,
        empty=torch.rand(9),
        edges=tuple(zip(nodes, (*nodes[1:], "output"), strict=True)),
        weights=torch.rand(len(nodes)),
        method="integrated_gradients",
        complete=True,
        passes=1e6,
        backward_passes=1e6,
    )
    sizes = torch.arange(99)
    shares = torch.rand(10, 99)
    yield Faithfulness(sizes=sizes, values=shares[0], random=shares, nodes=10**6, method="A" * 30)


def found_in_a_large_model():
    """A graph of 12 layers with long names, what tracked it, and one of each thing that is found."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=True)
    model = nn.TransformerEncoder(layer, 12, enable_nested_tensor=False).eval()
    for name in ("encoder_of_the_text", "model_with_its_adapters", "distributed_module") * 2:
        model = nn.Sequential(OrderedDict({name: model}))
    with instrument(model) as probe, probe.track() as tracker:
        model(torch.rand(1, 5, 8))
    graph = tracker.build_graph()
    yield from (
        probe,
        tracker,
        graph,
        tracker.build_map(),
        next(iter(graph)),
        next(iter(graph.tensors.values())),
    )
    searches = find_activations, find_linear, find_normalizations, find_residual_sums, find_feed_forward
    for search in (*searches, find_multi_head_attention):
        yield next(search(graph))
    yield next(find(graph, steps(Step("linear", name="first"), "relu", Step("linear", name="second"))))


def kept_by_a_bench():
    """A test of many samples, a family of tests with long names, and the profile of a deep model."""
    torch.manual_seed(0)
    samples = torch.rand(2, 10**4, dtype=torch.float64)
    numbers = {"p_value": 1e-300, "alpha": 0.05, "difference": 0.1, "effect": -1.5, "detectable": 0.1}
    ends = {"interval": (-1e6, 1e6), "effect_interval": (-1e6, 1e6)}
    yield HypothesisTest(
        *samples, method="permutation", alternative="two-sided", **numbers, **ends, names=(WORD, WORD)
    )
    columns = torch.rand(5, 80, dtype=torch.float64)
    yield HypothesisFamily(LAYERS, *columns[:4], columns[:2].T, 0.05)
    counts = torch.arange(80) * 10**9
    yield Profile(
        granularity="operation",
        names=("(model)", *LAYERS[1:]),
        calls=counts,
        seconds=columns[0],
        self_seconds=columns[1],
        memory=counts,
        flop_counts=counts,
        self_flop_counts=counts,
        lines=("modeling_a_large_model.py:1234",) * 80,
        trace=torch.zeros(10**5, dtype=torch.uint8),
    )


HEADS, MEMORIES = heads_of_a_large_model(), memories_of_facts()

SLOW_FIGURES = ("CompositionScores", "ExpandedWeights", "LensTable")

# what has a test of its length elsewhere, because it needs a model
ELSEWHERE = {Edit}


def edges_of_a_large_model():
    """Scores of some edges of a model of 80 layers, a circuit, and how much of the model it is."""
    torch.manual_seed(0)
    writers = ("embed", *(f"a79.{head}" for head in range(64)), "m79")
    readers = (*(f"a79.{8 * group}-{8 * group + 7}<k>" for group in range(8)), "logits")
    named = {"writers": writers, "readers": readers}
    scores = torch.rand(9, 66, dtype=torch.float64) * 1e6
    allowed = torch.ones(9, 66, dtype=torch.bool)
    metric = "logit difference" * 9
    yield AttributionGraph(
        scores=scores,
        allowed=allowed,
        **named,
        method="eap-ig",
        ablation="resample",
        direction="path",
        gradient_at="path",
        metric=metric,
        clean=1e6,
        corrupt=-1e6,
        completeness_error=-1e5,
    )
    yield Circuit(kept=scores > 5e5, allowed=allowed, scores=scores, **named, found_by="strongest" * 20)
    methods, shares = (*(f"method {WORD} {place}" for place in range(3)), "random"), (0.001, 0.5, 1.0)
    values = torch.rand(4, 3, dtype=torch.float64) * 1e3
    yield FaithfulnessCurves(
        values=values,
        spread=values,
        methods=methods,
        shares=shares,
        edges=(1, 2, 3),
        full=1e6,
        empty=-1e6,
        metric=metric,
        ablation="resample",
    )
    yield CircuitChecks(
        faithfulness=1e3,
        random=torch.rand(9),
        without=torch.rand(9, 2) * 1e3,
        random_without=torch.rand(9, 2),
        minimality=torch.rand(65),
        nodes=writers[1:],
        full=1e6,
        empty=-1e6,
        metric=metric,
    )


def features_of_a_large_model():
    """A transcoder between layers with long names, and what is known of it."""
    torch.manual_seed(0)
    count, curve = 4096, torch.rand(10_000)
    dictionary = SparseAutoencoder(
        W_enc=torch.rand(8, count),
        b_enc=torch.rand(count),
        W_dec=torch.rand(count, 8),
        b_dec=torch.rand(8),
        thresholds=torch.rand(count),
        activation="batch_topk",
        k=128,
        subtract_bias=False,
        normalization="none",
        reads=LAYERS[78],
        writes=LAYERS[79],
    )
    yield dictionary
    settings = DictionarySettings(features=count)
    yield DictionaryTraining(dictionary, settings, curve * 1e6, curve, curve * 1e4, curve, "model")
    found = Reconstruction(1e4, 0.5, 0.9, torch.rand(count), torch.rand(count), 10**9, torch.rand(count))
    yield found
    yield DictionaryEvaluation(found, 3.0, 4.0, 15.0, 1.0, 12.0, 10**9)
    words = ((WORD,) * 8,) * count
    sides = {"promoted": words, "suppressed": words}
    logits = {f"{side}_logits": torch.rand(count, 8) for side in sides}
    table = {"values": torch.rand(count, 4), "activations": torch.rand(count, 4, 8)}
    yield FeatureTable(
        features=tuple(range(count)),
        rates=torch.rand(count),
        texts=(((WORD,) * 8,) * 4,) * count,
        reads=LAYERS[79],
        **table,
        **sides,
        **logits,
    )
    yield FeatureMatches(torch.rand(count), torch.arange(count))
    yield Superposition(torch.rand(count, 8), torch.rand(count), torch.rand(count), 1e-3, 123.456)
    square = torch.rand(256, 256)
    yield Directions("dictionary", square, square, square[0], 0.123456, dictionary)


RESULTS = [
    *features_of_a_large_model(),
    *edges_of_a_large_model(),
    Attribution(
        {name: torch.rand(64, 512) for name in LAYERS},
        torch.rand(64),
        torch.rand(64),
        standard_error={name: torch.rand(64, 512) for name in LAYERS},
        method="IntegratedGradients",
        complete=True,
    ),
    Explanation(
        Attribution(
            torch.rand(64, 512), torch.rand(64), torch.rand(64), method="IntegratedGradients", complete=True
        ),
        Attribution(torch.rand(64, 512), torch.rand(64), method="ShapleySampling"),
        torch.rand(64, dtype=torch.float64),
        "a table of 512 columns and a network, which has gradients",
        "the mean of the given rows",
    ),
    Contributions(torch.rand(64, 512), torch.rand(64), method="Saliency"),
    Comparison(LAYERS, {name: torch.rand(80, 64) for name in MEASURES.split()}),
    Curve(torch.linspace(0, 1, 1000), torch.rand(512, 1000)),
    Removals(torch.rand(512, 1000), torch.rand(512, 1000)),
    Randomization(LAYERS, torch.rand(80, 64)),
    Visualization(torch.rand(80, 3, 8, 8), torch.rand(512, 80), UNITS),
    DatasetExamples(dict.fromkeys(LAYERS, RANKING), dict.fromkeys(LAYERS, RANKING), {}, 10**6),
    ActivationAtlas(
        layer=LAYERS[0],
        grid=160,
        points=torch.rand(1000, 2),
        members=torch.zeros(1000, dtype=torch.long),
        cells=torch.zeros(900, 2, dtype=torch.long),
        counts=torch.ones(900, dtype=torch.long),
        directions=torch.rand(900, 64),
        icons=torch.rand(900, 3, 4, 4),
        attributions=torch.rand(900, 1000),
        categories=tuple(map(str, range(1000))),
    ),
    ChannelGroups(LAYERS[0], torch.rand(20, 2048), torch.rand(64, 20, 14, 14), torch.rand(64, 3, 4, 4), 0.1),
    ExpandedWeights(LAYERS[0], LAYERS[1], tuple(range(512)), torch.rand(512, 64, 3, 3)),
    SanityScore(UNITS, LAYERS, torch.rand(80, 80), torch.rand(80, 80) + 1, torch.rand(80, 80)),
    SpectralPartition(
        torch.arange(4096) % 64, torch.rand(65), [f"{LAYERS[0]}:{unit}" for unit in range(999)]
    ),
    LesionTest(0.9, (Lesion(LAYERS[0], 1, 5, 0.1, 0.0, 0.1, 0.5),) * 64, 1000),
    NullTest("modularity", 0.123456, torch.rand(1000), 64),
    Sharpness(torch.rand(64), torch.rand(64), torch.rand(64), 0.123456),
    LogitLens(
        PROMPT,
        WORD,
        torch.rand(48),
        torch.ones(48, dtype=torch.long),
        (("a",),) * 48,
        torch.rand(48, 1),
    ),
    KeyStatistics({layer: IdentityMoment(4) for layer in range(48)}, "model", "corpus", 10**6),
    CausalTrace(
        scores=torch.rand(800, 48),
        low=0.1,
        high=0.9,
        tokens=("a",) * 800,
        ids=(0,) * 800,
        subject_range=(0, 1),
        answer=" Paris" * 50,
        answer_id=1,
        probability=0.9,
        kind="hidden",
        window=1,
        prompt=PROMPT,
        subject="The",
    ),
    AverageEffects(torch.rand(1000, 7, 48), torch.rand(1000), torch.rand(1000), "mlp", 10, "attn"),
    Evaluation(
        {
            name: torch.rand(1000)
            for name in ("efficacy", "paraphrase", "neighbourhood", "namesakes", "others", "entropy")
        }
    ),
    Activations({layer: [(torch.rand(1, 2), 0)] for layer in LAYERS}),
    HEADS,
    HEADS.behaviours,
    Agreement(LAYERS, *torch.rand(3, 80), torch.full((80,), 9), torch.rand(80), 50_000),
    MEMORIES,
    MEMORIES.neuron(0, 3),
    MEMORIES.layers[0],
    GraphDifferences("torch.export", 2000, dict.fromkeys(LAYERS, 9), dict.fromkeys(LAYERS, 9)),
    TensorMap([{layer: torch.rand(2, 3) for layer in LAYERS}] * 9, batched=True),
    *weights_of_heads(),
    *read_out_of_a_large_model(),
    *patches_of_a_large_model(),
    *areas_of_a_large_model(),
    *known_by_a_large_model(),
    *circuits_of_a_large_model(),
    *found_in_a_large_model(),
    *kept_by_a_bench(),
    ActivationCache({f"blocks.{layer}.attn.hook_attn_scores": torch.rand(1, 2) for layer in LAYERS}, None),
    chain(LAYERS[:9], [torch.rand(40, 40) for _ in range(8)]),
]


def subclasses(kind: type) -> Iterator[type]:
    for one in kind.__subclasses__():
        yield one
        yield from subclasses(one)


def test_all_results_of_the_library_are_among_those_that_are_tested():
    for module in pkgutil.walk_packages(toumei.__path__, "toumei."):
        importlib.import_module(module.name)
    results = {one for one in subclasses(Saved) if one.__module__.startswith("toumei.")}
    assert results - ELSEWHERE <= {type(result) for result in RESULTS}


def kind_of(result: object) -> str:
    return type(result).__name__


@pytest.mark.parametrize("result", RESULTS, ids=kind_of)
def test_a_result_of_real_size_is_a_line(result):
    text = repr(result)
    assert text.startswith(f"{type(result).__name__}(") and text.endswith(")")
    assert len(text) <= 200 and "\n" not in text and "tensor(" not in text, text
    assert max(map(len, str(result).splitlines())) <= 220


@pytest.mark.parametrize("result", [one for one in RESULTS if hasattr(one, "_repr_html_")], ids=kind_of)
def test_a_notebook_shows_a_result_of_real_size_as_a_small_page(result, monkeypatch):
    """Also when its texts hold tags and turned text; the figures that take seconds to draw are left out."""
    if kind_of(result) in SLOW_FIGURES:
        monkeypatch.setattr(type(result), "plot", lambda self: None)
    figures = pyplot.get_fignums()
    page = result._repr_html_()
    assert len(page) < 2_000_000 and "<script" not in page and pyplot.get_fignums() == figures
    assert all(
        address.startswith("data:image/png;base64,") for address in re.findall(r' src="([^"]*)"', page)
    )
    if type(result)._repr_html_ is Displayed._repr_html_:
        monkeypatch.setattr(type(result), "__str__", lambda self: "<script>1 & 2\u202e</script>")
        monkeypatch.setattr(type(result), "_drawn", lambda self: None)
        text = result._repr_html_()
        assert text == (
            '<div><pre style="white-space:pre-wrap">&lt;script&gt;1 &amp; 2\ufffd&lt;/script&gt;</pre></div>'
        )


def test_every_saved_result_has_a_page_for_notebooks():
    assert all(hasattr(result, "_repr_html_") for result in RESULTS if isinstance(result, Saved))
    shown = NullTest("modularity", 0.5, torch.rand(100), 3)._repr_html_()
    assert "NullTest(" in shown and shown.count("data:image/png;base64,iVBORw0K") == 1


def shrunk(value: object) -> object:
    """A value with one of each thing it holds: in long lists, along long axes, and the number 1."""
    if isinstance(value, torch.Tensor):
        small = value[tuple(slice(1 if size > 3 else size) for size in value.shape)]
        return small if small.is_floating_point() or small.dtype == torch.bool else small.clamp(max=0)
    if isinstance(value, dict):
        return {key: shrunk(one) for key, one in list(value.items())[:1]}
    if isinstance(value, tuple | list) and not hasattr(value, "_fields"):
        return type(value)(shrunk(one) for one in value[: 1 if len(value) > 3 else 3])
    if is_dataclass(value) and not isinstance(value, type):
        small = object.__new__(type(value))
        for one in fields(value):
            object.__setattr__(small, one.name, shrunk(getattr(value, one.name)))
        return small
    return 1 if type(value) is int else value


@pytest.mark.filterwarnings("ignore:.*degrees of freedom")
@pytest.mark.parametrize("result", [*filter(is_dataclass, RESULTS)], ids=kind_of)
def test_a_result_with_one_of_each_says_so_in_the_singular(result):
    small = shrunk(result)
    for text in (repr(small), str(small)):
        found = re.findall(r"(?<![\w.,-])1 ([a-z]+s)\b", text)
        assert set(found) <= {"is", "was", "has", "loss", "class", "pass", "bias", "axis"}, text


def test_long_texts_lose_their_middle_and_long_lists_their_end():
    assert shortened("abcdef", 6) == "abcdef"
    assert shortened("abcdefghij" * 10, 11) == "abcd...ghij" and len(shortened("x" * 999)) <= 60
    assert listed([1, 2]) == "1, 2" and listed(range(100), 2) == "0, 1 and 98 more" and listed([]) == ""


def test_only_a_number_that_is_shown_as_1_has_a_singular():
    assert [counted(number, "input") for number in (0, 1, 1.0, 2)] == [
        "0 inputs",
        "1 input",
        "1.0 inputs",
        "2 inputs",
    ]
    assert counted(1.2, "pass", form=".0f") == "1 pass" and counted(torch.tensor(1), "pass") == "1 pass"
    many = ("10 passes", "10 queries", "10 keys", "10 boxes", "10 patches", "10 indices")
    ones = ("pass", "query", "key", "box", "patch")
    assert (*(counted(10, one) for one in ones), counted(10, "index", "indices")) == many


def test_a_comparison_is_a_table_where_it_is_printed_and_in_a_notebook():
    table = Comparison(("<A>", "B"), {"inside": torch.tensor([[0.5, 0.7], [0.1, 0.3]])})
    assert repr(table) == "Comparison(2 methods by mass inside)"
    assert [line.split()[-1] for line in str(table).splitlines()] == ["inside", "0.600", "0.200"]
    page = table._repr_html_()
    assert page.count("<tr>") == 3 and page.count("<td>0.600</td>") == 1 and "&lt;A&gt;" in page


def planted(clusters: int = 3, size: int = 4) -> WeightGraph:
    """Layers whose units are joined within a cluster only."""
    weight = torch.block_diag(*[torch.ones(size, size) for _ in range(clusters)])
    return chain("abcd", [weight] * 3)


def test_the_modularity_of_a_model_is_a_number_with_its_communities():
    """Q of k equal clusters without edges between them is 1 - 1 / k."""
    found = ModelGraph(planted(3)).get_model_modularity()
    assert isinstance(found, float) and found == pytest.approx(2 / 3) and found + 1 == pytest.approx(5 / 3)
    assert str(found) == str(float(found)) and f"{found:.3f}" == "0.667"
    assert sorted(map(len, found.partition)) == [16, 16, 16] and found.ncut == pytest.approx(0, abs=1e-6)
    for again in (copy.deepcopy(found), pickle.loads(pickle.dumps(found))):
        assert (
            again == found and again.partition == found.partition and torch.equal(again.labels, found.labels)
        )


def test_printing_the_modularity_of_a_perceptron_is_one_short_line():
    found = MLPGraph(SimpleMLP(196, 98, 98)).get_model_modularity()
    assert len(str(found)) < 30 and len(repr(found)) <= 200


@pytest.mark.parametrize("method", ["spectral", "louvain", "greedy"])
def test_what_clusters_a_graph_is_taken_by_what_measures_it(method):
    torch.manual_seed(0)
    graph = ModelGraph(planted())
    found = graph.get_model_modularity(None if method == "louvain" else 3, method)
    for measured in (graph, planted()):
        assert modularity(measured, found) == pytest.approx(found)
        assert ncut(measured, found) == pytest.approx(found.ncut, abs=1e-9)
        assert ncut(measured, spectral_partition(measured, 3)) == pytest.approx(0, abs=1e-5)
    plot_layers(graph, found)
    plot_blocks(planted(), spectral_partition(graph, 3))


def test_a_network_stands_for_its_graph():
    torch.manual_seed(0)
    model = SimpleMLP(6, 8, 8, 4)
    graph = WeightGraph.from_model(model)
    partition = spectral_partition(model, 2)
    assert torch.equal(partition.labels, spectral_partition(graph, 2).labels)
    assert ncut(model, partition) == ncut(graph, partition.labels)
    assert modularity(model, partition) == modularity(graph, partition.labels)
    expected, found = (null_test(given, 2, samples=3) for given in (graph, model))
    assert found.value == expected.value and torch.equal(found.samples, expected.samples)
    inputs, classes = torch.randn(20, 6), torch.randint(0, 4, (20,))
    tests = [lesion_test(model, given, partition, inputs, classes, samples=2) for given in (graph, model)]
    assert tests[0] == tests[1] and str(tests[0]).count("\n") == len(tests[0].lesions)


def test_any_networkx_graph_is_measured_and_anything_else_is_refused():
    graph = nx.caveman_graph(2, 4)
    halves = [set(range(4)), set(range(4, 8))]
    assert modularity(graph, [0] * 4 + [1] * 4) == pytest.approx(nx.community.modularity(graph, halves))
    with pytest.raises(
        ArgumentError, match="a graph is a WeightGraph, a model or a networkx graph, got a list"
    ):
        ncut([[1.0]], [0])
    with pytest.raises(ShapeError, match="a label for each of 8 nodes"):
        ncut(graph, replace(spectral_partition(graph, 2), labels=torch.zeros(3, dtype=torch.long)))
    with pytest.raises(ArgumentError):
        null_test(nn.ReLU(), 2, samples=2)
