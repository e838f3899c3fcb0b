"""A transformer with wired induction heads: the weights are formulas, every edge of the circuit is known."""

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from ..core.checks import check_counts, checked
from ..core.errors import ArgumentError
from ..core.seeding import make_generator, seeded
from ..core.summaries import counted
from .attention_decoder import AttentionConfig, DecoderForCausalLM


class Edge(NamedTuple):
    """What one part of a transformer reads from another.

    Attributes:
        sender: ``"embed"``, ``"pos_embed"``, or a head as layer and head, such as ``"0.1"``.
        receiver: A head, or ``"logits"``.
        kind: The input of the head, ``"q"``, ``"k"`` or ``"v"``; empty for the logits, which have one input.

    Example:
        >>> edge = Edge("0.0", "1.0", "k")  # the keys of head 1.0 read what head 0.0 writes
        >>> edge.sender, edge.kind
        ('0.0', 'k')
    """

    sender: str
    receiver: str
    kind: str


class InductionTransformer(DecoderForCausalLM):
    """A causal language model of two attention layers that repeats what it has read, by a known circuit.

    There is no MLP, no norm and no bias. The residual stream has four subspaces, listed in `subspaces`:
    the token (one-hot), the position (one-hot), the previous token, and the next token, which alone the
    logits read. Each layer has two heads (Elhage et al. 2021, "A Mathematical Framework for Transformer
    Circuits", describe the first and the third):

    - ``0.0``, the previous-token head, copies the token before into the subspace of the previous token.
    - ``0.1`` attends to the current token and adds nothing.
    - ``1.0``, the induction head, attends to tokens whose previous token is the current one, and copies them
      into the subspace of the next token.
    - ``1.1``, a duplicate-token head, attends to earlier occurrences of the current token and to itself. It
      adds them to the subspace of the token, which nothing reads after it.

    A key that matches has the score `sharpness`, others have 0: of n keys that are seen, a single match gets
    the weight 1 / (1 + (n - 1) exp(-sharpness)). Where nothing matches, a head attends to all alike. After
    the beginning token and a repeated sequence of different tokens, each next token of the second half is
    predicted right.

    Modules have the names of Llama: ``model.embed_tokens``, ``model.layers.0.self_attn.q_proj``, ``lm_head``.

    Args:
        vocabulary: How many tokens there are; token 0 begins texts.
        positions: The largest number of tokens in a pass.
        sharpness: The score of a match, and the logit of a next token that has all the attention.

    Attributes:
        config: The sizes.
        subspaces: The dimensions of the residual stream by what they hold.
        edges: All edges without which the prediction is another one; any other can be cut.
        circuit: The heads of these edges.
        behaviours: What each head does.

    Raises:
        ArgumentError: Fewer than two tokens or positions, or a sharpness that is not positive and finite.

    Example:
        >>> model = InductionTransformer(vocabulary=6, positions=8)
        >>> tokens = torch.tensor([[0, 3, 1, 4, 3, 1]])
        >>> model(tokens).logits[0, -2:].argmax(-1)
        tensor([1, 4])
        >>> model.edges[-1]
        Edge(sender='1.0', receiver='logits', kind='')
    """

    edges = (
        Edge("pos_embed", "0.0", "q"),
        Edge("pos_embed", "0.0", "k"),
        Edge("embed", "0.0", "v"),
        Edge("embed", "1.0", "q"),
        Edge("0.0", "1.0", "k"),
        Edge("embed", "1.0", "v"),
        Edge("1.0", "logits", ""),
    )
    circuit = ("0.0", "1.0")
    behaviours: ClassVar[Mapping[str, str]] = {
        "0.0": "previous token",
        "0.1": "current token",
        "1.0": "induction",
        "1.1": "duplicate token",
    }

    @checked
    def __init__(self, vocabulary: int = 32, positions: int = 64, sharpness: float = 20.0) -> None:
        check_counts(2, vocabulary=vocabulary, positions=positions)
        if not 0 < sharpness < float("inf"):
            raise ArgumentError(f"sharpness is positive and finite, got {sharpness}")
        sizes = {"token": vocabulary, "position": positions, "previous": vocabulary, "next": vocabulary}
        subspaces, width = {}, 0
        for name, size in sizes.items():
            subspaces[name] = slice(width, width + size)
            width += size
        config = AttentionConfig(
            vocab_size=vocabulary,
            max_position_embeddings=positions,
            hidden_size=width,
            head_dim=max(vocabulary, positions),
            model_type="induction",
        )
        with seeded(0):  # weights that are overwritten do not change the global generator
            super().__init__(config, vocabulary)
        self.subspaces, self.sharpness = subspaces, sharpness
        self._wire()
        self.eval()

    @checked
    def sequences(self, batch: int, length: int, seed: int = 0) -> Tensor:
        """Returns sequences (batch, 1 + 2 length): the beginning token, different random tokens, these again.

        Args:
            batch: How many sequences.
            length: How many tokens are repeated.
            seed: Draws the tokens.

        Raises:
            ArgumentError: There are too few tokens or positions for the length.

        Example:
            >>> InductionTransformer(vocabulary=6).sequences(1, 3)
            tensor([[0, 3, 4, 5, 3, 4, 5]])
        """
        check_counts(1, batch=batch, length=length)
        most = min(self.config.vocab_size - 1, (self.config.max_position_embeddings - 1) // 2)
        if length > most:
            raise ArgumentError(f"the model repeats at most {counted(most, 'different token')}, got {length}")
        generator = make_generator(seed)
        order = torch.rand(batch, self.config.vocab_size - 1, generator=generator).argsort(-1)
        repeated = order[:, :length] + 1
        return torch.cat([torch.zeros(batch, 1, dtype=torch.long), repeated, repeated], 1)

    @torch.no_grad()
    def _wire(self) -> None:
        """Writes all weights: one-hot embeddings, four heads, and the logits."""
        for parameter in self.parameters():
            parameter.zero_()
        tokens, positions = self.model.embed_tokens.weight, self.model.embed_positions.weight
        tokens[:, self.subspaces["token"]] = torch.eye(len(tokens))
        positions[:, self.subspaces["position"]] = torch.eye(len(positions))
        shift = torch.diag(torch.ones(len(positions) - 1), 1)  # position p asks for p - 1, the first for none
        self._wire_head(0, 0, query=shift, asks="position", key="position", writes="previous")
        self._wire_head(0, 1, query=torch.eye(len(positions)), asks="position", key="position", writes=None)
        same = torch.eye(len(tokens))
        self._wire_head(1, 0, query=same, asks="token", key="previous", writes="next")
        self._wire_head(1, 1, query=same, asks="token", key="token", writes="token")
        self.lm_head.weight[:, self.subspaces["next"]] = self.sharpness * same

    def _wire_head(
        self, layer: int, head: int, *, query: Tensor, asks: str, key: str, writes: str | None
    ) -> None:
        """Makes a head attend to the keys that it asks for, and write their token into a subspace."""
        attention: Any = self.model.layers[layer].self_attn
        size = self.config.head_dim
        start, count = head * size, len(query)
        rows = slice(start, start + count)
        scale = self.sharpness * size**0.5  # scores are divided by the root of the size
        attention.q_proj.weight[rows, self.subspaces[asks]] = scale * query
        attention.k_proj.weight[rows, self.subspaces[key]] = torch.eye(count)
        if writes is not None:
            copy = torch.eye(self.config.vocab_size)
            rows = slice(start, start + len(copy))
            attention.v_proj.weight[rows, self.subspaces["token"]] = copy
            attention.o_proj.weight[self.subspaces[writes], rows] = copy
