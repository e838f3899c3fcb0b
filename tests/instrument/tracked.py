"""Graphs of small models, for the tests of what is found in them."""

import torch
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

from toumei.instrument import instrument

TEXT = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "vocab_size": 50,
    "pad_token_id": 0,
}
GROUPED = {**TEXT, "num_key_value_heads": 2, "head_dim": 8, "bos_token_id": 1, "eos_token_id": 2}
PICTURES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 16,
    "patch_size": 4,
}
T5 = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "vocab_size": 50}
KINDS = {
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "vocab_size": 50},
    "llama": GROUPED,
    "gemma2": {**GROUPED, "sliding_window": 3, "query_pre_attn_scalar": 8},
    "mixtral": {**GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2},
    "gpt_oss": {**GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 3},
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4, "vocab_size": 50},
    "mamba": {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4, "vocab_size": 50},
    "bitnet": GROUPED,
    "apertus": GROUPED,
    "bert": TEXT,
    "roberta": TEXT,
    "albert": {**TEXT, "embedding_size": 16},
    "deberta-v2": {**TEXT, "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 4},
    "xlnet": {"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 48, "vocab_size": 50},
    "t5": {**T5, "feed_forward_proj": "gated-gelu", "decoder_start_token_id": 0},
    "vit": PICTURES,
    "clip_vision_model": PICTURES,
    "swin": {
        "image_size": 32,
        "patch_size": 4,
        "embed_dim": 8,
        "depths": [1, 2],
        "num_heads": [2, 4],
        "window_size": 4,
    },
}
LANGUAGE_MODELS = ("gpt2", "llama", "gemma2", "mixtral", "gpt_oss", "bloom", "bitnet", "apertus", "mamba")
TOKENS = torch.tensor([[3, 4, 5, 6, 7], [8, 9, 10, 11, 12]])
PADDED = {"input_ids": TOKENS, "attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])}


def transformer(kind, attention="eager", **options):
    """A tiny random model of Hugging Face, and inputs for it."""
    config = AutoConfig.for_model(kind, **{**KINDS[kind], **options})
    made = AutoModelForCausalLM if kind in LANGUAGE_MODELS else AutoModel
    torch.manual_seed(0)
    model = made.from_config(config, attn_implementation=attention).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:  # large enough for attention that is not uniform
                parameter.normal_(0, parameter.shape[-1] ** -0.5)
    if kind in ("vit", "clip_vision_model", "swin"):
        return model, {"pixel_values": torch.randn(2, 3, config.image_size, config.image_size)}
    more = {"decoder_input_ids": TOKENS[:, :3]} if kind == "t5" else {}
    return model, {"input_ids": TOKENS, **more}


def graph_of(model, *inputs, **options):
    """The graph of a forward pass."""
    with torch.no_grad(), instrument(model) as probe, probe.track(only=[]) as tracker:
        model(*inputs, **options)
    return tracker.build_graph()


class Function(nn.Module):
    """A function as a model."""

    def __init__(self, function, **parts):
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *inputs):
        return self.function(*inputs)
