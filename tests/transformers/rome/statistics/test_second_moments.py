"""Second moments of keys: their inverse, and the identity in their place."""

import pytest
import torch

from toumei.core.errors import ArgumentError, NonFiniteError
from toumei.transformers.rome.statistics import IdentityMoment, SecondMoment

IN, OUT, FACTS = 12, 7, 4


def draw(*size, seed=0):
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def close(a, b):
    return torch.allclose(a, b, rtol=1e-9, atol=1e-12)


def test_too_few_keys_for_an_inverse_say_so():
    keys = draw(3, IN)
    with pytest.raises(NonFiniteError, match="over more texts"):
        SecondMoment(keys.T @ keys, 3).whiten(keys)


def test_the_identity_leaves_keys_as_they_are():
    keys = draw(3, IN)
    assert close(IdentityMoment(IN).whiten(keys), keys) and close(
        IdentityMoment(IN).matrix, torch.eye(IN).double()
    )
    with pytest.raises(ArgumentError, match="needs key statistics"):
        IdentityMoment(IN).project(keys, 0.5)
