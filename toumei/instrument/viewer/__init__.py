"""The graph of operations as a page, as a picture and as text for Graphviz."""

from .cut import neighbourhood
from .drawing import picture
from .graphviz import save_dot
from .page import graph_page

__all__ = ["graph_page", "neighbourhood", "picture", "save_dot"]
