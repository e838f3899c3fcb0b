import itertools
import math
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
from torchvision.models import SwinTransformer, VisionTransformer
from tracked import PADDED, PICTURES, TEXT, TOKENS, Function, graph_of, transformer
from transformers import CLIPConfig, CLIPModel

from toumei.core.errors import ArchitectureError, ArgumentError, LayerError
from toumei.instrument import TensorMap, instrument
from toumei.instrument.attention_weights import AttentionWeights, fused_weights
from toumei.instrument.search.attention import find_multi_head_attention

FUSED = ("gpt2", "llama", "mixtral", "bert", "roberta", "albert", "t5", "vit", "clip_vision_model")
EAGER = (*FUSED, "gemma2", "gpt_oss", "bloom", "deberta-v2", "xlnet")


def found(model, *inputs, **options):
    return list(find_multi_head_attention(graph_of(model, *inputs, **options)))


def close(one, other):
    assert one.shape == other.shape
    assert (one - other).abs().max() < 1e-6


def references(model, inputs):
    """The attention weights that the model itself returns, in the order in which they are computed."""
    model.set_attn_implementation("eager")
    with torch.no_grad():
        output = model(**inputs, output_attentions=True)
    for module in model.modules():  # those of transformers, which it leaves on the model
        module._forward_hooks.clear()
    if "attentions" in output:
        return list(output.attentions)
    pairs = zip(output.decoder_attentions, output.cross_attentions, strict=True)
    return [*output.encoder_attentions, *itertools.chain(*pairs)]


@pytest.mark.parametrize(
    ("kind", "attention"), [*((kind, "eager") for kind in EAGER), *((kind, "sdpa") for kind in FUSED)]
)
def test_weights_are_those_that_the_model_returns(kind, attention):
    model, inputs = transformer(kind, attention)
    instances = found(model, **inputs)
    weights = references(model, inputs)
    assert len(instances) == len(weights)
    for instance, expected in zip(instances, weights, strict=True):
        close(instance.weights(), expected)
        assert instance.kind == {"eager": "softmax", "sdpa": "scaled_dot_product_attention"}[attention]
        _, heads, queries, keys = expected.shape
        assert (instance.num_heads, instance.query_length, instance.key_length) == (heads, queries, keys)
        assert instance.num_key_value_heads == getattr(model.config, "num_key_value_heads", None) or heads
    assert [one.layer for one in instances] == list(range(len(weights)))


