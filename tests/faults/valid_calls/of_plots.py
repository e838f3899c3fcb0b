"""Valid calls of plots."""

import torch
from matplotlib import pyplot

import toumei.misc.modularity as mod
import toumei.plots as plots

from .small_models import LABELS, PICTURES, graph


def drawn():
    picture = PICTURES[0]
    yield plots.image_grid, {"images": PICTURES, "titles": ["a", "b"], "columns": 2}
    yield plots.montage, {"images": PICTURES, "columns": 2, "gap": 1}
    yield plots.to_pil, {"image": picture}
    yield plots.data_uri, {"image": picture}
    yield plots.picture, {"image": picture, "style": ""}
    yield plots.figure, {"images": PICTURES, "caption": "two"}
    yield plots.page, {"title": "a", "body": "b", "summary": "", "style": "", "script": "", "data": None}
    yield plots.framed, {"text": "<p>a</p>", "height": 100}
    weights = torch.rand(1, 2, 3, 3).softmax(-1)
    page = {"attentions": [weights], "tokens": ["a", "b", "c"], "keys": None, "mask": torch.ones(1, 3)}
    yield plots.attention_page, {**page, "key_mask": None, "title": "a", "head": (0, 1), "most_tokens": 2}
    yield plots.token_spans, {"tokens": ["a", "b"], "values": torch.tensor([0.1, -0.5])}
    yield plots.side_by_side, {"groups": {"a": [PICTURES]}, "titles": ["x"], "columns": 1}
    axes = pyplot.figure().subplots()
    yield plots.distribution, {"samples": torch.rand(9), "value": 0.5, "ax": axes}
    yield plots.heat_map, {"values": torch.rand(2, 3), "rows": ["a", "b"], "ax": axes, "label": "share"}
    bars = {"names": ["a", "b"], "most": 1, "label": "share", "ax": axes}
    numbers = torch.tensor([0.5, -1.0])
    yield plots.bar_chart, {"values": numbers, "targets": [], "errors": None, "color": "gray", **bars}
    yield plots.waterfall, {"values": numbers, "start": 0.0, "end": -0.5, **bars}
    yield plots.beeswarm, {"values": torch.rand(4, 2), "data": torch.rand(4, 2), **bars}
    against = {"data": numbers, "name": "a", "by": numbers, "by_name": "b", "label": "share", "ax": axes}
    yield plots.dependence, {"values": numbers, **against}
    yield plots.shade, {"share": 0.5}
    yield plots.palette, {"count": 3, "on_dark": False}
    yield plots.check_overlay, {"maps": (7, 7), "pictures": (14, 14)}
    yield plots.color_limits, {"values": torch.rand(2, 3), "middle": 0.1}
    yield mod.plot_eigenvalues, {"eigenvalues": torch.rand(4), "n_clusters": 2}
    yield mod.plot_null_test, {"samples": torch.rand(4), "value": 0.3, "measure": "ncut"}
    for one in (mod.plot_blocks, mod.plot_layers):
        yield one, {"graph": graph(), "labels": LABELS}
    pyplot.close("all")
