"""Tiny random encoders of texts and of pictures, each built in milliseconds."""

from functools import cache

import torch
from architectures import SHARED
from transformers import AutoConfig, CLIPTextModel, CLIPVisionModel, T5EncoderModel
from transformers.models.auto.modeling_auto import AutoModel

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 40,
}
TEXTS = {"vocab_size": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
PICTURES = {"image_size": 12, "patch_size": 4}
T5 = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 3, "num_heads": 4, **TEXTS}
ENCODERS = {
    "bert": (AutoModel.from_config, {**SIZES, **TEXTS}),
    "roberta": (AutoModel.from_config, {**SIZES, **TEXTS, "pad_token_id": 1}),
    "t5": (T5EncoderModel._from_config, T5),
    "vit": (AutoModel.from_config, {**SIZES, **PICTURES}),
    "clip_text_model": (CLIPTextModel._from_config, {**SIZES, **TEXTS}),
    "clip_vision_model": (CLIPVisionModel._from_config, {**SIZES, **PICTURES}),
}


@cache
def build_encoder(kind):
    """A model whose weights are large enough that every state matters."""
    make, options = ENCODERS[kind]
    model = make(AutoConfig.for_model(kind, **options)).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 1.5 * parameter.shape[-1] ** -0.5, generator=generator)
    SHARED.add(id(model))
    return model


def inputs_of(model, rows=2, length=9):
    """Random tokens or pictures for a model."""
    generator = torch.Generator().manual_seed(1)
    if model.main_input_name == "pixel_values":
        return {"pixel_values": torch.rand(rows, 3, 12, 12, generator=generator)}
    return {"input_ids": torch.randint(3, 60, (rows, length), generator=generator)}
