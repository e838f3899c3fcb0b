"""What the library draws: arrays in, matplotlib axes, pictures or pages out."""

from .html import data_uri, escaped, figure, page, picture, save_page, script_data, token_spans
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
    "data_uri",
    "distribution",
    "draw_tokens",
    "escaped",
    "figure",
    "heat_map",
    "image_grid",
    "montage",
    "page",
    "picture",
    "save_animation",
    "save_figure",
    "save_grid",
    "save_page",
    "save_pixels",
    "script_data",
    "shade",
    "show",
    "side_by_side",
    "to_pil",
    "token_figure_size",
    "token_spans",
]