def test_results_name_modules_layers_heads_and_tensors():
    model, inputs = transformer("llama")
    graph = graph_of(model, **inputs)
    first, second = find_multi_head_attention(graph)
    assert second.module == "model.layers.1.self_attn"
    assert (second.layer, second.head_names) == (1, ["1-0", "1-1", "1-2", "1-3"])
    assert second.softmax_value is graph.tensor("model.layers.1.self_attn/softmax")
    assert second.output is graph.tensor("model.layers.1.self_attn/matmul#1")
    assert second.query.shape == (2, 4, 5, 8)
    assert {first.query, first.key, first.value} <= set(graph.tensors.values())
    assert repr(first) == (
        "MultiHeadAttentionInstance('model.layers.0.self_attn', layer 0, 4 heads, 2 of keys, 5 x 5, softmax)"
    )


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_weights_times_values_are_the_output(attention):
    """Of what was tracked in one pass, without the model's word for it."""
    model, inputs = transformer("llama", attention)
    graph = graph_of(model, **inputs)
    for instance in find_multi_head_attention(graph):
        values = graph.replay(record=[*instance.needed, instance.value, instance.output])
        heads = values[instance.value.name].repeat_interleave(4 // instance.value.shape[1], dim=1)
        close(instance.weights(values) @ heads, values[instance.output.name])


@pytest.mark.parametrize(("kind", "attention"), [("bert", "eager"), ("bert", "sdpa"), ("gpt2", "sdpa")])
def test_padding_is_not_attended_to(kind, attention):
    model, _ = transformer(kind, attention)
    for instance in found(model, **PADDED):
        assert (instance.weights()[1, :, :3, 3:] == 0).all()
        close(instance.weights().sum(-1)[0], torch.ones(4, 5))


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_both_towers_of_clip(attention):
    config = CLIPConfig(text_config=TEXT, vision_config=PICTURES)
    model = CLIPModel._from_config(config, attn_implementation=attention).eval()
    instances = found(model, input_ids=TOKENS, pixel_values=torch.randn(2, 3, 16, 16))
    assert [one.module for one in instances] == [
        f"{tower}_model.encoder.layers.{layer}.self_attn" for tower in ("vision", "text") for layer in (0, 1)
    ]
    assert [one.layer for one in instances] == [0, 1, 2, 3]
    assert [one.key_length for one in instances] == [17, 17, 5, 5]
    assert (instances[2].weights().triu(1) == 0).all()  # the text is read from left to right


def test_windows_of_swin_take_the_place_of_the_batch():
    model = SwinTransformer([4, 4], 8, [2, 2], [2, 4], [4, 4]).eval()
    instances = found(model, torch.randn(2, 3, 32, 32))
    assert [one.weights().shape for one in instances] == [(8, 2, 16, 16)] * 2 + [(2, 4, 16, 16)] * 2
    shifted = instances[1].weights()
    assert (shifted[0] > 0.001).all() and (shifted[3, :, 0, -1] < 1e-30).all()  # other sides of the picture
    for attention in ("eager", "sdpa"):
        model, inputs = transformer("swin", attention)
        instances = found(model, **inputs)
        assert [one.num_heads for one in instances] == [2, 4, 4]
        ends = [instances[0], instances[2]]
        for instance, expected in zip(ends, references(model, inputs), strict=True):
            close(instance.weights(), expected)


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("needed", [True, False])
def test_weights_of_the_attention_of_torch(batch_first, needed):
    layer = nn.MultiheadAttention(16, 4, batch_first=batch_first, kdim=6, vdim=7, dropout=0.5)
    query, key, value = torch.randn(3, 2, 16), torch.randn(5, 2, 6), torch.randn(5, 2, 7)
    mask = torch.tensor([[0.0] * 5, [0.0, 0.0, -math.inf, -math.inf, -math.inf]])
    bias = torch.randn(3, 5)
    if batch_first:
        query, key, value = (one.transpose(0, 1) for one in (query, key, value))
    given = {"key_padding_mask": mask, "attn_mask": bias}
    (instance,) = found(layer, query, key, value, need_weights=needed, **given)
    layer.eval()
    _, expected = layer(query, key, value, average_attn_weights=False, **given)
    close(instance.weights(), expected.detach())
    assert (instance.num_heads, instance.query_length, instance.key_length) == (4, 3, 5)
    assert instance.softmax_value.shape == (2, 4, 3, 5)


def test_weights_of_the_attention_of_torch_without_a_batch():
    layer = nn.MultiheadAttention(16, 4)
    x = torch.randn(3, 16)
    (instance,) = found(layer, x, x, x)
    close(instance.weights()[0], layer(x, x, x, average_attn_weights=False)[1].detach())
    assert instance.softmax_value.shape == (1, 4, 3, 3)


def test_encoders_and_decoders_of_torch():
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
    causal = nn.Transformer.generate_square_subsequent_mask(5)
    instances = found(encoder, torch.randn(2, 5, 16), mask=causal, is_causal=True)
    assert [one.module for one in instances] == ["layers.0.self_attn", "layers.1.self_attn"]
    assert (instances[1].weights().triu(1) == 0).all()
    decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(16, 4, 32), 2).eval()
    instances = found(decoder, torch.randn(3, 2, 16), torch.randn(5, 2, 16))
    assert [(one.query_length, one.key_length) for one in instances] == [(3, 3), (3, 5)] * 2
    assert [one.weights().shape for one in instances] == [(2, 4, 3, 3), (2, 4, 3, 5)] * 2


def test_vision_transformer_of_torchvision():
    instances = found(VisionTransformer(16, 4, 2, 4, 32, 48).eval(), torch.randn(2, 3, 16, 16))
    assert [one.layer for one in instances] == [0, 1]
    close(instances[1].weights().sum(-1), torch.ones(2, 4, 17))


