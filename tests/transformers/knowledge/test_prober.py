"""Probes find what was planted, and nothing where there is nothing to find."""

import pytest
import torch
from architectures import TOKENS
from matplotlib import pyplot

from toumei.core.errors import ArchitectureError, ArgumentError, LayerError
from toumei.models import InductionTransformer
from toumei.transformers import HookedModel
from toumei.transformers.knowledge import KnowledgeProber, ProbeResult
from toumei.transformers.knowledge.classifiers import Probes, control_labels
from toumei.transformers.knowledge.features import read_features
from toumei.transformers.knowledge.random_weights import random_model

DRAW = torch.Generator().manual_seed(0)
ROWS = [row.tolist() for row in torch.randint(3, TOKENS, (60, 5), generator=DRAW)]
NAMES = ["resid_post"]


@pytest.fixture
def model(language_model):
    return HookedModel(language_model("gpt2"))


def test_a_planted_label_is_found_and_a_control_is_not(model):
    draw = torch.Generator().manual_seed(1)
    rows = torch.randint(3, TOKENS, (240, 5), generator=draw).tolist()
    with torch.no_grad():
        read = read_features(model, rows, [("resid_post", 1)])
    planted = (read.values[0] @ torch.randn(32, generator=draw) > 0).tolist()
    prober = KnowledgeProber(model, splits=3)
    found = prober(rows, planted, names=[("resid_post", 1)], random_baseline=False)
    assert found.accuracy[0] > 0.8 and found.intervals[0, 0] > 0.6
    assert found.selectivity[0] == found.accuracy[0] - found.control_accuracy[0]
    noise = torch.randint(0, 2, (60,), generator=torch.Generator().manual_seed(2)).tolist()
    nothing = prober(ROWS, noise, names=[("resid_post", 1)], types=range(60), random_baseline=False)
    low, high = nothing.selectivity_intervals[0].tolist()
    assert low < float(nothing.selectivity[0]) < high and abs(float(nothing.selectivity[0])) < 0.35
    assert found.accuracy[0] > nothing.accuracy[0] + 0.2


def test_a_probe_that_learns_words_by_heart_is_not_selective(model):
    """The label follows from the token: a probe of tokens knows the control task as well."""
    rows = [[3 + number % 4] for number in range(48)]
    labels = ["even" if number % 2 else "odd" for number in range(48)]
    found = KnowledgeProber(model, splits=3)(rows, labels, names=[("resid_pre", 0)], random_baseline=False)
    assert found.accuracy[0] == 1 and found.control_accuracy[0] == 1 and found.selectivity[0] == 0


