"""What happens to queries and keys between their projection and their product: norms and rotations."""

import torch
from torch import Tensor

from ...core.errors import ArchitectureError
from ...instrument import TensorNode
from ..model.hook_points import HookPoint
from ..model.hook_search import HookPoints
from .norm_factors import between

_TOLERANCE = 1e-3


def query_key_gains(points: HookPoints, layer: int, letter: str, start: TensorNode) -> Tensor | None:
    """Returns the gains (heads, d_head) of a norm of queries or keys; None where there is no norm.

    They are measured at the first position, where nothing is rotated.

    Args:
        points: The hook points.
        layer: The layer.
        letter: ``"q"`` or ``"k"``.
        start: The output of the projection.

    Raises:
        ArchitectureError: Something other than a norm by the root mean square is there.
    """
    attention = points.attentions[layer]
    end = attention.query if letter == "q" else attention.key
    if not any(node.kind == "parameter" for node in between(points.graph, start, end)):
        return None
    before, after = _trial(points, layer, letter, start, seed=0)
    given, got = before[:, 0], after[:, 0]  # (2, heads, d_head) at the first position
    for axes in ((-1,), (-2, -1)):  # of each head, or of all heads together
        normalized = given / given.square().mean(axes, keepdim=True).sqrt()
        gains = (got * normalized).sum(0) / normalized.square().sum(0)
        if (got - gains * normalized).abs().max() <= _TOLERANCE * got.abs().max():
            return gains
    raise ArchitectureError(
        f"what happens to {'queries' if letter == 'q' else 'keys'} of layer {layer} before their product is "
        f"no norm by the root mean square: it cannot be folded"
    )


def relative_rotation(points: HookPoints, layer: int, start: TensorNode, distance: int) -> Tensor:
    """Returns the rotation (d_head, d_head) of queries as many positions after a key, as rows: ``q @ R``.

    The rotation of one position is measured with random queries, that of others is its power, as for rotary
    position embeddings (Su et al. 2021, arXiv:2104.09864, equation 16). Without rotation it is the identity.

    Args:
        points: The hook points.
        layer: The layer.
        start: The output of the projection of the queries.
        distance: How many positions the query is after the key.

    Raises:
        ArchitectureError: Positions change queries in another way.
    """
    d_head = points.attentions[layer].query.shape[-1]
    if f"blocks.{layer}.attn.hook_rot_q" not in points.points:
        return torch.eye(d_head, dtype=torch.float64)
    rows: list[Tensor] = []
    while sum(len(one) for one in rows) < d_head:
        _, after = _trial(points, layer, "q", start, seed=len(rows))
        rows.append(after[:, :3].transpose(1, 2).flatten(0, 1))  # (2 heads, 3 positions, d_head)
    first, second, third = torch.cat(rows).unbind(1)
    rotation: Tensor = torch.linalg.lstsq(first, second).solution
    margin = _TOLERANCE * first.abs().max()
    if any(
        (expected - got).abs().max() > margin
        for expected, got in ((first @ rotation, second), (second @ rotation, third))
    ):
        raise ArchitectureError(f"positions do not rotate the queries of layer {layer} one by one")
    result: Tensor = torch.linalg.matrix_power(rotation, distance)
    return result


def _trial(
    points: HookPoints, layer: int, letter: str, start: TensorNode, seed: int
) -> tuple[Tensor, Tensor]:
    """Random queries or keys, the same at all positions, and what they are in the product.

    Both are (batch, position, heads, d_head).
    """
    prefix = f"blocks.{layer}.attn.hook_"
    point, rotated = points.points[prefix + letter], points.points.get(f"{prefix}rot_{letter}")
    if not isinstance(rotated, HookPoint):
        raise ArchitectureError(
            f"it cannot be told what happens to the {letter} of layer {layer} after its norm"
        )
    assert isinstance(point, HookPoint)
    numbers = torch.randn(2, 1, start.shape[-1], generator=torch.Generator().manual_seed(seed))
    length = points.attentions[layer].query_length
    values = numbers.expand(-1, length, -1).reshape(start.shape).to(start.device, start.dtype)
    with torch.no_grad():
        found = points.graph.replay({start.name: values}, record=[rotated.layer])[rotated.layer]
    return point.read(values, 2).cpu().double(), rotated.read(found, 2).cpu().double()