@pytest.mark.parametrize("groups", [4, 2])
@pytest.mark.parametrize("keys", [3, 5, 7])
@pytest.mark.parametrize("mask", [None, "causal", "choice", "nothing", "bias"])
def test_fused_weights_are_what_the_identity_as_values_gives(groups, keys, mask):
    torch.manual_seed(0)
    query, key = torch.randn(2, 4, 5, 8), torch.randn(2, groups, keys, 8)
    options = {"is_causal": mask == "causal", "enable_gqa": groups != 4, "scale": 0.7}
    if mask == "choice":
        options["attn_mask"] = torch.rand(2, 1, 5, keys) > 0.3
    elif mask == "nothing":  # the first row has no key that it may attend to
        options["attn_mask"] = torch.ones(5, keys, dtype=torch.bool).tril(-1)
    elif mask == "bias":
        options["attn_mask"] = torch.randn(4, 5, keys)
    identity = torch.eye(keys).expand(2, groups, keys, keys)
    expected = F.scaled_dot_product_attention(query, key, identity, **options)
    close(fused_weights(F.scaled_dot_product_attention, (query, key, None), options), expected)


def heads(x, transposed=True):
    split = x.unflatten(-1, (-1, 4))
    return split.transpose(-3, -2) if transposed else split


def softmax(scores, axis=-1):
    shifted = (scores - scores.amax(axis, keepdim=True)).exp()
    return shifted / shifted.sum(axis, keepdim=True)


def transposed(q, k, v):
    return (heads(q) @ heads(k).transpose(-2, -1) / 2).softmax(-1) @ heads(v)


def values_first(q, k, v):
    weights = (heads(q) @ heads(k).mT).softmax(dim=-1)
    return heads(v).mT @ weights.mT


def einsum(q, k, v):
    weights = torch.einsum("bqhd,bkhd->bhqk", heads(q, False), heads(k, False)).softmax(-1)
    return torch.einsum("bhqk,bkhd->bqhd", weights, heads(v, False))


def einsum_keys_last_but_one(q, k, v):
    weights = torch.einsum("bqhd,bkhd->bqkh", heads(q, False), heads(k, False)).softmax(2)
    return torch.einsum("bqkh,bkhd->bqhd", weights, heads(v, False))


def heads_and_batch_as_one(q, k, v):
    q, k, v = (heads(one).flatten(0, 1) for one in (q, k, v))
    return torch.bmm(torch.bmm(q, k.transpose(1, 2)).softmax(-1), v).view(2, 2, 5, 4)


def added_to_a_mask(q, k, v):
    q, k, v = (heads(one).flatten(0, 1) for one in (q, k, v))
    scores = torch.baddbmm(torch.zeros(1, 5, 5), q, k.transpose(1, 2), alpha=0.5)
    return scores.masked_fill(torch.ones(5, 5).triu(1) > 0, -math.inf).softmax(-1) @ v


def softmax_written_out(q, k, v):
    return softmax(heads(q) @ heads(k).mT) @ heads(v)


def softmax_of_logarithms(q, k, v):
    return F.log_softmax(heads(q) @ heads(k).mT, -1).exp() @ heads(v)


def softmax_by_a_sum_of_logarithms(q, k, v):
    scores = heads(q) @ heads(k).mT
    return (scores - scores.logsumexp(-1, keepdim=True)).exp() @ heads(v)


def at_least_a_number(q, k, v):  # as in XGLM
    return torch.max(heads(q) @ heads(k).mT, torch.tensor(-1e4)).softmax(-1) @ heads(v)


def masked_by_an_index(q, k, v):
    scores = heads(q) @ heads(k).mT
    scores[:, :, torch.ones(5, 5).triu(1) > 0] = -math.inf
    return scores.softmax(-1) @ heads(v)


def channels_first(q, k, v):  # as in U-Nets of diffusion models
    q, k, v = (one.mT.reshape(4, 4, 5) for one in (q, k, v))
    weights = torch.einsum("bct,bcs->bts", q, k).softmax(-1)
    return torch.einsum("bts,bcs->bct", weights, v).mT


def keys_first(q, k, v):
    weights = (heads(k) @ heads(q).mT).softmax(-2)
    return (heads(v).mT @ weights).mT


def keys_first_then_turned(q, k, v):
    return (heads(k) @ heads(q).mT / 2).transpose(-1, -2).softmax(-1) @ heads(v)


def keys_first_turned_afterwards(q, k, v):
    return (heads(k) @ heads(q).mT).softmax(2).permute(0, 1, 3, 2) @ heads(v)


