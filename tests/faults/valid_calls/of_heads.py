"""Valid calls of the weights of attention heads and of what is computed from them."""

from functools import cache

import torch

import toumei.transformers as trans
import toumei.transformers.heads as heads

from .small_models import QUIET, text


@cache
def hooked():
    return trans.HookedModel(**text()[0])


def composition(**given):
    """The highest scores of pairs of heads; all others have none."""
    return heads.composition_scores(**given).top("k")


def circuits():
    model = hooked()
    one_layer = {"model": model, "layer": 0, "fold_norms": True, "dtype": torch.float32}
    yield heads.head_weights, one_layer
    yield heads.qk_circuit, {**one_layer, "distance": 0, "vocabulary": True}
    yield heads.ov_circuit, {**one_layer, "vocabulary": True}
    for score in (heads.copying_scores, heads.matching_scores):
        yield score, {"model": model, "fold_norms": True}
    yield composition, {"model": model, "subtract_baseline": True, "fold_norms": True, **QUIET}
    yield heads.embedding_weights, {"model": model, "dtype": torch.float32}
    yield heads.unembedding_weights, {"model": model, "fold_norm": True, "dtype": torch.float32}
    direction = {"model": model, "direction": torch.ones(128), "relative": True, "fold_norms": True}
    yield heads.write_strengths, direction
    yield heads.read_strengths, {**direction, "by": "q"}
    circuit = heads.ov_circuit(model, 0, vocabulary=True)
    yield heads.top_token_pairs, {"model": model, "circuit": circuit[0], "k": 2, "largest": False}
    settings = {"circuit": "qk", "vectors": 2, "k": 3, "fold_norms": True}
    yield heads.singular_read_out, {"model": model, "layer": 0, "head": 1, **settings}
    found = heads.singular_read_out(model, 0, 1, vectors=2, k=2)
    yield found.plot, {"ax": None}


def tables():
    model = hooked()
    values = heads.copying_scores(model)
    yield values.__getitem__, {"head": "0.1"}
    yield values.top, {"k": 2}
    yield values.plot, {"ax": None}
    scores = heads.composition_scores(model, verbose=False)
    yield scores.top, {"kind": "q", "k": 2}
    yield scores.plot, {"kind": "v", "ax": None}
    yield (lambda kind: scores[kind][0, :, 1]), {"kind": "q"}


def factored():
    yield heads.FactoredMatrix, {"A": torch.ones(2, 4, 3), "B": torch.ones(2, 3, 4)}
    matrix = heads.FactoredMatrix(torch.rand(2, 4, 3), torch.rand(2, 3, 4))
    yield matrix.__getitem__, {"index": 0}
    yield matrix.__matmul__, {"other": torch.ones(4, 2)}
    yield matrix.__rmatmul__, {"other": torch.ones(2, 4)}
    yield matrix.rows, {"index": [0, 1]}
    yield matrix.columns, {"index": slice(2)}


def weights():
    for part in (circuits, tables, factored):
        yield from part()
