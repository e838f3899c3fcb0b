"""Functions of logits as metrics, wherever a metric is taken."""

import pytest
import torch

from toumei.core.errors import ArgumentError
from toumei.models import InductionTransformer
from toumei.transformers import HookedModel
from toumei.transformers.circuits import attribution_graph, circuit_checks, faithfulness_curves
from toumei.transformers.patching import activation_patching, head_ablation, logit_difference, path_patching

CLEAN, CORRUPT = torch.tensor([[0, 3, 1, 4, 3, 1]] * 2), torch.tensor([[0, 3, 2, 4, 3, 1]] * 2)


def difference(logits):
    return logits[:, 4] - logits[:, 5]


@pytest.fixture(scope="module")
def model():
    return HookedModel(InductionTransformer(vocabulary=8, positions=8))


@pytest.mark.parametrize("batch_size", [None, 1])
@pytest.mark.parametrize("method", ["eap", "eap-ig"])
def test_a_function_scores_edges_as_the_metric_does(model, method, batch_size):
    known, found = (
        attribution_graph(model, CLEAN, CORRUPT, metric, method, batch_size=batch_size)
        for metric in (logit_difference(4, 5), difference)
    )
    assert torch.allclose(known.scores, found.scores, equal_nan=True)
    assert (known.clean, found.metric) == (found.clean, "difference")


def test_a_function_patches_and_ablates_as_the_metric_does(model):
    graph = attribution_graph(model, CLEAN, CORRUPT, difference, "exact")
    for entry in (
        lambda metric: activation_patching(model, CLEAN, CORRUPT, metric, "z").values,
        lambda metric: path_patching(model, CLEAN, CORRUPT, metric).values,
        lambda metric: head_ablation(model, CLEAN, metric=metric).by_text,
        lambda metric: circuit_checks(model, graph.prune(3), CLEAN, CORRUPT, metric, sets=1).without,
        lambda metric: faithfulness_curves(model, {"a": graph}, CLEAN, CORRUPT, metric).values,
    ):
        assert torch.allclose(entry(logit_difference(4, 5)), entry(difference))


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        ("logit", "a function from logits"),
        (logit_difference, "takes logits"),
        (lambda logits: difference(logits).mean(), r"for each text, \(2,\)"),
        (lambda logits: logits[:, -1, 4], "takes logits"),
        (lambda logits: difference(logits).tolist(), "for each text"),
    ],
)
def test_what_is_no_number_for_each_text_is_refused(model, metric, message):
    with pytest.raises(ArgumentError, match=message):
        attribution_graph(model, CLEAN, CORRUPT, metric)