def test_random_weights_are_those_of_the_architecture(model):
    before = {name: one.clone() for name, one in model.model.state_dict().items()}
    one, same, other = (random_model(model, seed) for seed in (0, 0, 1))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.model.state_dict().items())
    weights = [each.model.transformer.h[0].mlp.c_fc.weight for each in (one, same, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    found = KnowledgeProber(model, splits=3)(ROWS, [row[-1] % 2 for row in ROWS], names=NAMES)
    assert found.random.shape == found.correct.shape == (3, 60) and len(found.control) == 3
    with pytest.raises(ArchitectureError, match="random_baseline"):
        random_model(HookedModel(InductionTransformer()), 0)


def test_no_group_is_in_both_parts():
    labels, groups = torch.arange(40) % 2, torch.arange(40) // 4
    probes = Probes(labels, groups, "linear", 5, 0)
    for train, test in probes._folds:
        assert not set(groups[train].tolist()) & set(groups[test].tolist())
    features = torch.nn.functional.one_hot(groups).float()  # groups alone say nothing about others
    assert probes.correct(features, groups % 2).float().mean() <= 0.5


def test_control_labels_are_one_for_each_type():
    types = torch.arange(200) % 20
    labels = (torch.arange(200) % 10 == 0).long()
    control = control_labels(types.tolist(), labels, 0)
    assert all(len(control[types == one].unique()) == 1 for one in range(20))
    assert torch.equal(control, control_labels(types.tolist(), labels, 0))
    many = control_labels(range(4000), labels, 1).float().mean()
    assert many == pytest.approx(0.1, abs=0.02)  # drawn from the distribution of the labels


def test_positions(model):
    rows = [[5, 6, 7], [8, 9], [10, 11, 12, 13]]
    whole = read_features(model, rows, [("resid_post", 0)], "token")
    assert whole.texts.tolist() == [0, 0, 0, 1, 1, 2, 2, 2, 2]
    assert whole.tokens.tolist() == [token for row in rows for token in row]
    for position, places in (("last", [2, 4, 8]), (0, [0, 3, 5]), ([1, -1, 2], [1, 4, 7])):
        found = read_features(model, rows, [("resid_post", 0)], position, batch_size=2)
        assert torch.allclose(found.values[0], whole.values[0][places], atol=1e-5)
    mean = read_features(model, rows, [("resid_post", 0)], "mean").values[0]
    assert torch.allclose(mean[1], whole.values[0][3:5].mean(0), atol=1e-5)


def test_each_token_may_have_a_label(model):
    labels = [[None, *(token % 2 for token in row[1:])] for row in ROWS]
    found = KnowledgeProber(model, splits=3)(
        ROWS, labels, names=[("resid_pre", 0)], position="token", random_baseline=False
    )
    assert found.correct.shape == (1, 240) and len(found.groups.unique()) == 60


def test_an_mlp_knows_what_a_line_does_not_divide():
    draw = torch.Generator().manual_seed(0)
    points = torch.rand(200, 2, generator=draw) * 2 - 1
    labels = (points[:, 0] * points[:, 1] > 0).long()  # exclusive or
    linear, mlp = (
        Probes(labels, torch.arange(200), kind, 3, 0).correct(points, labels).float().mean()
        for kind in ("linear", "mlp")
    )
    assert linear < 0.65 < 0.85 < mlp


def test_results_are_kept_and_drawn(model, tmp_path):
    found = KnowledgeProber(model, splits=3, confidence=0.9)(ROWS, [row[-1] % 2 for row in ROWS], names=NAMES)
    found.save(tmp_path / "probes.safetensors")
    loaded = ProbeResult.load(tmp_path / "probes.safetensors")
    assert torch.equal(loaded.correct, found.correct) and str(loaded) == str(found)
    ax = found.plot()
    assert [text.get_text() for text in ax.get_xticklabels()] == ["0", "1", "2"]
    assert found.best(3)[0] in found.names and len(found) == 3
    wide = KnowledgeProber(model, splits=3, confidence=0.99)(
        ROWS, [row[-1] % 2 for row in ROWS], names=NAMES, control=False, random_baseline=False
    )
    width = [float((each.intervals[:, 1] - each.intervals[:, 0]).mean()) for each in (wide, found)]
    assert width[0] > width[1]
    with pytest.raises(ArgumentError, match="control=True"):
        wide.selectivity  # noqa: B018
    assert wide.plot() is not ax and "best" in repr(wide)
    pyplot.close("all")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"labels": [0]}, ArgumentError, "labels of 60 texts, got 1"),
        ({"labels": [0] * 60}, ArgumentError, "two or more"),
        ({"labels": [*[0] * 59, 1]}, ArgumentError, "1 has 1 example,"),
        ({"labels": [*[0, 1] * 29, 1, None]}, ArgumentError, "text 59 has no label"),
        ({"labels": [0.0, float("nan"), *[0.0, 1.0] * 29]}, ArgumentError, "text 1 has no label"),
        ({"groups": [0] * 30 + [1] * 30}, ArgumentError, "splits"),
        ({"groups": [1]}, ArgumentError, "groups of 60"),
        ({"types": [1]}, ArgumentError, "types of 60"),
        ({"position": "first"}, ArgumentError, "position"),
        ({"position": 9}, ArgumentError, "no position 9"),
        ({"position": [1, 2]}, ArgumentError, "60 texts"),
        ({"position": "token"}, ArgumentError, "a label for each"),
        ({"names": "resid_past"}, LayerError, "resid_past"),
        ({"names": [("pattern", 0)]}, ArgumentError, "positions"),
    ],
)
def test_bad_input(model, options, error, message):
    given = {"texts": ROWS, "labels": [0, 1] * 30, "names": NAMES, "random_baseline": False, **options}
    with pytest.raises(error, match=message):
        KnowledgeProber(model, splits=3)(**given)


@pytest.mark.parametrize("options", [{"kind": "tree"}, {"splits": 1}, {"confidence": 1.0}, {"batch_size": 0}])
def test_bad_settings(model, options):
    with pytest.raises(ArgumentError):
        KnowledgeProber(model, **options)
