"""Classifiers: right on planted categories, at chance on shuffled ones, whatever is fitted before them."""

import pytest
import torch
from area_helpers import areas_of

from toumei.core.errors import ArgumentError
from toumei.transformers.areas import PCA, ActivationAreas, AreaEvaluation, Evaluation
from toumei.transformers.areas.evaluation import evaluated
from toumei.transformers.areas.llm_mri_names import METRICS


def random_states(texts, width, seed=0):
    return torch.randn(texts, width, generator=torch.Generator().manual_seed(seed))


def run(states, labels, groups=None, reduction=None, **options):
    groups = torch.arange(len(labels)) if groups is None else groups
    return evaluated({"block": states}, labels, groups, reduction or PCA(), **options)


def test_planted_categories_are_told_apart():
    labels = torch.arange(60) % 2
    found = run(random_states(60, 8) + 6.0 * labels[:, None], labels)
    assert found.states.mean() == 1 and found.maps.mean() == 1 and found.chance == 0.5


def test_shuffled_categories_are_at_chance_with_far_more_numbers_than_texts():
    scores = []
    for seed in range(4):
        labels = torch.randperm(60, generator=torch.Generator().manual_seed(seed)) % 2
        found = run(random_states(60, 300, seed), labels, reduction=PCA(20), seed=seed)
        scores.append(torch.stack([found.states.mean(), found.maps.mean()]))
    assert (torch.stack(scores).mean(0) - 0.5).abs().max() < 4 * 0.5 / (4 * 60) ** 0.5


def test_texts_of_a_group_are_never_on_both_sides():
    groups = torch.arange(80) // 4
    labels = (torch.randperm(20, generator=torch.Generator().manual_seed(0)) % 2)[groups]
    states = random_states(20, 60)[groups] + 0.01 * random_states(80, 60, seed=1)
    single = run(states, labels)
    whole = run(states, labels, groups)
    assert single.states.mean() > 0.95  # a text knows its copies
    assert whole.states.mean() < 0.75


def test_results_are_kept_and_shown(tmp_path):
    labels = torch.arange(60) % 3
    found = run(random_states(60, 8) + 3.0 * labels[:, None], labels, folds=3)
    found.save(tmp_path / "evaluation.safetensors")
    again = AreaEvaluation.load(tmp_path / "evaluation.safetensors")
    assert str(again) == str(found) and "33.3%" in str(found) and found.states.shape == (1, 3)
    assert found.plot().get_ylabel() == "balanced accuracy"


def processed(states, labels, groups=None):
    """What `Evaluation` needs of activation areas."""
    areas = areas_of(torch.zeros(1, len(labels), 2), labels, groups=groups, layers=("block",))
    found = object.__new__(ActivationAreas)
    found.reduction, found.keep_states = PCA(), True
    found._areas, found._states = areas, {"block": states}
    return found


def test_differences_under_the_names_of_llm_mri():
    labels = torch.arange(60) % 2
    states = random_states(60, 30)
    states[:, 29] += 4.0 * labels  # one number of thirty, which two components do not see
    evaluation = Evaluation(activation_areas=processed(states, labels))
    found = evaluation.evaluate_model(n_splits=3, test_size=0.3, random_state=42)
    assert set(found) == set(METRICS) and found["accuracy"] > 0.1
    more = evaluation.evaluate_model(n_splits=3, n_components=30, metrics="accuracy")
    assert set(more) == {"accuracy"} and more["accuracy"] < found["accuracy"]
    figure = evaluation.display_metrics(found)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == list(found)[::-1]


def test_what_cannot_be_evaluated():
    with pytest.raises(ArgumentError, match="two categories or more"):
        run(random_states(10, 4), torch.zeros(10, dtype=torch.long))
    with pytest.raises(ArgumentError, match="the smallest category has 2 texts, too few for 5 folds"):
        run(random_states(10, 4), torch.tensor([0] * 8 + [1] * 2))
    with pytest.raises(ArgumentError, match="has 2 groups, too few for 3 folds"):
        run(random_states(12, 4), torch.arange(12) % 2, torch.arange(12) % 4, folds=3)
    evaluation = Evaluation(processed(random_states(20, 4), torch.arange(20) % 2))
    with pytest.raises(ArgumentError, match="no scorer 'acuracy'"):
        evaluation.evaluate_model(metrics="acuracy")
    with pytest.raises(ArgumentError, match="test_size is a share"):
        evaluation.evaluate_model(test_size=2.0)
    with pytest.raises(ArgumentError, match="activation_areas is an? ActivationAreas"):
        Evaluation(3)
