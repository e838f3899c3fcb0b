"""The names of the nodes of a circuit, and how they are taken apart."""

import re
from dataclasses import dataclass

from ...core.errors import ArgumentError
from ...core.kinds import shown

EMBEDDINGS = ("embed", "pos_embed")
LOGITS = "logits"
_HEAD = re.compile(r"a(\d+)\.(\d+)(?:-(\d+))?(?:<([qkv])>)?")
_MLP = re.compile(r"m(\d+)")


@dataclass(frozen=True)
class Place:
    """Where a node is.

    Attributes:
        kind: ``"embedding"``, ``"head"``, ``"mlp"`` or ``"logits"``.
        layer: The block, -1 for embeddings; None for the logits.
        heads: The heads, one for a writer; those that share keys and values for a reader.
        input: ``"q"``, ``"k"``, ``"v"``, or empty.
    """

    kind: str
    layer: int | None
    heads: tuple[int, ...] = ()
    input: str = ""

    @property
    def writers(self) -> tuple[str, ...]:
        """The labels of the nodes whose input this is; none for the logits."""
        if self.kind == "head":
            return tuple(head_label(self.layer or 0, head) for head in self.heads)
        return (f"m{self.layer}",) if self.kind == "mlp" else ()


def head_label(layer: int, head: int) -> str:
    """Returns the label of what a head writes.

    Example:
        >>> head_label(5, 2)
        'a5.2'
    """
    return f"a{layer}.{head}"


def input_label(layer: int, heads: tuple[int, ...], kind: str) -> str:
    """Returns the label of an input of a head, or of heads that share keys and values.

    Example:
        >>> input_label(5, (2,), "q"), input_label(5, (0, 1, 2), "k")
        ('a5.2<q>', 'a5.0-2<k>')
    """
    numbers = str(heads[0]) if len(heads) == 1 else f"{heads[0]}-{heads[-1]}"
    return f"a{layer}.{numbers}<{kind}>"


def place_of(label: str) -> Place:
    """Returns where the node of a label is.

    Raises:
        ArgumentError: It is no label of a node.

    Example:
        >>> place_of("a5.0-2<k>")
        Place(kind='head', layer=5, heads=(0, 1, 2), input='k')
        >>> place_of("m3").kind, place_of("embed").layer
        ('mlp', -1)
    """
    if label in EMBEDDINGS:
        return Place("embedding", -1)
    if label == LOGITS:
        return Place("logits", None)
    if (found := _MLP.fullmatch(label)) is not None:
        return Place("mlp", int(found[1]))
    found = _HEAD.fullmatch(label)
    if found is None:
        raise ArgumentError(
            f"nodes are 'embed', 'pos_embed', 'm3', 'a5.2', their inputs 'm3', 'a5.2<q>', 'a5.0-2<k>', "
            f"'logits'; got {shown(label)}"
        )
    first, last = int(found[2]), int(found[3] or found[2])
    return Place("head", int(found[1]), tuple(range(first, last + 1)), found[4] or "")
