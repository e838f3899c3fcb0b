"""The result of a trace: fields, files, figure."""

from dataclasses import fields

import numpy as np
import pytest
import torch
from matplotlib import pyplot

from toumei.core.errors import ArgumentError
from toumei.transformers.rome.tracing import CausalTrace

PROMPT, SUBJECT = "w3 w5 w7 w11 w4 w6", "w5 w7"


def test_fields_are_found_by_their_old_names(tracer_of):
    trace = tracer_of().trace(PROMPT, SUBJECT)
    assert trace["scores"] is trace.scores
    assert trace["low_score"] == trace["worst_score"] == trace.low
    assert trace["high_score"] == trace["best_score"] == trace.high
    assert trace["input_tokens"] == tuple(PROMPT.split())
    with pytest.raises(ArgumentError, match="a trace has no 'score': it has scores"):
        trace["score"]


def test_what_is_saved_is_loaded(tracer_of, tmp_path):
    trace = tracer_of().trace(PROMPT, SUBJECT, kind="mlp", window=2, foil="w1")
    trace.save(tmp_path / "new" / "trace.safetensors")
    loaded = CausalTrace.load(tmp_path / "new" / "trace.safetensors")
    assert torch.equal(loaded.scores, trace.scores)
    names = [field.name for field in fields(trace) if field.name != "scores"]
    assert [getattr(loaded, name) for name in names] == [getattr(trace, name) for name in names]
    assert repr(loaded) == repr(trace)


def test_other_files_are_refused(tmp_path):
    from safetensors.torch import save_file

    save_file({"scores": torch.zeros(1)}, tmp_path / "other.safetensors")
    (tmp_path / "short.safetensors").write_bytes(b"12")
    with pytest.raises(ArgumentError, match="is no saved CausalTrace"):
        CausalTrace.load(tmp_path / "other.safetensors")
    with pytest.raises(ArgumentError, match="cannot be read"):
        CausalTrace.load(tmp_path / "short.safetensors")


def test_the_plot_shows_tokens_layers_and_scores(tracer_of):
    trace = tracer_of().trace(PROMPT, SUBJECT, sever="mlp")
    axes = trace.plot()
    assert [label.get_text() for label in axes.get_yticklabels()] == ["w3", "w5*", "w7*", "w11", "w4", "w6"]
    shown = axes.collections[0].get_array().reshape(6, 3)
    assert np.allclose(shown, trace.scores)
    assert "severed" in axes.get_title() and axes.get_ylabel() == "token (* with noise)"
    assert axes.get_ylim()[0] > axes.get_ylim()[1], "the first token is on top"
    again = pyplot.subplots()[1]
    assert trace.plot(again) is again


def test_the_best_layer_is_that_of_the_last_subject_token(tracer_of):
    trace = tracer_of().trace(PROMPT, SUBJECT)
    assert trace.best_layer == trace.scores[2].argmax().item()
    assert torch.equal(trace.effects, trace.scores - trace.low)
