"""Whether a network falls into modules: weight graphs, clusterings, their quality and null models."""
