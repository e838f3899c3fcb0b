"""Low-rank changes of weights, and the registry of those that a model carries."""
