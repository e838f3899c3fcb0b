"""Networks to look into: the InceptionV1 of the feature-visualization literature and small ones."""

__all__: list[str] = []
