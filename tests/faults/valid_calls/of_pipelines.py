"""Valid calls of what a pipeline is made of: objectives, parameterizations, transforms."""

import torch
from torch import nn

import toumei.cnns.objectives as obj
import toumei.cnns.parameterization as param
import toumei.cnns.robustness as rob

from .small_models import CNN, PICTURES


def scored(kind, **given):
    """An objective that is made, attached and scored, with a picture for each unit."""

    def score(**spoilt):
        objective = kind(**spoilt)
        generator = param.PixelImage(objective.images or 1, 3, 8, 8, seed=0)
        return obj.Pipeline(generator, objective).attach(CNN)

    return score, given


def listed(kind):
    return lambda one, other: kind(one, other)


def objectives():
    layer, unit = {"layer": "0"}, {"unit": "0:1"}
    yield from (
        scored(obj.Channel, **unit, channels=None, channel_axis=None),
        scored(obj.Neuron, **unit, channel_axis=None, grid=None),
        scored(obj.Layer, **layer),
        scored(obj.DeepDream, **layer),
        scored(obj.Direction, **layer, direction=torch.ones(4), similarity="dot", power=2.0),
        scored(obj.NeuronDirection, **layer, direction=torch.ones(4), position=(1, 1)),
        scored(obj.TensorDirection, **layer, direction=torch.ones(1, 4, 3, 3)),
        scored(obj.ChannelWeights, **layer, weights={1: 0.5}, channel_axis=None),
        scored(obj.LocalGroup, **layer, window=(0, 0, 2, 2), weights=None),
        scored(obj.Alignment, **layer, decay=2.0),
        scored(obj.Diversity, **layer, channel_axis=None),
        scored(obj.ClassLogit, target=1, layer="4", categories=None),
        scored(obj.ActivationDifference, **layer, reference=torch.ones(1, 4, 8, 8), distance="l1"),
        scored(obj.DotCompare, **layer, reference=torch.ones(1, 4, 8, 8), power=0.0),
        scored(obj.Style, **layer, reference=torch.eye(4)[None], distance="l1"),
        scored(obj.L1, constant=0.0),
        scored(obj.L2, constant=0.0),
        scored(obj.LInf, constant=0.0),
        scored(obj.TotalVariation),
        scored(obj.BlurDifference),
        scored(obj.BoundaryComplexity, width=2, constant=0.5),
        scored(obj.ConstantScore, value=1.0),
        scored(obj.Function, function=lambda seen: next(iter(seen.values())).mean(), **layer, name="mine"),
        scored(obj.Power, objective="0:1", exponent=2.0),
        scored(obj.as_objective, thing="0:1"),
        *(scored(listed(kind), one="0:1", other=2.0) for kind in (obj.Add, obj.Multiply, obj.PerImage)),
    )


def shown(kind, **given):
    """Pictures, as a network sees them."""
    return lambda **spoilt: (made := kind(**spoilt)).view(made.get_image()), given


def shared(**given):
    return lambda individual, shared: param.SharedImage(individual, shared).get_image(), given


def parameterizations():
    size = {"images": 1, "channels": 3, "height": 8, "width": 8}
    colors = {"decorrelate": True, "seed": 0}
    picture = param.PixelImage(1, 3, 8, 8, seed=0)
    yield from (
        shown(param.PixelImage, **size, sd=0.1, sigmoid=True, **colors),
        shown(param.FFTImage, **size, sd=0.1, decay=1.0, saturation=4.0, sigmoid=True, **colors),
        shown(param.LaplacianImage, **size, levels=2, sd=0.1, sigmoid=True, **colors),
        shown(param.MACO, **size, magnitude=None, **colors),
        shown(param.Neural, **size, hidden=4, layers=2, seed=0),
        shown(param.AccentuatedImage, image=PICTURES[:1], decay=1.5, margin=1e-5),
        shown(param.Masked, generator=picture, image=PICTURES[:1], mask=torch.ones(8, 8)),
        shared(individual=picture, shared=param.PixelImage(1, 3, 4, 4, seed=0)),
        shown(param.GAN, module=nn.ConvTranspose2d(2, 3, 4), latent=(1, 2, 1, 1), sd=1.0, seed=0),
        shown(param.AlphaImage, colors=picture, alpha=param.PixelImage(1, 1, 8, 8, seed=0), background=None),
    )
    yield param.ColorSpace, {"decorrelate": True, "sigmoid": True, "channels": 3}
    yield param.frequencies, {"height": 4, "width": 4}
    yield param.natural_magnitude, {"channels": 3, "height": 8, "width": 8}
    yield param.magnitude_spectrum, {"loader": [PICTURES], "size": 8, "decorrelate": True}
    yield param.color_matrix, {"loader": [torch.rand(2, 3, 8, 8)]}
    yield param.load_magnitude, {"path": "no such file"}
    yield param.random_background, {"colors": PICTURES}
    yield param.Transform, {"generator": picture}


def views():
    def applied(kind, **given):
        return lambda **spoilt: kind(**spoilt)(PICTURES), given

    yield from (
        applied(rob.Pad, pixels=1, same_on_batch=False, fill=0.5),
        applied(rob.Jitter, pixels=2),
        applied(rob.CropOrPad, height=6, width=9),
        applied(rob.Crops, views=2, size=4, side=(0.5, 0.1), uniform=False, spread=0.1),
        applied(rob.Noise, normal=0.1, uniform=0.1),
        applied(rob.Normalize, mean=(0.5,) * 3, std=(0.5,) * 3),
        applied(rob.lucid, same_on_batch=True),
        applied(rob.light, fill=0.2),
        applied(rob.distill),
        applied(rob.preprocess, name="imagenet"),
        applied(rob.NormalizeGradient),
    )
    yield (lambda values: rob.Scale(values)(PICTURES)), {"values": [0.9, 1.1]}
    yield (lambda values: rob.Rotate(values)(PICTURES)), {"values": [-5, 5]}
