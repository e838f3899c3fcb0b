"""The logit lens ends with the prediction of the model."""

import pytest
import torch

from toumei.transformers.lenses import LogitLens, logit_lens


@pytest.mark.parametrize("kind", ["gpt2", "llama", "gemma2", "opt"])
def test_the_lens_ends_with_the_models_own_answer(kind, language_model, tokenizer, tmp_path):
    model = language_model(kind)
    found = logit_lens(model, tokenizer, "w9 w3 w4", "w11", top=4)
    with torch.no_grad():
        wanted = model(**tokenizer("w9 w3 w4", return_tensors="pt")).logits[0, -1].softmax(0)
    assert found.probabilities.shape == (3,) and found.top_probabilities.shape == (3, 4)
    assert float(found.probabilities[-1]) == pytest.approx(float(wanted[11]), abs=1e-5)
    assert int(found.ranks[-1]) == int((wanted > wanted[11]).sum())
    assert found.top[-1][0] == tokenizer.decode(wanted.argmax())
    found.save(tmp_path / "lens.safetensors")
    again = LogitLens.load(tmp_path / "lens.safetensors")
    assert again.top == found.top and torch.equal(again.ranks, found.ranks) and repr(again) == repr(found)
    assert found.plot().get_ylabel() == "probability"
