"""Small causal language models without norms, with or without MLPs. Modules have the names of Llama."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..core.errors import ArgumentError
from ..core.summaries import counted

if TYPE_CHECKING:
    from transformers.modeling_outputs import CausalLMOutput


@dataclass(frozen=True, kw_only=True)
class AttentionConfig:
    """The sizes of an `AttentionDecoder`, under the names that Hugging Face uses.

    There are MLPs where `intermediate_size`, their number of neurons, is not 0.
    """

    vocab_size: int
    max_position_embeddings: int
    hidden_size: int
    head_dim: int
    num_hidden_layers: int = 2
    num_attention_heads: int = 2
    intermediate_size: int = 0
    bos_token_id: int | None = 0
    model_type: str


class DecoderForCausalLM(nn.Module):
    """An `AttentionDecoder` with logits, called as the causal language models of Hugging Face.

    Args:
        config: The sizes.
        outputs: How many logits there are.
    """

    def __init__(self, config: AttentionConfig, outputs: int) -> None:
        super().__init__()
        self.config = config
        self.model = AttentionDecoder(config)
        self.lm_head = nn.Linear(config.hidden_size, outputs, bias=False)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        *,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
        use_cache: bool = False,
    ) -> "CausalLMOutput":
        """Returns logits (N, T, outputs) and what is asked for, as causal language models of Hugging Face do.

        Args:
            input_ids: Tokens (N, T).
            attention_mask: (N, T), 1 for tokens and 0 for padding. Positions count tokens only.
            output_attentions: Also returns the weights (N, heads, T, T) of each layer.
            output_hidden_states: Also returns the residual stream (N, T, width) before, between and after the
                layers.
            use_cache: Taken for the sake of callers; there is no cache.

        Raises:
            ArgumentError: There are more tokens than positions.
        """
        from transformers.modeling_outputs import CausalLMOutput

        length, positions = input_ids.shape[-1], self.config.max_position_embeddings
        if length > positions:
            raise ArgumentError(
                f"the model has {counted(positions, 'position')}, got {counted(length, 'token')}"
            )
        states, attentions = self.model(input_ids, attention_mask)
        return CausalLMOutput(
            logits=self.lm_head(states[-1]),
            hidden_states=states if output_hidden_states else None,
            attentions=attentions if output_attentions else None,
        )

    def get_input_embeddings(self) -> nn.Embedding:
        """Returns the embedding of the tokens."""
        return self.model.embed_tokens

    def get_output_embeddings(self) -> nn.Linear:
        """Returns the map from the residual stream to the logits."""
        return self.lm_head


class AttentionDecoder(nn.Module):
    """Embeddings of tokens and positions, and layers that add attention and MLP to the residual stream.

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
    """Attention, which is added to the residual stream, then an MLP if the sizes have one."""

    def __init__(self, config: AttentionConfig) -> None:
        super().__init__()
        self.self_attn = _Attention(config)
        self.mlp = _FeedForward(config) if config.intermediate_size else None

    def forward(self, hidden_states: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """The residual stream after the layer, and the weights (N, heads, T, T)."""
        added, weights = self.self_attn(hidden_states, attention_mask=attention_mask)
        hidden_states = hidden_states + added
        if self.mlp is not None:
            hidden_states = hidden_states + self.mlp(hidden_states)
        return hidden_states, weights


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


class _FeedForward(nn.Module):
    """Two linear maps with a ReLU between them."""

    def __init__(self, config: AttentionConfig) -> None:
        super().__init__()
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size)
        self.act_fn = nn.ReLU()
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """What is added to the residual stream."""
        added: Tensor = self.down_proj(self.act_fn(self.up_proj(hidden_states)))
        return added
