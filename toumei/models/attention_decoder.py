"""A decoder of attention layers alone: no MLP, no norm, no bias. Modules have the names of Llama."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class AttentionConfig:
    """The sizes of an `AttentionDecoder`, under the names that Hugging Face uses."""

    vocab_size: int
    max_position_embeddings: int
    hidden_size: int
    head_dim: int
    num_hidden_layers: int = 2
    num_attention_heads: int = 2
    bos_token_id: int = 0
    model_type: str


class AttentionDecoder(nn.Module):
    """Embeddings of tokens and positions, and layers that each add their attention to the residual stream.

    Args:
        config: The sizes.
    """

    def __init__(self, config: AttentionConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.embed_positions = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.layers = nn.ModuleList(_Layer(config) for _ in range(config.num_hidden_layers))

    def forward(self, tokens: Tensor, mask: Tensor | None) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Returns the residual stream before, between and after the layers, and the weights of the layers.

        Args:
            tokens: (N, T).
            mask: (N, T), 1 for tokens and 0 for padding; positions count tokens only.

        Returns:
            Tensors (N, T, width), and tensors (N, heads, query, key).
        """
        mask = torch.ones_like(tokens) if mask is None else mask
        positions = (mask.long().cumsum(-1) - 1).clamp_min(0)
        hidden_states = self.embed_tokens(tokens) + self.embed_positions(positions)
        seen = torch.ones(2 * tokens.shape[-1:], device=tokens.device).tril() * mask[:, None, None]
        least = torch.finfo(hidden_states.dtype).min
        bias = torch.zeros_like(seen, dtype=hidden_states.dtype).masked_fill(seen == 0, least)
        states, attentions = [hidden_states], []
        for layer in self.layers:
            hidden_states, weights = layer(hidden_states, attention_mask=bias)
            states.append(hidden_states)
            attentions.append(weights)
        return tuple(states), tuple(attentions)


class _Layer(nn.Module):
    """Attention, which is added to the residual stream."""

    def __init__(self, config: AttentionConfig) -> None:
        super().__init__()
        self.self_attn = _Attention(config)

    def forward(self, hidden_states: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """The residual stream after the layer, and the weights (N, heads, T, T)."""
        added, weights = self.self_attn(hidden_states, attention_mask=attention_mask)
        return hidden_states + added, weights


class _Attention(nn.Module):
    """Softmax attention of several heads, as in Llama without rotary positions."""

    def __init__(self, config: AttentionConfig) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        width, inner = config.hidden_size, config.num_attention_heads * config.head_dim
        self.q_proj = nn.Linear(width, inner, bias=False)
        self.k_proj = nn.Linear(width, inner, bias=False)
        self.v_proj = nn.Linear(width, inner, bias=False)
        self.o_proj = nn.Linear(inner, width, bias=False)

    def forward(self, hidden_states: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """What is added to the residual stream, and the weights (N, heads, T, T)."""
        query, key, value = (
            projection(hidden_states).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        scores = query @ key.transpose(-1, -2) * self.head_dim**-0.5 + attention_mask
        weights = scores.softmax(-1)
        return self.o_proj((weights @ value).transpose(1, 2).flatten(2)), weights
