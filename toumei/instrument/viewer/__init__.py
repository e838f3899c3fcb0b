"""The graph of operations as a page, as a picture and as text for Graphviz."""

from .graphviz import save_dot
from .cut import neighbourhood
from .page import framed, graph_page
from .drawing import picture

__all__ = ["framed", "graph_page", "neighbourhood", "picture", "save_dot"]
