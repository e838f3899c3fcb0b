"""What values promote, against the whole softmax; agreement, against all permutations."""

import itertools
import statistics

import pytest
import torch
from matplotlib import pyplot
from torch import nn

from toumei.core.errors import ArgumentError, ShapeError
from toumei.instrument.memories import value_distributions as module
from toumei.instrument.memories.agreement import Agreement, agreement_of, chance_agreement
from toumei.instrument.memories.value_distributions import promoted_tokens


@pytest.fixture
def drawn():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(11, 6, generator=generator), torch.randn(50, 6, generator=generator)


@pytest.mark.parametrize("cells", [1, 120, 2**24])
@pytest.mark.parametrize("normed", [False, True])
def test_they_are_the_softmax_of_all_logits(drawn, monkeypatch, cells, normed):
    monkeypatch.setattr(module, "_CELLS", cells)
    values, embedding = drawn
    norm = nn.LayerNorm(6) if normed else None
    if normed:
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    asked = torch.arange(11) * 4
    found = promoted_tokens(values, embedding, top=5, asked=asked, norm=norm)
    with torch.no_grad():
        whole = ((values if norm is None else norm(values)) @ embedding.T).softmax(1)
    order = whole.argsort(1, descending=True)
    assert torch.equal(found.tokens.long(), order[:, :5])
    torch.testing.assert_close(found.probabilities, whole.gather(1, order[:, :5]))
    assert found.ranks.tolist() == [
        row.tolist().index(token) for row, token in zip(order, asked, strict=True)
    ]


def test_no_token_asked_for_has_no_rank_and_few_tokens_are_all_returned(drawn):
    values, embedding = drawn
    found = promoted_tokens(values, embedding[:3], top=10, asked=torch.full((11,), -1))
    assert (found.ranks == -1).all() and found.tokens.shape == (11, 3)
    torch.testing.assert_close(found.probabilities.sum(1), torch.ones(11))


def test_half_precision_is_read_out_in_single(drawn):
    values, embedding = drawn[0].bfloat16(), drawn[1].bfloat16()
    found = promoted_tokens(values, embedding, top=1)
    whole = (values.float() @ embedding.float().T).softmax(1)
    torch.testing.assert_close(found.probabilities[:, 0], whole.amax(1))
    norm = nn.LayerNorm(6).bfloat16()
    found = promoted_tokens(values, embedding, top=1, norm=norm)
    with torch.no_grad():
        whole = (norm(values).float() @ embedding.float().T).softmax(1)
    torch.testing.assert_close(found.probabilities[:, 0], whole.amax(1))


def test_other_widths_are_refused(drawn):
    with pytest.raises(ShapeError, match=r"same width, got \(11, 5\) and \(50, 6\)"):
        promoted_tokens(drawn[0][:, :5], drawn[1])
    with pytest.raises(ArgumentError, match="top is a whole number from 1 on"):
        promoted_tokens(*drawn, top=0)


@pytest.mark.parametrize("seed", range(4))
def test_chance_is_the_mean_over_all_permutations(seed):
    generator = torch.Generator().manual_seed(seed)
    promoted, following = torch.randint(4, (2, 6), generator=generator)
    shares = [
        sum(a == b for a, b in zip(promoted.tolist(), dealt, strict=True)) / 6
        for dealt in itertools.permutations(following.tolist())
    ]
    mean, deviation = chance_agreement(promoted, following, 4)
    assert mean == pytest.approx(statistics.fmean(shares), abs=1e-12)
    assert deviation == pytest.approx(statistics.pstdev(shares), abs=1e-12)


def test_neurons_whose_trigger_ends_its_text_are_not_counted(tmp_path):
    none = torch.full((3,), -1)
    found = agreement_of(
        {
            "a": (torch.tensor([1, 2, 3]), torch.tensor([1, -1, 2]), torch.tensor([0, -1, 7])),
            "b": (torch.tensor([1, 2, 3]), none, none),
        },
        vocabulary=9,
    )
    assert found.rates[0] == 0.5 and found.counted.tolist() == [2, 0] and found.ranks[0] == 3.5
    assert found.rates[1].isnan() and found.chance[1].isnan() and found.uniform == 1 / 9
    assert len(repr(found)) < 200 and str(found).splitlines()[1].startswith("a")
    found.save(tmp_path / "agreement.safetensors")
    assert torch.equal(Agreement.load(tmp_path / "agreement.safetensors").rates[:1], found.rates[:1])
    axes = found.plot()
    assert {line.get_label() for line in axes.get_lines()} == {"agreement rate", "triggers dealt at random"}
    assert axes.get_lines()[1].get_ydata()[0] == 50
    assert axes.get_legend().get_texts()[0].get_text() == "two standard deviations"
    pyplot.close("all")
