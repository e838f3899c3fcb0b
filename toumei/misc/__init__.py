"""Questions to whole networks: modularity, style, sharpness, the tangent kernel and rank.

`modularity` asks whether a network falls into modules, `StyleTransfer` paints one picture in the style of
another, `sharpness`, `ntk` and `rank` measure minima, tangent kernels and activations.
"""

from typing import TYPE_CHECKING, Any

from .modularity.communities import CNNGraph, MLPGraph, ModelGraph

if TYPE_CHECKING:
    from .style_transfer import StyleTransfer

__all__ = ["CNNGraph", "MLPGraph", "ModelGraph", "StyleTransfer"]


def __getattr__(name: str) -> Any:
    if name == "StyleTransfer":  # found when it is first used: it needs kornia, which takes a second
        from .style_transfer import StyleTransfer

        return StyleTransfer
    raise AttributeError(f"module 'toumei.misc' has no attribute {name!r}")
