"""What the library draws: arrays in, matplotlib axes, pictures or pages out.

A call that returns axes at the end of a notebook's cell prints them below the figure; a ``;`` after the call
leaves that out. A result at the end of a cell shows its text and its figure by itself.
"""

from ..core.notebooks import escaped
from .attention_html import AttentionPage, attention_page
from .html import data_uri, figure, framed, page, picture, save_page, script_data, token_spans
from .image_files import save_animation, save_figure, save_grid, save_pixels
from .images import image_grid, show, side_by_side
from .pixels import check_overlay, in_range, montage, to_pil
from .statistics import color_limits, distribution, heat_map
from .style import color_bar, diverging_map, drawing, look, palette
from .tables import bar_chart, beeswarm, dependence, waterfall
from .tokens import draw_tokens, shade, token_figure_size

__all__ = [
    "AttentionPage",
    "attention_page",
    "bar_chart",
    "beeswarm",
    "check_overlay",
    "color_bar",
    "color_limits",
    "data_uri",
    "dependence",
    "distribution",
    "diverging_map",
    "draw_tokens",
    "drawing",
    "escaped",
    "figure",
    "framed",
    "heat_map",
    "image_grid",
    "in_range",
    "look",
    "montage",
    "page",
    "palette",
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
    "waterfall",
]
