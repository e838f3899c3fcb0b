"""Edges of GPT-2 and Llama patched by hooks of PyTorch, written out for these two models."""

from contextlib import ExitStack, contextmanager

import torch

CLEAN = torch.tensor([[5, 9, 33, 7, 12, 40], [8, 21, 3, 50, 17, 11]])
CORRUPT = torch.tensor([[5, 9, 30, 7, 12, 40], [8, 21, 3, 51, 17, 11]])
ANSWERS, WRONG = [7, 8], [9, 10]


def metric(logits):
    """The mean logit difference at the last position."""
    last = logits[:, -1]
    rows = torch.arange(len(last))
    return (last[rows, ANSWERS] - last[rows, WRONG]).mean()


class PlainModel:
    """Where the parts of a tiny GPT-2 or Llama with grouped queries are."""

    def __init__(self, model):
        self.model, self.gpt2 = model, model.config.model_type == "gpt2"
        self.base = model.transformer if self.gpt2 else model.model
        self.blocks = self.base.h if self.gpt2 else self.base.layers
        self.heads = 4
        self.groups = 4 if self.gpt2 else 2

    def norm(self, layer, kind):
        block = self.blocks[layer]
        if self.gpt2:
            return block.ln_1 if kind == "attn" else block.ln_2
        return block.input_layernorm if kind == "attn" else block.post_attention_layernorm

    @property
    def final(self):
        return self.base.ln_f if self.gpt2 else self.base.norm

    def projection(self, layer, letter):
        """A linear map, and where the numbers of queries, keys or values begin in its output."""
        block = self.blocks[layer]
        if self.gpt2:
            return block.attn.c_attn, "qkv".index(letter) * 32
        return getattr(block.self_attn, f"{letter}_proj"), 0

    def written(self, tokens, writer):
        """What a node adds to the stream, (texts, positions, width)."""
        seen = {}
        if writer[0] == "m":
            module = self.blocks[int(writer[1:])].mlp
        elif writer == "embed":
            module = self.base.wte if self.gpt2 else self.base.embed_tokens
        else:
            attention = self.blocks[int(writer[1])]
            module = attention.attn.c_proj if self.gpt2 else attention.self_attn.o_proj
        note = module.register_forward_hook(lambda _, given, made: seen.update(given=given[0], made=made))
        with torch.no_grad():
            self.model(tokens)
        note.remove()
        if writer[0] != "a":
            return seen["made"]
        columns = slice(8 * int(writer[3]), 8 * int(writer[3]) + 8)
        weight = module.weight if self.gpt2 else module.weight.T
        return seen["given"][..., columns] @ weight[columns]

    @contextmanager
    def reading(self, reader, added):
        """The model in which one input reads the stream with something added to it."""
        with ExitStack() as stack:
            for handle in self._hooks(reader, added):
                stack.callback(handle.remove)
            yield

    def _hooks(self, reader, added):
        def shift(_, given):
            return (given[0] + added,)

        if reader == "logits":
            yield self.final.register_forward_pre_hook(shift)
        elif reader[0] == "m":
            yield self.norm(int(reader[1:]), "mlp").register_forward_pre_hook(shift)
        else:
            layer, letter, first = int(reader[1]), reader[-2], int(reader[3])
            number = first if letter == "q" else first // (self.heads // self.groups)
            norm, seen = self.norm(layer, "attn"), {}
            yield norm.register_forward_pre_hook(lambda _, given: seen.update(stream=given[0]))
            projection, start = self.projection(layer, letter)
            columns = slice(start + 8 * number, start + 8 * number + 8)

            def replace(module, _, made):
                other = module.forward(norm.forward(seen["stream"] + added))
                made = made.clone()
                made[..., columns] = other[..., columns]
                return made

            yield projection.register_forward_hook(replace)