def turned_twice(q, k, v):
    return (heads(q) @ heads(k).mT).mT.mul(0.5).swapaxes(2, 3).softmax(-1) @ heads(v)


@pytest.mark.parametrize(
    "forward",
    [
        keys_first,
        keys_first_then_turned,
        keys_first_turned_afterwards,
        turned_twice,
        softmax_of_logarithms,
        softmax_by_a_sum_of_logarithms,
        at_least_a_number,
        masked_by_an_index,
        channels_first,
        transposed,
        values_first,
        einsum,
        einsum_keys_last_but_one,
        heads_and_batch_as_one,
        added_to_a_mask,
        softmax_written_out,
    ],
)
def test_attention_written_by_hand(forward):
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 5, 8)
    (instance,) = found(Function(forward), q, k, v)
    assert (instance.kind, instance.num_heads, instance.query_length) == ("softmax", 2, 5)
    weights = instance.weights()
    assert weights.shape == (2, 2, 5, 5)
    if forward in (keys_first, keys_first_then_turned, keys_first_turned_afterwards, transposed):
        values = instance._graph.replay(record=[instance.query, instance.key])
        for node, expected in ((instance.query, q), (instance.key, k)):
            close(values[node.name].flatten().sort().values, expected.flatten().sort().values)
    output = forward(q, k, v)
    if forward is values_first:
        output = output.mT
    elif forward in (einsum, einsum_keys_last_but_one):
        output = output.transpose(1, 2)
    close(weights @ heads(v), output.reshape(2, 2, 5, 4))


class TalkingHeads(nn.Module):
    """Attention whose heads are mixed before and after the softmax, as in CaiT (Touvron et al. 2021)."""

    def __init__(self):
        super().__init__()
        self.before, self.after = nn.Linear(2, 2), nn.Linear(2, 2)

    def forward(self, q, k, v):
        scores = heads(q) @ heads(k).mT / 2
        mixed = self.before(scores.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        self.weights = mixed.softmax(-1)
        return self.after(self.weights.permute(0, 2, 3, 1)).permute(0, 3, 1, 2) @ heads(v)


def test_heads_may_be_mixed_before_and_after_the_softmax():
    torch.manual_seed(0)
    model, (q, k, v) = TalkingHeads(), torch.randn(3, 2, 5, 8)
    (instance,) = found(model, q, k, v)
    assert (instance.num_heads, instance.query_length, instance.key_length) == (2, 5, 5)
    close(instance.weights(), model.weights)

    def router(q, w):
        return F.linear(q @ q.mT, w).softmax(-1) @ q  # a softmax over what a map made of the keys

    model = Function(lambda q: router(q, weight))
    model.weight = weight = nn.Parameter(torch.randn(5, 5))
    assert not found(model, torch.randn(2, 4, 5, 5))


def one_key_head(q, k, v):
    return (heads(q) @ k[:, None, :, :4].mT).softmax(-1) @ v[:, None, :, :4]


def one_key_head_by_einsum(q, k, v):
    weights = torch.einsum("bqhd,bkd->bhqk", heads(q, False), k[..., :4]).softmax(-1)
    return torch.einsum("bhqk,bkd->bqhd", weights, v[..., :4])


@pytest.mark.parametrize("forward", [one_key_head, one_key_head_by_einsum])
def test_heads_that_share_a_key_head_are_counted(forward):
    (instance,) = found(Function(forward), *torch.randn(3, 2, 5, 8))
    assert (instance.num_heads, instance.num_key_value_heads) == (2, 1)


def test_a_softmax_with_something_else_in_its_sum():
    def forward(q, k, v):
        exponential = (heads(q) @ heads(k).mT).exp()
        return exponential / (1 + exponential.sum(-1, keepdim=True)) @ heads(v)

    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 5, 8)
    (instance,) = found(Function(forward), q, k, v)
    assert bool((instance.weights().sum(-1) < 1).all())
    close(instance.weights() @ heads(v), forward(q, k, v))


def test_a_single_head_without_an_axis_of_heads():
    instances = found(Function(lambda x: (x @ x.mT).softmax(-1) @ x), torch.randn(2, 5, 8))
    assert [(one.num_heads, one.weights().shape) for one in instances] == [(1, (2, 1, 5, 5))]


