"""Models whose memories are planted, and a tokenizer of the words w0 to w39."""

from functools import cache

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM, PreTrainedTokenizerFast

WORDS = 40


@cache
def words():
    """A token for each word; <pad> is w0."""
    tokenizer = Tokenizer(models.WordLevel({f"w{index}": index for index in range(WORDS)}, "w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="w0", pad_token="w0")


class Planted(nn.Module):
    """Neuron i fires at word `keys[i]` and promotes word `values[i]`; nothing else is in it."""

    def __init__(self, keys, values):
        super().__init__()
        self.embedding, self.head = nn.Embedding(WORDS, WORDS), nn.Linear(WORDS, WORDS, bias=False)
        self.up, self.down = nn.Linear(WORDS, len(keys), bias=False), nn.Linear(len(keys), WORDS, bias=False)
        unit = torch.eye(WORDS)
        with torch.no_grad():
            self.embedding.weight.copy_(unit)
            self.head.weight.copy_(unit)
            self.up.weight.copy_(unit[keys])
            self.down.weight.copy_(unit[values].T)

    def get_input_embeddings(self):
        return self.embedding

    def get_output_embeddings(self):
        return self.head

    def forward(self, ids):
        stream = self.embedding(ids)
        return self.head(stream + self.down(self.up(stream).relu()))


SIZES = {
    "gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 24},
    "llama": {
        "hidden_size": 16,
        "intermediate_size": 20,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 24,
    },
}
SIZES["bert"] = SIZES["phi3"] = SIZES["gpt_neox"] = SIZES["llama"]
LAYERS = {
    "gpt2": "transformer.h.{}.mlp.c_proj",
    "llama": "model.layers.{}.mlp.down_proj",
    "phi3": "model.layers.{}.mlp.down_proj",
    "gpt_neox": "gpt_neox.layers.{}.mlp.dense_4h_to_h",
    "bert": "bert.encoder.layer.{}.output.dense",
}


def tiny(kind, dtype=torch.float64):
    """A random model of two layers, in double precision, so that other batches give equal numbers."""
    torch.manual_seed(0)
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    config = AutoConfig.for_model(kind, vocab_size=WORDS, **ids, **SIZES[kind])
    family = AutoModelForMaskedLM if kind == "bert" else AutoModelForCausalLM
    model = family.from_config(config).eval().to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.4)
    return model


def layers_of(kind):
    return [LAYERS[kind].format(index) for index in range(2)]


def corpus(count=30, seed=0, longest=12):
    """Random texts of 1 to 12 words; the first words differ, so that no two prefixes are the same."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, longest + 1, (count,), generator=generator).tolist()
    rows = [torch.randint(WORDS, (length,), generator=generator).tolist() for length in lengths]
    return [" ".join(f"w{word}" for word in [index % WORDS, *row[1:]]) for index, row in enumerate(rows)]
