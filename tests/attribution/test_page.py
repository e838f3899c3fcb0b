"""The examples of docs/attribution.md run as they stand, in at most ten lines each."""

import re
from pathlib import Path

import torch
from PIL import Image
from torchvision import models

from toumei.models import facts_gpt

PAGE = Path(__file__).parents[2] / "docs" / "attribution.md"
TABLE, PHOTOGRAPH, SENTENCE = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)


def run(code):
    assert len([line for line in code.splitlines() if line]) <= 10
    names = {}
    exec(compile(code, str(PAGE), "exec"), names)
    return names


def test_a_table(capsys):
    few = TABLE.replace("Classifier()", "Classifier(max_iter=3)").replace("[:20]", "[:4]")
    found = run(few)["found"]
    assert found.attribution.feature_names[0] == "mean radius" and "KernelShap" in capsys.readouterr().out


def test_a_photograph(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (40, 30), "red").save("cat.png")
    monkeypatch.setattr(models, "squeezenet1_1", tiny)
    found = run(PHOTOGRAPH.replace("224", "32"))["found"]
    assert found.attribution.classes[0] in models.SqueezeNet1_1_Weights.DEFAULT.meta["categories"]


def tiny(weights):
    assert weights is models.SqueezeNet1_1_Weights.DEFAULT
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(4), torch.nn.Flatten(), torch.nn.Linear(48, 1000))


def test_a_sentence(monkeypatch):
    model, tokenizer, world = facts_gpt()
    monkeypatch.setattr("toumei.models.smollm2", lambda: (model, tokenizer))
    fact = world.facts[0]
    given = SENTENCE.replace("The Eiffel Tower is in the city of", fact.text).replace(
        '" Paris"', repr(fact.target)
    )
    assert len(run(given)["found"].attribution.to_frame()) == 7
