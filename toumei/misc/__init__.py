"""Questions to whole networks: modularity, style, sharpness, the tangent kernel and rank.

`modularity` asks whether a network falls into modules, `StyleTransfer` paints one picture in the style of
another, `sharpness`, `ntk` and `rank` measure minima, tangent kernels and activations.
"""

from .modularity.communities import CNNGraph, MLPGraph, ModelGraph

__all__ = ["CNNGraph", "MLPGraph", "ModelGraph"]
