"""Arrakis' tools of attention heads against plain restatements."""

import pytest
import torch
from architectures import build

from toumei.core.errors import ArgumentError, LayerError, ShapeError
from toumei.models import InductionTransformer
from toumei.transformers import logit_difference, path_patching
from toumei.transformers.heads.composition import composition_scores
from toumei.transformers.model.hooked_model import HookedModel
from toumei.transformers.tools import AttentionComposer, AttentionTools

TOKENS = torch.tensor([[5, 9, 33, 21, 9, 2], [7, 7, 12, 60, 3, 22]])
OTHERS = torch.tensor([[5, 1, 33, 21, 9, 2], [7, 8, 12, 60, 3, 22]])


@pytest.fixture
def gpt():
    return HookedModel(build("gpt2"))


@pytest.fixture
def wired():
    return HookedModel(InductionTransformer(vocabulary=8, positions=16))


def test_patterns_are_the_softmax_of_queries_and_keys(gpt):
    block = gpt.model.transformer.h[1]
    with torch.no_grad():
        stream = gpt.run_with_cache(TOKENS, [("resid_pre", 1)])[1]["resid_pre", 1]
        queries, keys = block.attn.c_attn(block.ln_1(stream))[..., :64].split(32, -1)
    scores = queries[..., 16:24] @ keys[..., 16:24].mT / 8**0.5
    future = torch.ones(6, 6, dtype=torch.bool).triu(1)
    pattern = AttentionTools(gpt).attention_patterns(TOKENS, 1, 2)
    torch.testing.assert_close(pattern, scores.masked_fill(future, -torch.inf).softmax(-1))


def test_top_attended_ids_are_the_tokens_with_the_largest_weights(gpt):
    tools = AttentionTools(gpt)
    pattern = tools.attention_patterns(TOKENS, 1, 2)
    ids = tools.top_attended_ids(TOKENS, 1, 2, 3, query=4)
    for row in range(2):
        order = sorted(range(6), key=lambda place: -float(pattern[row, 4, place]))
        assert ids[row].tolist() == [int(TOKENS[row, place]) for place in order[:3]]
    means = pattern.mean(1)
    assert torch.equal(
        tools.top_attended_ids(TOKENS, 1, 2, 99), TOKENS.gather(1, means.argsort(1, descending=True))
    )


def test_an_ablated_head_adds_nothing_only_inside_the_block(gpt):
    model = gpt.model
    plain = gpt(TOKENS)
    with AttentionTools(gpt).ablate_head(1, 2):
        ablated = gpt(TOKENS)
    weight = model.transformer.h[1].attn.c_proj.weight

    def without_head(module, args):
        z = args[0].clone()
        z[..., 16:24] = 0
        return (z, *args[1:])

    with model.transformer.h[1].attn.c_proj.register_forward_pre_hook(without_head):
        expected = model(TOKENS).logits
    assert weight.shape == (32, 32)
    torch.testing.assert_close(ablated, expected)
    assert torch.equal(gpt(TOKENS), plain) and not torch.allclose(ablated, plain)


def test_merged_heads_attend_alike(gpt):
    tools = AttentionTools(gpt)
    one, two = (tools.attention_patterns(TOKENS, 1, head) for head in (0, 3))
    with torch.no_grad(), tools.merge_heads(1, 0, 3, alpha=0.25):
        _, cache = gpt.run_with_cache(TOKENS, [("z", 1), ("v", 1)])
    mixed = 0.25 * one + 0.75 * two
    for head in (0, 3):
        torch.testing.assert_close(cache["z", 1][:, :, head], mixed @ cache["v", 1][:, :, head])
    with tools.merge_heads(1, 2, 2):  # a head with itself stays
        torch.testing.assert_close(gpt(TOKENS), gpt.model(TOKENS).logits)


def test_composition_of_two_heads_is_that_of_all_pairs(gpt):
    table = composition_scores(gpt, verbose=False)
    found = AttentionComposer(gpt).head_composition((0, 1), (2, 3))
    assert found[:3] == pytest.approx([float(table[kind][0, 1, 2, 3]) for kind in "qkv"])
    assert found.baseline == pytest.approx(32**-0.5)


