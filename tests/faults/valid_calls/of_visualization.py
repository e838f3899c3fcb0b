"""Valid calls of feature visualization, examples and atlases."""

import torch
from torch import nn

import toumei.cnns as cnns
import toumei.cnns.parameterization as param
from toumei.cnns.objectives import Channel
from toumei.misc.style_transfer import StyleTransfer

from .small_models import CNN, PICTURES, QUIET, VALUES, entered


def visualization():
    picture, shown = {"model": CNN, "image": PICTURES[0]}, {"steps": 1, "lr": 0.05, "seed": 0, **QUIET}
    plain = {"views": nn.Identity(), "preprocess": None, **shown}
    yield cnns.accentuate, {**picture, "objective": "0:1", "penalty": 1.0, "snapshots": (), **plain}
    yield cnns.caricature, {**picture, "layer": "0", "power": 0.0, "tv_loss": False, **plain}
    yield cnns.deep_dream, {**picture, "objective": "0", "octaves": 1, "scale": 1.4, "tile": 8, **shown}
    yield cnns.invert, {**picture, "layer": "0", "smoothness": 0.1, "preprocess": None, **shown}
    laid = {"channel_axis": None, "grid": None}
    yield (
        cnns.dataset_examples,
        {
            **{"model": CNN, "layers": "0", "loader": [PICTURES], "k": 1, "lowest": True},
            **{"reduction": "max", "resume": None, **laid, **QUIET},
        },
    )
    yield (
        cnns.sample_activations,
        {
            **{"model": CNN, "layer": "0", "loader": [PICTURES], "count": 2, "per_image": 1, "logits": "4"},
            **{"seed": 0, **laid, **QUIET},
        },
    )
    yield (
        cnns.activation_atlas,
        {
            **{"model": CNN, "layer": "0", "loader": [torch.rand(8, 3, 8, 8)], "count": 8, "grid": 1},
            **{"min_count": 1, "layout": "pca", "size": 8, "steps": 1, "whiten": False, "seed": 0, **QUIET},
        },
    )
    yield (
        cnns.render_icons,
        {
            **{"model": CNN, "layer": "0", "directions": torch.eye(4)[:2], "size": 8, "channels": 3},
            **{"steps": 1, "batch_size": 2, "seed": 0, "channel_axis": None, **QUIET},
        },
    )
    yield (
        cnns.unit_pictures,
        {
            **{"model": CNN, "layer": "0", "channels": [1], "objective": Channel, "size": 8, "batch_size": 2},
            **{"jobs": 1, "folder": None, "tv_loss": False, **plain},
        },
    )
    factors = {"groups": 2, "iterations": 5, "seed": 0}
    yield cnns.factorize, {"maps": torch.rand(2, 4, 3, 3), "layer": "0", **factors}
    yield (
        cnns.group_channels,
        {**{"model": CNN, "layer": "1", "images": PICTURES, "batch_size": 2, **laid, **factors}},
    )
    yield (
        cnns.expanded_weights,
        {
            **{"model": CNN, "before": "0", "after": "4", "image": PICTURES[:1], "channels": [0]},
            **{"linear_relu": True, "average_pool": True, "batch_size": 2},
        },
    )
    yield (
        cnns.sanity_check,
        {
            **{
                "model": CNN,
                "units": "0:1",
                "pictures": PICTURES[:1],
                "exciting": PICTURES,
                "others": PICTURES,
            }
        },
    )
    yield cnns.reference_activations, {"model": CNN, "layers": ["0"], "images": PICTURES, "preprocess": None}
    yield cnns.gram, {"activation": VALUES, "channel_axis": None}
    yield cnns.JointModel, {"networks": {"a": CNN}, "preprocess": None, "until": None}
    yield entered(cnns.redirected_relu), {"model": CNN, "steps": 4}
    yield entered(cnns.relaxed_max_pool), {"model": CNN, "kind": "l2"}
    yield (
        pipeline,
        {
            **{
                "generator": param.PixelImage(1, 3, 8, 8, seed=0),
                "objective": "0:1",
                "model": CNN,
                "epochs": 1,
            },
            **{"lr": 0.05, "tv_loss": 0.1, "snapshots": 1, "seed": 0, "redirect": 1, **QUIET},
        },
    )
    yield (
        style,
        {
            **{"content_image": PICTURES[0], "content_weight": 1.0, "style_image": PICTURES[1]},
            **{
                "style_weight": 1.0,
                "content_layers": ["0"],
                "style_layers": ["0"],
                "model": CNN,
                "epochs": 1,
            },
        },
    )


def pipeline(generator, objective, model, **given):
    return cnns.Pipeline(generator, objective).attach(model).optimize(**given)


def style(model, epochs, **given):
    return StyleTransfer(**given).attach(model).optimize(epochs, verbose=False)
