"""Tracers of tiny random models."""

import pytest
from matplotlib import pyplot

from toumei.transformers.rome.tracing import CausalTracer


@pytest.fixture(autouse=True)
def close_figures():
    yield
    pyplot.close("all")


@pytest.fixture
def tracer(language_model, tokenizer):
    """From the name of an architecture to a tracer of a tiny random model of it."""
    return lambda kind="gpt2": CausalTracer(language_model(kind), tokenizer)
