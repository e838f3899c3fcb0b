"""The graph of operations as a page, as a picture and as text for Graphviz."""
