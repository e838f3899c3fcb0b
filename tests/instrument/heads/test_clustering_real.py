"""On a real BERT, whose previous-token and next-token heads are known; skipped where it is absent."""

import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from toumei.instrument.heads.clustering import AttentionHeadClusterAnalyzer

TEXTS = 12


@pytest.fixture(scope="module")
def result(realdata):
    folder = realdata / "minilm_l6"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    lines = (realdata / "text" / "wikitext2_valid.txt").read_text(encoding="utf-8").splitlines()
    texts = [line.strip() for line in lines if 200 < len(line) < 400][:TEXTS]
    analyzer = AttentionHeadClusterAnalyzer(
        separators=[tokenizer.sep_token_id], punctuation=tokenizer.convert_tokens_to_ids([".", ","])
    )
    for start in range(0, TEXTS, 6):
        batch = tokenizer(texts[start : start + 6], return_tensors="pt", padding=True)
        with torch.no_grad():
            weights = model(**batch, output_attentions=True).attentions
        analyzer.add(weights, batch["attention_mask"], batch["input_ids"])
    return analyzer.analyze()


def test_the_known_heads_of_a_real_bert_get_their_labels(result):
    labels = dict(zip(result.names, result.labels, strict=True))
    assert len(result) == 72 and result.texts == TEXTS
    assert labels["0.2"] == "previous"
    assert labels["1.8"] == "next"


def test_its_previous_token_head_lies_far_from_all_others(result):
    """It attends to one token with nearly all of its weight, other heads hardly ever to that one."""
    head = result.names.index("0.2")
    others = torch.arange(72) != head
    assert result.divergences[head, others].min() > result.divergences[others][:, others].mean()
