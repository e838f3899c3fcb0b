"""Where planted heads attend to, and what they are called."""

from math import log

import pytest
import torch

from toumei.instrument.heads.behaviours import HeadBehaviours, behaviours_of_text

TOKENS = 60


def planted():
    """Heads (6, tokens, tokens), each with one behaviour: all of `LABELS` in order."""
    eye = torch.eye(TOKENS)
    first, separator, comma = (eye[place].expand(TOKENS, TOKENS) for place in (0, TOKENS - 1, 20))
    after, before = eye.roll(1, 1), eye.roll(-1, 1)
    return torch.stack([after, before, torch.full((TOKENS, TOKENS), 1 / TOKENS), first, separator, comma])


def masks():
    places = torch.arange(TOKENS)
    return places == TOKENS - 1, places == 20


def means(weights, *masks):
    sums = behaviours_of_text(weights, *masks)
    return HeadBehaviours(
        **{"separator": None, "punctuation": None, **{n: v / weights.shape[1] for n, v in sums.items()}}
    )


def test_planted_heads_get_the_label_of_what_they_do():
    found = means(planted(), *masks()).labels()
    assert found == ("next", "previous", "broad", "first", "separator", "punctuation")


def test_without_masks_separators_and_punctuation_are_not_told():
    found = means(planted())
    assert found.separator is None
    assert found.labels() == ("next", "previous", "broad", "first", "other", "other")


def test_numbers_are_those_of_loops():
    weights = torch.randn(3, 9, 9, generator=torch.Generator().manual_seed(0)).mul(2).softmax(-1).double()
    separators = torch.tensor([0, 1, 0, 0, 0, 0, 0, 0, 1]).bool()
    found = behaviours_of_text(weights, separators)
    for head in range(3):
        cells = [(q, k, weights[head, q, k].item()) for q in range(9) for k in range(9)]
        expected = {
            "next": sum(w for q, k, w in cells if k == q + 1),
            "previous": sum(w for q, k, w in cells if k == q - 1),
            "same": sum(w for q, k, w in cells if k == q),
            "first": sum(w for q, k, w in cells if k == 0),
            "separator": sum(w for q, k, w in cells if k in (1, 8)),
            "distance": sum(w * abs(q - k) for q, k, w in cells),
            "entropy": -sum(w * log(w) for q, k, w in cells),
        }
        assert {name: values[head].item() for name, values in found.items()} == pytest.approx(expected)


def test_the_entropy_is_zero_for_one_key_and_ln_n_for_all():
    found = means(planted()).entropy
    assert found[2].item() == pytest.approx(log(TOKENS))
    assert found[[0, 1, 3, 4, 5]].abs().max() == 0


@pytest.mark.parametrize("least, label", [(0.39, "next"), (0.41, "other")])
def test_thresholds_are_parameters_that_must_be_passed(least, label):
    eye = torch.eye(TOKENS)
    mixed = 0.4 * eye.roll(1, 1) + 0.3 * eye.roll(5, 1) + 0.3 * eye.roll(9, 1)
    assert means(mixed[None]).labels(position=least) == (label,)


def test_the_repr_is_a_line():
    assert repr(means(planted())) == (
        "HeadBehaviours(6 heads: next, previous, same, first, entropy, distance)"
    )
