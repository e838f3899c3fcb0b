"""Valid calls of surgery, and of what reads and steers the knowledge of a model."""

from functools import cache

import torch

import toumei.transformers as trans
import toumei.transformers.knowledge as knowledge
import toumei.transformers.surgery as surgery

from .of_heads import hooked
from .small_models import QUIET, text, world

PART = {"length": 8, "max_tokens": 16, "batch_size": 1}


def texts():
    return [fact.text for fact in world()[2].facts[:8]]


def layers():
    model = text()[0]["model"]
    yield surgery.arrange_layers, {"model": model, "order": [0, 1, 1, 2]}
    yield surgery.delete_layers, {"model": model, "layers": [1, 3]}
    yield surgery.permute_layers, {"model": model, "order": [1, 0, 2, 3, 4, 5]}
    yield surgery.repeat_layers, {"model": model, "layers": [0], "times": 3}
    yield surgery.replace_layers, {"model": model, "replacements": {1: 2}}
    yield surgery.transplant_layers, {"model": model, "donor": model, "layers": {0: 1}}
    yield surgery.revert_surgeries, {"model": model}
    parts = {**text()[0], "texts": texts(), **PART, **QUIET}
    yield surgery.perplexity_by_layer, {**parts, "change": "swap", "layers": [0, 2]}
    found = surgery.perplexity_by_layer(**parts)
    yield found.least, {"k": 2}
    yield found.plot, {"ax": None}


def parts_of_layers():
    model = text()[0]["model"]
    yield surgery.prune_heads, {"model": model, "heads": {0: [1, 2]}}
    yield surgery.copy_heads, {"model": model, "heads": {(0, 1): (1, 0)}, "donor": model}
    yield surgery.merge_heads, {"model": model, "layer": 0, "head": 1, "other": 2}
    yield surgery.prune_neurons, {"model": model, "neurons": {2: [0, 5]}}


@cache
def probed():
    settings = {"names": [("resid_post", 0)], "random_baseline": False}
    return knowledge.KnowledgeProber(hooked(), splits=2)(texts(), [0, 1] * 4, **settings)


def probes():
    settings = {"kind": "linear", "splits": 2, "seed": 0, "confidence": 0.9, "batch_size": 4}
    yield knowledge.KnowledgeProber, {"model": hooked(), **settings}
    asked = {"texts": texts(), "labels": [0, 1] * 4, "names": [("resid_post", 0)], "position": "mean"}
    given = {"groups": list(range(8)), "types": list("abcdefgh"), "control": True, "random_baseline": False}
    yield knowledge.KnowledgeProber(hooked(), splits=2), {**asked, **given, **QUIET}
    yield probed().best, {"k": 1}
    yield probed().plot, {"ax": None}


def graphs():
    extractor = knowledge.KnowledgeGraphExtractor(hooked())
    yield knowledge.KnowledgeGraphExtractor, {"model": hooked(), "batch_size": 4}
    facts = [fact for fact in world()[2].facts if fact.relation == "seat"][:8]
    subjects, targets = ([getattr(fact, name) for fact in facts] for name in ("subject", "target"))
    asked = {"subjects": {"seat": subjects}, "templates": {"seat": facts[0].prompt}}
    yield extractor.from_prompts, {**asked, "objects": {"seat": list(dict.fromkeys(targets))}, **QUIET}
    known = [(subject, "seat", target) for subject, target in zip(subjects, targets, strict=True)]
    heads = {"known": known, "read": "stream", "choose": 0.5, "seed": 0, **QUIET}
    yield extractor.from_heads, heads
    graph, found = extractor.from_prompts(**asked), extractor.from_heads(**heads)
    yield graph.above, {"score": 0.1}
    yield graph.about, {"names": subjects[:1]}
    yield graph.compared, {"known": known}
    yield graph.plot, {"ax": None}
    yield graph.compared(known).plot, {"ax": None}
    yield found.head_of, {"relation": "seat"}
    yield found.plot, {"ax": None}


def entered(vector):
    """A pass of the model while it is steered."""

    def run(**given):
        with vector.steering(**given) as model:
            return model("a")

    return run


def directions():
    kinds = {"positive": texts()[:2], "negative": texts()[2:4], "name": ("resid_post", 1)}
    yield knowledge.steering_vector, {"model": hooked(), **kinds, "position": "last", "batch_size": 2}
    vector = knowledge.steering_vector(hooked(), **kinds)
    yield entered(vector), {"model": hooked(), "strength": 0.5}
    swept = {"vector": vector, "prompts": [[5, 6]], "metric": trans.logit_difference(4, 5), "texts": texts()}
    settings = {"strengths": [1.0], **PART, **QUIET}
    yield knowledge.steering_sweep, {"model": hooked(), **swept, **settings}
    found = knowledge.steering_sweep(hooked(), **swept, **settings)
    yield found.within, {"cost": 0.5}
    yield found.plot, {"ax": None}


def changed_and_known():
    torch.manual_seed(0)
    for part in (layers, parts_of_layers, probes, graphs, directions):
        yield from part()