def attend(query, key, value):
    return (query @ key.mT).softmax(-1) @ value


def chunked(qkv):
    """Heads that are cut out of the features one by one."""
    return [attend(*head) for head in zip(*(one.chunk(2, -1) for one in qkv.chunk(3, -1)), strict=True)]


def picked(qkv):
    """Heads that are taken one by one from an axis of them."""
    query, key, value = qkv.view(2, 5, 3, 2, 4).permute(2, 0, 3, 1, 4)
    return [attend(query[..., head, :, :], key[:, head], value[:, head]) for head in range(2)]


def taken(qkv):
    """The same with positions before heads, and queries, keys and values cut out."""
    query, key, value = (qkv.view(2, 5, 3, 2, 4)[:, :, one] for one in range(3))
    heads = zip(query.unbind(2), key.unbind(2), value.unbind(2), strict=True)
    return [attend(*head) for head in heads]


def texts(qkv):
    """All heads of one text after the other."""
    query, key, value = qkv.view(2, 5, 3, 2, 4).permute(2, 0, 3, 1, 4)
    return [attend(*text) for text in zip(query, key, value, strict=True)]


@pytest.mark.parametrize(
    ("forward", "heads"), [(chunked, [1, 1]), (picked, [1, 1]), (taken, [1, 1]), (texts, [2, 2])]
)
def test_heads_that_run_one_by_one_are_no_texts_and_texts_no_heads(forward, heads):
    instances = found(Function(forward), torch.randn(2, 5, 24))
    assert [one.num_heads for one in instances] == heads
    assert {tuple(one.weights().shape) for one in instances} == {(2 // heads[0], heads[0], 5, 5)}


def test_one_head_beside_keys_and_values_is_not_three():
    (instance,) = found(Function(lambda qkv: attend(*qkv.chunk(3, -1))), torch.randn(3, 5, 24))
    assert instance.num_heads == 1 and instance.weights().shape == (3, 1, 5, 5)


def test_groups_of_heads_have_an_axis_of_their_own():
    def forward(q, k, v):
        q, k, v = q.unflatten(-1, (2, 3, 4)), heads(k, False), heads(v, False)
        weights = torch.einsum("bqgrd,bkgd->bgrqk", q, k).softmax(-1)
        return torch.einsum("bgrqk,bkgd->bqgrd", weights, v)

    torch.manual_seed(0)
    q, k, v = torch.randn(2, 5, 24), torch.randn(2, 7, 8), torch.randn(2, 7, 8)
    (instance,) = found(Function(forward), q, k, v)
    assert (instance.num_heads, instance.query_length, instance.key_length) == (6, 5, 7)
    assert instance.num_key_value_heads == 2
    values = heads(v).repeat_interleave(3, dim=1)
    close(instance.weights() @ values, forward(q, k, v).flatten(2, 3).transpose(1, 2))


def test_windows_may_have_an_axis_of_their_own():
    mask = torch.zeros(3, 1, 5, 5)
    mask[1, :, :, 0] = -math.inf

    def forward(x):
        q = x.unflatten(-1, (2, 4)).transpose(-3, -2)
        return (q @ q.mT + mask).softmax(-1) @ q

    (instance,) = found(Function(forward), torch.randn(2, 3, 5, 8))
    assert instance.num_heads == 2
    weights = instance.weights()
    assert weights.shape == (6, 2, 5, 5)
    assert [bool((one[:, :, 0] == 0).all()) for one in weights] == [False, True, False] * 2


def router(x, experts):
    weights, chosen = (x @ experts).softmax(-1).topk(2)
    return weights.unsqueeze(-2) @ F.one_hot(chosen, 4).float()


@pytest.mark.parametrize(
    "function",
    [
        lambda x, w: (x @ w).softmax(-1),  # a classifier
        lambda x, w: (x @ w).softmax(-1) @ w.t(),  # classes that are embedded again
        lambda x, w: F.linear(x, w.t()).softmax(-1) @ w.t(),
        router,
        lambda x, w: (x @ x.mT).softmax(0) @ x,  # over the queries
        lambda x, w: x.softmax(-1) @ (x.softmax(0).mT @ x),  # linear attention
        lambda x, w: (x @ x.mT).log_softmax(0).exp() @ x,
        lambda x, w: (x @ x.mT).max(-1, keepdim=True).values.mT.softmax(-1) @ x,  # of maxima
        lambda x, w: (x @ x.mT) @ x,
        lambda x, w: (x @ x.mT).softmax(-1).sum(),  # similarities
    ],
)
def test_another_softmax_is_no_attention(function):
    weight = nn.Parameter(torch.randn(8, 4))
    model = Function(lambda x: function(x, weight))
    model.weight = weight
    assert not found(model, torch.randn(5, 8))


def test_mamba_has_no_attention():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model, inputs = transformer("mamba")
    assert not found(model, **inputs)


def flex(mask, score_mod=None, length=6):
    projection = nn.Linear(8, 24)
    block_mask = create_block_mask(mask, None, None, length, length, device="cpu")

    def forward(x):
        q, k, v = (heads(one) for one in projection(x).chunk(3, -1))
        return flex_attention(q, k, v, score_mod=score_mod, block_mask=block_mask)

    return Function(forward, projection=projection)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_flex_attention_with_its_mask_and_its_changes_of_scores():
    torch.manual_seed(0)
    model = flex(lambda b, h, q, k: q >= k, lambda score, b, h, q, k: score - 0.3 * (h + 1) * (q - k))
    x = torch.randn(2, 6, 8)
    (instance,) = found(model, x)
    q, k, _ = (heads(one) for one in model.projection(x).chunk(3, -1))
    places = torch.arange(6)
    slopes = 0.3 * torch.tensor([1.0, 2.0])[:, None, None] * (places[:, None] - places)
    scores = (q @ k.mT / 2 - slopes).masked_fill(places[:, None] < places, -math.inf)
    close(instance.weights(), scores.softmax(-1).detach())
    assert (instance.kind, instance.num_heads) == ("flex_attention", 2)


class FlashAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, k, v):
        return torch.empty_like(q)

    @staticmethod
    def backward(ctx, gradient):
        return gradient, gradient, gradient


def test_a_kernel_that_cannot_be_looked_into_is_named():
    model = Function(lambda x: FlashAttention.apply(x, x, x) * 2)
    with instrument(model) as probe, probe.track(only=[]) as tracker:
        model(torch.ones(2, 3, requires_grad=True))
    with pytest.raises(ArchitectureError, match="'/FlashAttention#0' computes attention in a kernel"):
        list(find_multi_head_attention(tracker.build_graph()))


def test_missing_values_are_named():
    (instance, *_) = found(*(lambda model, inputs: (model,))(*transformer("bert", "sdpa")), TOKENS)
    names = [node.name for node in instance.needed]
    assert len(names) == 2
    values = {names[0]: torch.zeros(2, 4, 5, 8)}
    with pytest.raises(LayerError, match=f"need {names[1]!r}, and there is {names[0][:8]}"):
        instance.weights(values)
    several = TensorMap([{instance.softmax_value.name: torch.ones(1)}] * 3, batched=True)
    with pytest.raises(ArgumentError, match="expected the tensors of one pass, got 3"):
        instance.weights(several)


def test_graphs_without_operations_and_of_failed_passes():
    assert not found(nn.Identity(), torch.ones(2))

    def forward(x):
        y = transposed(x, x, x)
        return y @ torch.ones(9, 9)

    model = Function(forward)
    with instrument(model) as probe, probe.track(only=[]) as tracker:
        with pytest.raises(RuntimeError):
            model(torch.ones(2, 5, 8))
    (instance,) = find_multi_head_attention(tracker.build_graph())
    close(instance.weights(), torch.full((2, 2, 5, 5), 0.2))


def test_the_node_of_derived_weights_computes_them_from_a_call():
    (instance, *_) = found(nn.TransformerEncoderLayer(8, 2, 16).eval(), torch.randn(3, 1, 8))
    node = instance.softmax_value
    assert isinstance(node, AttentionWeights)
    assert (node.name, node.kind) == ("self_attn/multi_head_attention_forward#0[weights]", "derived")
    assert node.producer == instance.operation.name
    x = torch.randn(4, 2, 8)  # of other lengths
    args = (x, x, x, *instance.operation.args[3:5], torch.randn(24, 8), None, None, None, False, 0.0)
    assert node.of_call((*args, torch.eye(8), None), {}).shape == (2, 2, 4, 4)
