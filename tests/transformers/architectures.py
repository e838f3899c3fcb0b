"""Tiny random language models of many architectures, each built in milliseconds."""

from functools import cache

import torch
from transformers import AutoConfig, AutoModelForCausalLM

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
GROUPED = {**SIZES, "num_key_value_heads": 2}
OLD = {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64}
NEO = {"hidden_size": 32, "num_layers": 3, "num_heads": 4, "max_position_embeddings": 64, "window_size": 3}
EXPERTS = {
    **GROUPED,
    "num_local_experts": 4,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "head_dim": 8,
}
ROPE = {"rope_type": "default", "rope_theta": 1e4}
JAMBA = {"attn_layer_period": 2, "attn_layer_offset": 1, "mamba_d_state": 4, "num_experts": 1}
STATE_SPACE = {"hidden_size": 32, "num_hidden_layers": 3, "state_size": 4}

KNOWN = {
    "gpt2": OLD,
    "gpt_bigcode": OLD,
    "gptj": {**OLD, "rotary_dim": 4},
    "codegen": {**OLD, "rotary_dim": 4},
    "gpt_neo": {**NEO, "attention_types": [[["global", "local"], 1], [["global"], 1]]},
    "gpt_neox": SIZES,
    "llama": GROUPED,
    "mistral": {**GROUPED, "sliding_window": 3},
    "qwen2": GROUPED,
    "qwen3": {**GROUPED, "head_dim": 8},
    "stablelm": GROUPED,
    "cohere": {**GROUPED, "logit_scale": 1.0},
    "olmo2": GROUPED,
    "gemma": {**GROUPED, "head_dim": 8},
    "gemma2": {  # whose soft caps the sdpa attention leaves out before transformers 5.21
        **GROUPED,
        "head_dim": 8,
        "sliding_window": 3,
        "query_pre_attn_scalar": 8,
        "attn_implementation": "eager",
    },
    "gemma3_text": {**GROUPED, "head_dim": 8, "sliding_window": 3, "query_pre_attn_scalar": 8},
    "phi3": GROUPED,
    "phi": SIZES,
    "starcoder2": GROUPED,
    "opt": {**SIZES, "ffn_dim": 48, "word_embed_proj_dim": 32},
    "bloom": {"hidden_size": 32, "n_layer": 3, "n_head": 4},
    "falcon": SIZES,
    "mpt": {"d_model": 32, "n_layers": 3, "n_heads": 4, "max_seq_len": 64},
    "mamba": STATE_SPACE,
    "mixtral": EXPERTS,
    "qwen3_moe": EXPERTS,
    "gpt_oss": {**EXPERTS, "sliding_window": 3, "rope_parameters": ROPE},
}
SEARCHED = {
    "granite": GROUPED,
    "nemotron": GROUPED,
    "olmo": SIZES,
    "cohere2": {**GROUPED, "sliding_window": 3, "logit_scale": 1.0},
    "exaone4": {**GROUPED, "head_dim": 8},
    "mamba2": {**STATE_SPACE, "num_heads": 8, "head_dim": 8, "n_groups": 2, "chunk_size": 8},
    "jamba": {**GROUPED, **JAMBA},
    "qwen2_moe": {**EXPERTS, "shared_expert_intermediate_size": 24},
}
ARCHITECTURES = {**KNOWN, **SEARCHED}
TOKENS = 64

SHARED = set()  # the ids of the models that tests share and leave as they are


@cache
def build(kind):
    """A model whose weights are large enough that every state matters for the answer."""
    options = {"vocab_size": TOKENS, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    config = AutoConfig.for_model(kind, **options, **ARCHITECTURES[kind])
    model = AutoModelForCausalLM.from_config(config).eval()
    generator = torch.Generator().manual_seed(0)
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 1.5 * parameter.shape[-1] ** -0.5, generator=generator)
        # Tied heads: large embeddings would make every model sure of one token, whatever happens inside.
        model.get_input_embeddings().weight.mul_(0.6 if tied else 3)
    SHARED.add(id(model))
    return model
