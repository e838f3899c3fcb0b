"""Valid calls of lenses, tracing and editing."""

import torch

import toumei.transformers as trans
import toumei.transformers.heads as heads
import toumei.transformers.model as lm
import toumei.transformers.rome.evaluation as ev

from .small_models import QUIET, text, world


def language():
    parts, fact = text()
    prompt = fact.prompt.format(fact.subject)
    request = {"prompt": fact.prompt, "subject": fact.subject, "target": fact.target}
    yield trans.anatomy, {"model": parts["model"]}
    yield trans.logit_lens, {**parts, "prompt": prompt, "answer": fact.target, "top": 2}
    yield trans.EditRequest, request
    yield trans.EditSettings, {"layers": (1,), "steps": 2, "lr": 0.5, "clamp": 4.0, "kl": 0.1}
    yield trans.TraceSettings, {"kind": "hidden", "window": 2, "samples": 2, "seed": 1, "batch_size": 2}
    yield trans.EmbeddingNoise, {"scale": 3.0, "shape": "gaussian", "level": None, "replace": False}
    yield trans.CausalTracer, parts
    yield trans.RankOneEditor, {**parts, "statistics": None, "contexts": (), "seed": 0, "batch_size": 2}
    yield (
        trans.collect_statistics,
        {
            **{**parts, "texts": [prompt], "layers": [1], "batch_size": 1, "max_length": 8},
            **{"jobs": 1, **QUIET},
        },
    )
    hooked = trans.HookedModel(**parts)
    cached = {"model": hooked, "texts": [prompt], "names": ("z", 1), "batch_size": 1}
    yield trans.cache_many, {**cached, "jobs": 1, "folder": None, **QUIET}
    yield trans.revert_all, {"model": parts["model"]}
    anatomy = trans.anatomy(parts["model"])
    yield (
        lm.score_answers,
        {
            **{"parts": anatomy, "tokenizer": parts["tokenizer"], "questions": [(prompt, fact.target)]},
            "batch_size": 1,
        },
    )
    yield lm.continuation, {"tokenizer": parts["tokenizer"], "prompt": prompt, "text": fact.target}
    yield lm.tokenize, {"tokenizer": parts["tokenizer"], "prompt": prompt}
    yield lm.token_roles, {"count": 5, "subject": (1, 3)}
    yield (
        ev.generate,
        {**{"parts": anatomy, "tokenizer": parts["tokenizer"], "prompts": [prompt], "length": 8, "seed": 0}},
    )
    yield ev.world_cases, {"world": world()[2], "count": 2, "seed": 0}
    cases = ev.world_cases(world()[2], 1)
    yield ev.evaluate, {**parts, "cases": cases, "batch_size": 8, "generate_tokens": 0, "seed": 0}
    yield ev.entropy, {"text": "a b c d"}
    tracer = trans.CausalTracer(**parts)
    yield tracer.trace, {"prompt": fact.prompt, "subject": fact.subject, "answer": fact.target}
    yield tracer.knows, {"prompt": prompt, "answer": fact.target}
    repeats = {"batch": 2, "length": 3, "low": 1, "high": 9, "bos": 0, "seed": 0}
    yield heads.repeated_tokens, repeats
    weights = {"attentions": [torch.rand(2, 3, 7, 7).softmax(-1)], "mask": torch.ones(2, 7)}
    scores = {**weights, "tokens": heads.repeated_tokens(**repeats)}
    yield heads.head_scores, scores
    yield heads.head_scores(**scores).top, {"score": "induction", "k": 2}
    yield heads.head_scores(**scores).plot, {"score": "entropy"}
    yield heads.attention_rollout, {**weights, "without_first": True}
    yield heads.attention_flow, {**weights, "positions": [0], "without_first": False, **QUIET}
