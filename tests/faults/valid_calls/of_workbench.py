"""Valid calls of hooked models and of their caches."""

import torch

import toumei.transformers as trans

from .small_models import text


def workbench():
    parts, fact = text()
    prompt = fact.prompt.format(fact.subject)
    hooked = trans.HookedModel(**parts)
    yield trans.HookedModel, parts
    sizes = {"vocab_size": 16, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    yield trans.HookedAutoConfig, {"name": "stable-lm", "intermediate_size": 8, **sizes}
    config = trans.HookedAutoConfig("gpt-neox", intermediate_size=8, **sizes)
    yield trans.HookedAutoModel, {"config": config, "tokenizer": None, "seed": 0}
    yield hooked, {"given": prompt}
    yield hooked.to_tokens, {"given": [prompt]}
    yield hooked.to_str_tokens, {"given": prompt}
    keeping = {"given": prompt, "names": ["pattern", ("z", 1)], "remove_batch_dim": False}
    yield hooked.run_with_cache, keeping
    yield hooked.run_with_cache, {**keeping, "metric": lambda logits: logits[0, -1, 0]}

    def edited(edits):
        with hooked.edit(edits):
            return hooked(prompt)

    yield edited, {"edits": {("z", 0): torch.zeros_like}}
    yield hooked.run_with_hooks, {"given": prompt, "fwd_hooks": [("mlp_out", torch.zeros_like)]}
    yield hooked.generate, {"given": prompt, "max_new_tokens": 2}
    with torch.no_grad():
        cache = hooked.run_with_cache(prompt)[1]
    yield cache.__getitem__, {"key": ("pattern", 0)}
    yield cache.rows, {"rows": slice(0, 1)}
    yield cache.to, {"device": "cpu"}
    page = {"layer": 0, "tokens": hooked.to_str_tokens(prompt), "title": "Heads", "most_tokens": 64}
    yield trans.attention_page, {"cache": cache, **page}
    yield cache.stack_activation, {"name": "resid_post"}
    yield cache.accumulated_resid, {"layer": 1, "incl_mid": True}
    yield cache.decompose_resid, {"layer": 1, "mode": "all"}
    yield cache.stack_head_results, {"layer": 1, "biases": True}
