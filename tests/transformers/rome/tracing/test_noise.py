"""The noise on a subject: its strength and shape, and that every strategy takes it."""

import pytest
import torch

from toumei.transformers.model.families import anatomy
from toumei.transformers.rome.tracing import EmbeddingNoise
from toumei.transformers.rome.tracing.noise import draw_noise

PROMPT, SUBJECT = "w3 w5 w7 w11 w4 w6", "w5 w7"


@pytest.mark.parametrize(
    "noise",
    [
        0.5,
        EmbeddingNoise(2, "uniform"),
        EmbeddingNoise(1, "multivariate"),
        EmbeddingNoise(level=0.3),
        EmbeddingNoise(replace=True),
        EmbeddingNoise(2, "uniform", replace=True),
    ],
    ids=repr,
)
def test_every_noise_is_swept_as_plainly(tracer_of, noise):
    tracer = tracer_of()
    fast, plain = (
        tracer.trace(PROMPT, SUBJECT, samples=3, noise=noise, method=method) for method in ("suffix", "plain")
    )
    torch.testing.assert_close(fast.scores, plain.scores, rtol=0, atol=1e-5)
    assert fast.low != fast.high


def test_noise_has_the_strength_and_shape_that_were_asked_for(language_model):
    parts = anatomy(language_model("gpt2"))
    ids = torch.tensor([[3, 5, 7]])
    weight = parts.module(parts.embedding).weight.double()

    def drawn(noise):
        return draw_noise(parts, ids, (1, 3), noise, 4000, 0).values.double()

    std = weight[ids[0, 1:3]].std().item()
    assert drawn(EmbeddingNoise(3)).std().item() == pytest.approx(3 * std, rel=0.01)
    assert drawn(EmbeddingNoise(level=0.2)).std().item() == pytest.approx(0.2, rel=0.01)
    uniform = drawn(EmbeddingNoise(2, "uniform"))
    assert uniform.abs().max().item() == pytest.approx(2 * std, rel=0.01)
    assert uniform.std().item() == pytest.approx(2 * std / 3**0.5, rel=0.01)
    covariance = torch.cov(drawn(EmbeddingNoise(2, "multivariate")).flatten(0, 1).T)
    expected = 4 * torch.cov(weight.detach().T)
    assert (covariance - expected).abs().max() < 0.1 * expected.abs().max()
