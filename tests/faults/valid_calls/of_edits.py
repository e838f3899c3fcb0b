"""Valid calls of what edits and traces facts, of what keeps edits, and of models from folders."""

import tempfile
import warnings
from functools import cache

import torch

import toumei.transformers as trans
import toumei.transformers.features as feats
import toumei.transformers.rome.evaluation as ev
import toumei.transformers.tools as tools
from toumei.transformers.rome.editing.edit import Edit

from .of_heads import hooked
from .of_instrument import writing
from .small_models import QUIET, text, world


def facts():
    return [(fact.prompt, fact.subject, fact.target) for fact in world()[2].facts[:2]]


@cache
def statistics(first=0):
    texts = [fact.text for fact in world()[2].facts[first : first + 2]]
    return trans.collect_statistics(**text()[0], texts=texts, layers=[1], verbose=False)


@cache
def editor():
    return trans.RankOneEditor(**text()[0], contexts=())


@cache
def edited():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it has no statistics, and does not take
        return editor().edit(*facts()[0], layer=1, steps=1)


def reverted(**given):
    """An edit that is applied and taken back."""
    edit = edited()
    edit.apply()
    try:
        edit.revert(**given)
    finally:
        if edit.applied:
            edit.revert(force=True)


def edits():
    settings = {"steps": 1, "lr": 0.5, "clamp": 4.0, "kl": 0.1}
    prompt, subject, target = facts()[0]
    named = {"prompt": prompt, "subject": subject, "target": target}
    yield editor().edit, {**named, "layer": 1, "method": "rome", "hold": 0, **QUIET, **settings}
    many = {"requests": facts(), "layers": [1], "method": "memit", "hold": ()}
    yield editor().edit_many, {**many, **QUIET, **settings}
    yield editor().load, {"path": "no such file"}
    yield trans.EditRequest.of, {"given": facts()[0]}
    yield reverted, {"force": False}
    yield writing(edited().save), {"path": "edit.safetensors"}
    yield Edit.load, {"path": "no such file", "model": world()[0]}
    yield statistics().merge, {"other": statistics(2)}
    yield statistics().check, {"model": world()[0], "layers": [1]}
    yield statistics().__getitem__, {"layer": 1}
    yield writing(statistics().save), {"path": "statistics.safetensors"}
    yield trans.KeyStatistics.load, {"path": "no such file", "model": world()[0]}
    measured = ev.evaluate(**text()[0], cases=ev.world_cases(world()[2], 1), generate_tokens=0)
    for ask in (measured.mean, measured.interval, measured.text):
        yield ask, {"metric": "efficacy"}
    yield measured.plot, {"ax": None}


def traces():
    tracer, fact = trans.CausalTracer(**text()[0]), world()[2].facts[0]
    asked = {"prompt": fact.prompt, "subject": fact.subject, "answer": fact.target, "foil": None}
    settings = trans.TraceSettings(samples=1, window=2)
    yield tracer.trace_with, {"settings": settings, **asked}
    noise = {"noise": 3.0, "kind": "mlp", "window": 2, "sever": None, "samples": 1, "seed": 1}
    many = {"facts": [(fact.prompt, fact.subject, fact.target)], "batch_size": 4, "jobs": 1, "folder": None}
    yield tracer.trace_many, {**many, **noise, **QUIET}
    trace = tracer.trace_with(settings, fact.prompt, fact.subject)
    yield trace.__getitem__, {"name": "scores"}
    yield trace.plot, {"ax": None, "limits": (0.0, 1.0)}
    yield writing(trace.save), {"path": "trace.safetensors"}
    average = tracer.trace_many(many["facts"], samples=1)
    yield average.plot, {"ax": None}
    yield average.plot_heatmap, {"ax": None, "limits": (0.0, 1.0)}


@cache
def kept():
    """A tiny model in a folder, without its tokenizer."""
    sizes = {"vocab_size": 16, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    folder = tempfile.mkdtemp()
    config = trans.HookedAutoConfig("gpt-neox", intermediate_size=8, **sizes)
    trans.HookedAutoModel(config).model.save_pretrained(folder)
    return folder


def kept_models():
    given = {"name_or_path": kept(), "dtype": "float32"}
    yield trans.HookedModel.from_pretrained, given
    yield trans.HookedAutoModel.from_pretrained, given
    with torch.no_grad():
        cached = hooked().run_with_cache(world()[2].facts[0].prompt, ["resid_post"])[1]
    yield writing(cached.save), {"path": "cache.safetensors"}
    yield trans.ActivationCache.load, {"path": "no such file"}
    source = trans.ActivationSource(hooked(), [fact.text for fact in world()[2].facts[:4]], ("mlp_out", 1))
    yield (lambda seed: next(iter(source.blocks(seed)))), {"seed": 0}
    yield (lambda seed: next(iter(feats.SyntheticFeatures(5, 4).blocks(seed)))), {"seed": 0}
    prober = tools.KnowledgeProber(hooked())
    texts = [fact.text for fact in world()[2].facts[:12]]
    yield prober.probe, {"texts": texts, "labels": [0, 1] * 6, "kind": "linear"}
    ids = torch.tensor([[5, 6, 7]])
    yield trans.patching.kl_to_clean().reading, {"model": hooked(), "ids": ids, "clean": torch.rand(1, 3, 9)}
    yield feats.match_features(torch.eye(4), torch.eye(4)).share_above, {"cosine": 0.9}


def edits_and_traces():
    for part in (edits, traces, kept_models):
        yield from part()
