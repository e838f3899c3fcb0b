"""Valid calls of what finds, runs and shows circuits, of an induction head that is wired by hand."""

from functools import cache

import torch

import toumei.models as models
import toumei.transformers as trans
import toumei.transformers.circuits as circuits
from toumei.transformers.patching import logit_difference

CLEAN, CORRUPT = torch.tensor([[0, 3, 1, 4, 3, 1]]), torch.tensor([[0, 3, 2, 4, 3, 1]])


@cache
def hooked():
    return trans.HookedModel(models.InductionTransformer(vocabulary=8, positions=8))


@cache
def graph():
    return circuits.attribution_graph(hooked(), CLEAN, CORRUPT, logit_difference(4, 5), "eap")


def words():
    """Pairs of a task, with the tokenizer of facts, which knows few of the words."""
    from tokenizers import Regex, Tokenizer, pre_tokenizers
    from tokenizers import models as kinds
    from transformers import PreTrainedTokenizerFast

    known = [*circuits.tasks.NAMES, *circuits.tasks.PLACES, *circuits.tasks.OBJECTS, *circuits.tasks.NOUNS]
    known += [*"0123456789", "When", "and", "went", "to", "the", "gave", "a", "The", "lasted", "from", "year"]
    inner = Tokenizer(kinds.WordLevel({word: index for index, word in enumerate(["?", *known])}, "?"))
    inner.pre_tokenizer = pre_tokenizers.Split(Regex(r"\d|[A-Za-z]+"), "removed", invert=True)
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="?")


def found():
    pair = {"model": hooked(), "clean": CLEAN, "corrupt": CORRUPT, "metric": logit_difference(4, 5)}
    settings = {"ablation": "resample", "batch_size": 2, "verbose": False}
    search = {**pair, **settings, "steps": 2, "direction": "noising", "seed": 0}
    yield circuits.attribution_graph, {**search, "method": "eap-ig"}
    patch = {"method": "exact", "edges": ["embed->logits", "a0.0->a1.0<k>"], "sample": 1}
    yield circuits.attribution_graph, {**search, **patch}
    yield circuits.acdc, {**pair, **settings, "threshold": 1.0}
    circuit = graph().prune(edges=3)
    curve = {"graphs": {"eap": graph()}, "shares": [0.1, 1.0], "random": 1, "seed": 0}
    yield circuits.faithfulness_curves, {**pair, **settings, **curve}
    yield circuits.circuit_checks, {**pair, **settings, "circuit": circuit, "sets": 1, "random": 1, "seed": 0}
    run = {**pair, "circuit": circuit, "ablation": "zero", "batch_size": 1}
    yield circuits.run_circuit, {name: one for name, one in run.items() if name != "metric"}
    for task in (circuits.indirect_objects, circuits.greater_than):
        yield task, {"tokenizer": words(), "count": 2, "seed": 0}
    yield circuits.PromptPairs, {"clean": ("a",), "corrupt": ("b",), "metric": logit_difference(4, 5)}


def shown():
    circuit = graph().prune(edges=3)
    yield graph().prune, {"edges": 3, "share": None, "threshold": None}
    yield graph().top, {"k": 2}
    yield graph().__getitem__, {"edge": "a1.0->logits"}
    yield graph().auroc, {"edges": ["a1.0->logits"]}
    yield graph().plot, {"ax": None, "edges": 3}
    yield circuit.without, {"nodes": ["a0.0"]}
    yield circuit.with_edges, {"edges": ["a1.0->logits"]}
    yield circuit.random, {"seed": 1}
    yield circuit.plot, {"ax": None}
    curves = circuits.faithfulness_curves(
        hooked(), {"eap": graph()}, CLEAN, CORRUPT, logit_difference(4, 5), shares=[0.5, 1.0], random=1
    )
    yield curves.at, {"method": "eap", "share": 0.5}
    yield curves.plot, {"ax": None}


def edges_of_transformers():
    yield from found()
    yield from shown()