def test_virtual_heads_are_what_the_second_head_takes_from_the_first(gpt):
    """With the first head's output removed from what the values read, the second head writes so much less."""
    composer = AttentionComposer(gpt)
    virtual = composer.apply_composed_head(TOKENS, (0, 1), (2, 3))
    block = gpt.model.transformer.h[2]
    with torch.no_grad():
        _, cache = gpt.run_with_cache(TOKENS, [("result", 0), ("resid_pre", 2), ("pattern", 2)])
    stream, part = cache["resid_pre", 2], cache["result", 0][:, :, 1]
    deviation = stream.var(-1, unbiased=False, keepdim=True).add(block.ln_1.eps).sqrt()

    def written(x):
        normed = (x - x.mean(-1, keepdim=True)) / deviation * block.ln_1.weight
        values = normed @ block.attn.c_attn.weight[:, 64 + 24 :]
        return cache["pattern", 2][:, 3] @ values @ block.attn.c_proj.weight[24:]

    torch.testing.assert_close(
        virtual, (written(stream) - written(stream - part)).detach(), rtol=1e-4, atol=1e-5
    )


def test_the_path_of_the_wired_circuit_is_the_only_one_that_matters(wired):
    """The keys of the induction head read the previous-token head; its queries and values do not."""
    composer = AttentionComposer(wired)
    tokens, others = torch.tensor([[0, 3, 1, 4, 3]]), torch.tensor([[0, 5, 1, 4, 3]])
    plain = wired(tokens).softmax(-1)[0, -1]
    assert int(plain.argmax()) == 1
    for inputs, changed in ((["k"], True), (["q", "v"], False), (["q", "k", "v"], True)):
        logits = composer.attention_path_patching(tokens, others, (0, 0), (1, 0), inputs=inputs)
        assert (float(logits.softmax(-1)[0, -1, 1]) < 0.5) == changed
    other_sender = composer.attention_path_patching(tokens, others, (0, 1), (1, 0))
    torch.testing.assert_close(other_sender, wired(tokens))


def test_path_patching_is_two_passes_by_hand(gpt):
    """Only keys of head 2.3 change, as if layer 0's head 1 alone had read the other text."""
    found = AttentionComposer(gpt).attention_path_patching(TOKENS, OTHERS, (0, 1), (2, 3), inputs=["k"])
    transformer = gpt.model.transformer
    with torch.no_grad():
        _, clean = gpt.run_with_cache(TOKENS, ["result", "resid_pre"])
        _, corrupted = gpt.run_with_cache(OTHERS, ["result"])
        change = (corrupted["result", 0] - clean["result", 0])[:, :, 1]
        stream = clean["resid_pre", 2] + change  # nothing between answers to it
        keys = transformer.h[2].attn.c_attn(transformer.h[2].ln_1(stream))[..., 32 + 24 : 64]

    def other_keys(module, args, output):
        output = output.clone()
        output[..., 32 + 24 : 64] = keys
        return output

    with torch.no_grad(), transformer.h[2].attn.c_attn.register_forward_hook(other_keys):
        expected = gpt.model(TOKENS).logits
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    free = AttentionComposer(gpt).attention_path_patching(
        TOKENS, OTHERS, (0, 1), (2, 3), inputs=["k"], through_mlps=True
    )
    assert not torch.allclose(free, found, atol=1e-4)


@pytest.mark.parametrize("through_mlps", [False, True])
def test_a_path_has_the_metric_of_path_patching_of_its_sender(gpt, through_mlps):
    """The tool gives the logits of one pair of heads, `path_patching` the metric of all senders."""
    composer, metric = AttentionComposer(gpt), logit_difference(7, 9)
    mlps = "free" if through_mlps else "frozen"
    paths = path_patching(gpt, TOKENS, OTHERS, metric, [(2, 1, "q"), (2, 1, "v")], mlps=mlps)
    for sender in ((0, 3), (1, 2)):
        logits = composer.attention_path_patching(
            TOKENS, OTHERS, sender, (2, 1), inputs=("q", "v"), through_mlps=through_mlps
        )
        found = (logits[:, -1, 7] - logits[:, -1, 9]).mean()
        assert float(found) == pytest.approx(float(paths.raw[sender]), abs=1e-5)


def test_what_does_not_exist_is_refused(gpt):
    tools, composer = AttentionTools(gpt), AttentionComposer(gpt)
    with pytest.raises(ArgumentError, match="heads 0 to 3"):
        tools.attention_patterns(TOKENS, 0, 4)
    with pytest.raises(LayerError, match="0, 1, 2"), tools.ablate_head(3, 0):
        pass
    with pytest.raises(ArgumentError, match="from 0 to 1"), tools.merge_heads(0, 0, 1, 1.5):
        pass
    with pytest.raises(ArgumentError, match="later layer"):
        composer.head_composition((1, 0), (1, 1))
    with pytest.raises(ShapeError, match="tokens"):
        composer.attention_path_patching(TOKENS, OTHERS[:, :3], (0, 0), (1, 0))
