"""The experiments on causal tracing run, with few samples, and write what they say."""

import json
import sys
from pathlib import Path

import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "experiments"))

import average_indirect_effects
import causal_tracing

from toumei.models import facts_gpt
from toumei.transformers.rome.tracing import AverageEffects


@pytest.mark.parametrize("arguments", [[], ["--severed", "--fact", "7"]])
def test_a_fact_is_traced_in_three_heat_maps(tmp_path, arguments):
    path = causal_tracing.main([*arguments, "--samples", "1", "--out", str(tmp_path / "new" / "trace.png")])
    with Image.open(path) as image:
        assert image.width > 2 * image.height


def test_a_prompt_of_ones_own(tmp_path):
    fact = facts_gpt()[2].facts[5]
    out = str(tmp_path / "trace.png")
    causal_tracing.main(["--prompt", fact.text, "--subject", fact.subject, "--samples", "1", "--out", out])
    with pytest.raises(SystemExit):
        causal_tracing.main(["--prompt", fact.text])


def test_effects_are_averaged_and_kept(tmp_path):
    out = tmp_path / "effects.png"
    averages = average_indirect_effects.main(["--count", "3", "--samples", "1", "--out", str(out)])
    assert out.exists() and set(averages) == {"hidden", "mlp", "attn"}
    assert repr(AverageEffects.load(tmp_path / "effects_mlp.safetensors")) == repr(averages["mlp"])
    assert len(list((tmp_path / "effects" / "hidden").iterdir())) == 3


def test_facts_from_a_file(tmp_path):
    facts = facts_gpt()[2].facts[:2]
    listed = [{"prompt": fact.text, "subject": fact.subject, "attribute": fact.target} for fact in facts]
    (tmp_path / "facts.json").write_text(json.dumps(listed))
    out = ["--facts", str(tmp_path / "facts.json"), "--samples", "1", "--out", str(tmp_path / "effects.png")]
    averages = average_indirect_effects.main(out)
    assert sum(averages["hidden"].counts) > 0
