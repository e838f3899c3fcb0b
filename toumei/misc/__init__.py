"""Questions to whole networks: modularity, style, sharpness and the tangent kernel."""
