"""The code of docs/workbench.md runs as it stands, with a small network in place of SmolLM2 and less data."""

import re
from pathlib import Path

import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

PAGE = Path(__file__).parents[1] / "docs" / "workbench.md"
LESS = {"repeated_tokens(4, 40, 1000, 40000": "repeated_tokens(2, 5, 20, 60", "[:40]": "[:2]"}
WORDS = "<s> [UNK] When Mary John Tom James Anna Kate Paul Mark and went to the store , gave a drink"


def small_network():
    """A Llama with as many layers and heads as the page speaks of, and a tokenizer of its words."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 4, "num_key_value_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=64, num_hidden_layers=18, **sizes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, parameter.shape[-1] ** -0.5)
    words = Tokenizer(models.WordLevel({word: place for place, word in enumerate(WORDS.split())}, "[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return model, PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<s>", unk_token="[UNK]")


def test_the_code_of_the_page_runs(monkeypatch):
    model, tokenizer = small_network()
    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", lambda name: model)
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", lambda name: tokenizer)
    names: dict[str, object] = {}
    text = PAGE.read_text(encoding="utf-8")
    for given, less in LESS.items():
        assert given in text
        text = text.replace(given, less)
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) >= 5
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    assert names["scores"]["induction"].shape == (18, 4)
    assert float(names["parts"].contributions.sum()) == pytest.approx(names["parts"].logit, abs=1e-4)
    assert names["figure"].axes
