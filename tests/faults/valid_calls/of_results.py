"""Valid calls of what results, pictures and pipelines offer: figures, tables, parts, files."""

import copy
import tempfile
from functools import cache

import torch
from matplotlib import pyplot
from torch import nn
from torch.utils.data import DataLoader

import toumei.attribution as att
import toumei.bench as benches
import toumei.cnns as cnns
import toumei.cnns.objectives as obj
import toumei.cnns.parameterization as param
import toumei.misc.modularity as mod
import toumei.models as models
from toumei.misc.style_transfer import StyleTransfer

from .of_areas import areas
from .of_instrument import writing
from .small_models import CNN, NET, PICTURES, QUIET, X, graph


@cache
def table():
    """The contributions of the columns of a table, and those of pairs of them."""
    names = {"feature_names": list("abcd"), "row_names": ["Ann", "Bob"]}
    return att.ExactShapley(NET, interactions=True, verbose=False)(X, 1, **names)


def tables_of_contributions():
    several, drawn = att.Saliency(NET)(X, [0, 1]), {"most": 2, "ax": None}
    yield table().bar, {"row": "Ann", **drawn}
    yield table().waterfall, {"row": 1, **drawn}
    yield table().beeswarm, drawn
    yield table().heatmap, drawn
    yield table().scatter, {"feature": "a", "by": 1, "ax": None}
    yield table().interaction_matrix, {"row": 0, "ax": None}
    yield table().sum, {"groups": {"first": ["a", "b"], "last": [2, 3]}}
    yield table().__getitem__, {"index": [0, 1]}
    yield several.__getitem__, {"index": 1}
    yield att.Attribution.cat, {"results": [table(), table()]}
    yield writing(table().save), {"path": "kept.safetensors"}
    yield att.Attribution.load, {"path": "no such file"}
    maps = att.Saliency(CNN)(PICTURES, 1)
    shown = {"show": ["map"], "sign": "both", "percentile": 90.0, "ax": None}
    yield maps.overlay, {"images": PICTURES, **shown}
    yield maps.plot, {"images": PICTURES, "ax": None}
    yield att.Saliency(NET).with_model, {"model": NET, "layer": "0"}
    yield att.AnswerSpan.likeliest, {"logits": torch.rand(4, 2), "allowed": torch.ones(4).bool()}
    measured = {"inputs": X, "values": torch.rand(2, 4), "target": 1}
    yield att.insertion(NET, **measured, steps=2).plot, {"ax": None}
    yield att.randomization(att.Saliency(NET), X, 1).plot, {"ax": None, "label": "a"}
    compared = att.compare([att.Saliency(CNN)], PICTURES, 1, samples=3, steps=2)
    yield compared.plot, {"images": PICTURES, "count": 1, "masks": None}
    explained = att.explain(NET, X, 1, baselines=0.0)
    yield explained.plot, {"ax": None}


@cache
def optimized():
    return obj.Pipeline(param.PixelImage(1, 3, 8, 8, seed=0), "0:1").attach(CNN).optimize(2, verbose=False)


@cache
def examples():
    return cnns.dataset_examples(CNN, "0", DataLoader(PICTURES, 2), k=2, verbose=False)


def pictures_of_units():
    found, unit = optimized(), {"unit": "0:1", "lowest": True}
    yield found.plot, {"ax": None}
    yield found.plot_losses, {"ax": None}
    yield writing(found.save), {"path": "pictures.png"}
    for ask in (examples().values, examples().indices, examples().positions, examples().images):
        yield ask, unit
    yield examples().crops, {**unit, "size": 4}
    yield examples().plot, {"units": ["0:1"], "ax": None}
    yield writing(examples().save), {"path": "examples.safetensors"}
    yield cnns.DatasetExamples.load, {"path": "no such file", "dataset": PICTURES}
    yield obj.Pipeline(param.PixelImage(1, 3, 8, 8, seed=0), "0:1").plot, {"ax": None}
    attached = {"model": CNN}
    yield (lambda model: obj.Pipeline(param.PixelImage(1, 3, 8, 8), "0:1").attach(model)), attached
    given = {**attached, "fits": True}
    yield (lambda **given: obj.Pipeline(param.PixelImage(1, 3, 8, 8), "0:1").attach_fitted(**given)), given
    yield writing(obj.Pipeline(param.PixelImage(1, 3, 8, 8, seed=0), "0:1").save), {"path": "pictures.png"}
    styles = {"content_image": PICTURES[0], "content_weight": 1.0, "content_layers": ["0"]}
    styles |= {"style_image": PICTURES[1], "style_weight": 1.0, "style_layers": ["0"]}
    yield (lambda model: StyleTransfer(**styles).attach(model)), attached
    reference = {"model": CNN, "layer": "0", "image": PICTURES[:1], "preprocess": None}
    for kind in (obj.ActivationDifference, obj.DotCompare, obj.Style):
        yield kind.to_image, reference
    groups = cnns.group_channels(CNN, "1", PICTURES, 2, iterations=5)
    yield groups.plot, {"ax": None}
    expanded = cnns.expanded_weights(CNN, "0", "4", PICTURES[:1], linear_relu=True, average_pool=True)
    yield expanded.strongest, {"channel": 0, "count": 2}
    yield expanded.plot, {"ax": None}


def generators():
    pictures = {"image": PICTURES, "decorrelate": True, "sigmoid": True, "margin": 1e-3}
    yield (lambda **given: param.PixelImage.from_image(**given).get_image()), pictures
    spectral = {"decay": 1.0, "saturation": 4.0}
    yield (lambda **given: param.FFTImage.from_image(**given).get_image()), {**pictures, **spectral}
    made = param.PixelImage(1, 3, 8, 8, seed=0)
    yield made.plot_image, {"ax": None}
    yield made.to, {"device": "cpu"}
    yield param.MACO(1, 3, 8, 8, seed=0).transparent, {"clip": 1.0, "opaque": 80.0}
    yield param.ColorSpace().inverse, {"image": PICTURES, "margin": 1e-3}
    yield models.CPPN.coordinates, {"height": 3, "width": 4}


def other_results():
    weights = graph()
    yield weights.by_layer, {"values": torch.rand(4)}
    yield weights.to, {"target": "cpu"}
    options = {"n_clusters": 2, "method": "spectral", "resolution": 1.0, "seed": 0}
    yield mod.MLPGraph(nn.Sequential(*NET), X).get_model_modularity, options
    yield mod.null_test(weights, 2, samples=2).plot, {"ax": None}
    yield (lambda most: mod.LocalityCost(copy.deepcopy(NET)).swap(most)), {"most": 2}
    dataset = models.ShapesDataset(size=8)
    yield dataset.backgrounds, {"indices": [0, 1]}
    yield dataset.placement, {"indices": [0, 1]}
    yield (lambda first, second: areas().areas.select(first, second)), {"first": 0, "second": 1}
    yield areas().areas.in_category, {"category": "residence"}
    yield areas().areas.graph, {"category": "residence", "threshold": 0.3}
    yield areas().get_grid, {"layer": 1, "category": "residence"}
    yield writing(areas().areas.save), {"path": "areas.safetensors"}


def of_benches():
    bench = benches.Bench(tempfile.mkdtemp(), NET)
    yield bench.sync, QUIET


def methods_of_results():
    for part in (tables_of_contributions, pictures_of_units, generators, other_results, of_benches):
        yield from part()
    pyplot.close("all")
