"""AttentionComposer: how two heads work together, by their weights, in a pass and by intervention."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...core.checks import check_choice, checked
from ...core.errors import ArgumentError, ShapeError
from ..heads.composition import composition_of_layers
from ..heads.weights import head_weights, input_factor, projection_input
from ..model.point_names import Key
from .base import HookedTool

Head = tuple[int, int]


class HeadComposition(NamedTuple):
    """Composition scores of two heads.

    Attributes:
        q: Q-composition.
        k: K-composition.
        v: V-composition.
        baseline: The average of heads with random weights, 1 / sqrt(width).

    Example:
        >>> HeadComposition(q=0.0, k=0.9, v=0.1, baseline=0.2).k
        0.9
    """

    q: float
    k: float
    v: float
    baseline: float


class AttentionComposer(HookedTool):
    """Shows how a head uses what an earlier head writes.

    The names are those of Arrakis' tool ``composer``. Its argument ``alpha`` blended columns of the weights
    of two heads, which is no composition, and is left out.

    Args:
        model: The model.

    Example:
        >>> from toumei.models import InductionTransformer
        >>> from toumei.transformers.model.hooked_model import HookedModel
        >>> composer = AttentionComposer(HookedModel(InductionTransformer(vocabulary=16, positions=8)))
        >>> scores = composer.head_composition((0, 0), (1, 0))  # previous-token head, induction head
        >>> scores.k > scores.baseline, scores.q
        (True, 0.0)
    """

    @checked
    def head_composition(self, head1: Head, head2: Head) -> HeadComposition:
        """Returns the Q-, K- and V-composition of two heads; see `composition_scores`.

        Args:
            head1: Layer and number of the head that writes.
            head2: Layer and number of the head that reads, in a later layer.

        Raises:
            ArgumentError: There is no such head, or the second one is in no later layer.
            ArchitectureError: The weights cannot be told, or norms not be folded.
        """
        self._check_pair(head1, head2)
        found = composition_of_layers(self.model, head1[0], head2[0])
        q, k, v = (float(scores[head1[1], head2[1]]) for scores in found)
        return HeadComposition(q, k, v, self.model.width**-0.5)

    @checked
    @torch.no_grad()
    def apply_composed_head(self, input_ids: Any, head1: Head, head2: Head) -> Tensor:
        """Returns what two heads write as one virtual head, (batch, position, width).

        That is the part of the second head's output that it took by its values from the first head:
        A2 A1 x W_OV1 W_OV2 with the attention weights A and the divisors of norms of this pass (Elhage et al.
        2021, section "Virtual attention heads").

        Args:
            input_ids: Tokens, or a text.
            head1: Layer and number of the first head.
            head2: Layer and number of the second head, in a later layer.

        Raises:
            ArgumentError: There is no such head, or the second one is in no later layer.
            ArchitectureError: A norm stands between the heads and the stream, or cannot be told.
        """
        self._check_pair(head1, head2)
        (one, first), (two, second) = head1, head2
        points = self.model.points
        given = projection_input(points, two, "v").name
        names: list[str | Key] = [("result", one), ("pattern", two), ("resid_pre", two), given]
        cache = self._cache(input_ids, names)
        factor = input_factor(points, two)
        stream = cache["resid_pre", two]
        scale = factor.scale(stream, cache[given].reshape(stream.shape))
        weights = head_weights(self.model, two)
        moved = cache["pattern", two][:, second] @ (factor.after(cache["result", one][:, :, first]) * scale)
        return moved @ weights.W_V[second].to(moved) @ weights.W_O[second].to(moved)

    @checked
    @torch.no_grad()
    def attention_path_patching(
        self,
        input_ids: Any,
        corrupted_ids: Any,
        src: Head,
        dst: Head,
        *,
        inputs: Sequence[str] = ("q", "k", "v"),
        through_mlps: bool = False,
    ) -> Tensor:
        """Returns the logits when a head reads another text from an earlier head, and nothing else changes.

        Path patching: the sender has its output on the corrupted text, other heads keep theirs on the first
        text, and the queries, keys and values that the receiver then computes are put into a pass on the
        first text (Wang et al. 2022, arXiv:2211.00593, appendix B).

        Args:
            input_ids: Tokens, or a text.
            corrupted_ids: As many other tokens.
            src: Layer and number of the sender.
            dst: Layer and number of the receiver, in a later layer. Heads that share keys and values with it
                get these, too.
            inputs: By what the receiver reads.
            through_mlps: Whether MLPs between them answer to the change; by default they keep their outputs.

        Raises:
            ArgumentError: There is no such head or input, or the receiver is in no later layer.
            ShapeError: The texts have different lengths.
        """
        self._check_pair(src, dst)
        for one in inputs:
            check_choice("inputs", one, ("q", "k", "v"))
        clean, corrupted = self.model.to_tokens(input_ids), self.model.to_tokens(corrupted_ids)
        if clean.shape != corrupted.shape:
            raise ShapeError(f"texts are of {tuple(clean.shape)} and {tuple(corrupted.shape)} tokens")
        between = [layer for layer in self.model.points.attentions if src[0] < layer < dst[0]]
        frozen = [f"blocks.{layer}.attn.hook_z" for layer in between]
        if not through_mlps:
            outputs = [f"blocks.{layer}.hook_mlp_out" for layer in range(src[0], dst[0])]
            frozen += [name for name in outputs if name in self.model.points.points]
        kept = self._cache(clean, frozen)
        sent = self._cache(corrupted, [("z", src[0])])["z", src[0]]
        edits: dict[Any, Any] = {name: _constant(kept[name]) for name in frozen}
        with self.model.edit(edits | {("z", src[0]): _head(src[1], sent)}):
            received = self._cache(clean, [(one, dst[0]) for one in inputs])
        groups = {one: received[one, dst[0]].shape[2] for one in inputs}
        heads = self.model.points.attentions[dst[0]].num_heads
        arriving = {
            (one, dst[0]): _head(dst[1] * groups[one] // heads, received[one, dst[0]]) for one in inputs
        }
        with self.model.edit(arriving):
            return self.model(clean)

    def _check_pair(self, head1: Head, head2: Head) -> None:
        for layer, head in (head1, head2):
            self._check_head(layer, head)
        if head1[0] >= head2[0]:
            raise ArgumentError(f"the second head is in a later layer, got {head1} and {head2}")


def _constant(value: Tensor) -> Any:
    return lambda tensor: value


def _head(head: int, value: Tensor) -> Any:
    """An edit that gives one head the numbers that it has in another tensor."""

    def change(tensor: Tensor) -> Tensor:
        tensor = tensor.clone()
        tensor[:, :, head] = value[:, :, head]
        return tensor

    return change
