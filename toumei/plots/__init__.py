"""What the library draws: arrays in, matplotlib axes, pictures or pages out."""

from .images import (
    image_grid,
    montage,
    save_animation,
    save_figure,
    save_grid,
    save_pixels,
    show,
    side_by_side,
    to_pil,
)
from .statistics import distribution, heat_map
from .tokens import draw_tokens, shade, token_figure_size

__all__ = [
    "distribution",
    "draw_tokens",
    "heat_map",
    "image_grid",
    "montage",
    "save_animation",
    "save_figure",
    "save_grid",
    "save_pixels",
    "shade",
    "show",
    "side_by_side",
    "to_pil",
    "token_figure_size",
]
