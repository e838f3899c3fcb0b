"""A valid call of every public entry, on tiny models: what `test_bad_inputs` spoils."""

from functools import cache

import torch
from matplotlib import pyplot
from torch import nn

import toumei.attribution as att
import toumei.cnns as cnns
import toumei.cnns.objectives as obj
import toumei.cnns.parameterization as param
import toumei.cnns.robustness as rob
import toumei.core as core
import toumei.misc.modularity as mod
import toumei.models as models
import toumei.plots as plots
import toumei.transformers as trans
import toumei.transformers.model as lm
import toumei.transformers.rome.evaluation as ev
from toumei import misc
from toumei.misc.style_transfer import StyleTransfer

torch.manual_seed(0)
NET = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)).eval()
CNN = nn.Sequential(
    *(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
).eval()
X, PICTURES = torch.rand(2, 4), torch.rand(2, 3, 8, 8)
VALUES, MASKS = torch.rand(2, 3, 8, 8), torch.rand(2, 8, 8) > 0.5
LABELS, TARGETS = torch.tensor([0, 1, 0, 1]), torch.tensor([0, 2])
QUIET = {"verbose": False}


@cache
def world():
    return models.facts_gpt()


def text():
    model, tokenizer, facts = world()
    return {"model": model, "tokenizer": tokenizer}, facts.facts[0]


MODELS = {"net": NET, "cnn": CNN}


def graph():
    return mod.chain(["a", "b"], [torch.rand(2, 2) + 0.1])


def built(kind, call, **settings):
    """A method of attribution that is made and called: settings and data are spoilt alike."""

    def make_and_call(**given):
        settings = {name: given.pop(name) for name in list(given) if name not in call}
        return kind(**settings)(**given)

    return make_and_call


def method(kind, *, model=NET, inputs=X, **settings):
    call = {"inputs": inputs, "target": 1, "baselines": 0.0}
    return built(kind, call), {"model": model, **settings, **call}


def methods():
    """Every method with settings that take few passes."""
    few = {"samples": 4, "seed": 0, "batch_size": 8}
    pictured = {"model": CNN, "inputs": PICTURES}
    yield from (
        method(att.Saliency, absolute=True, batch_size=4, layer=None),
        method(att.InputXGradient, batch_size=4),
        method(att.IntegratedGradients, tolerance=0.1, max_steps=16, steps=4, layer="0"),
        method(att.LayerConductance, layer="0", tolerance=0.1, max_steps=16, steps=4),
        method(att.SmoothGrad, noise=0.1, absolute=False, of=att.Saliency, **few),
        method(att.VarGrad, noise=0.1, **few),
        method(att.ExpectedGradients, **few),
        method(att.DeepLift, unknown="error", batch_size=4),
        method(att.DeepLiftShap, unknown="error", **few),
        method(att.LRP, epsilon=1e-9),
        method(att.GuidedBackprop, absolute=True),
        method(att.GradCam, layer="0", upsample=True, channel_axis=None, grid=None, **pictured),
        method(att.GradCamPlusPlus, layer="0", **pictured),
        method(att.LayerCam, layer="0", **pictured),
        method(att.GuidedGradCam, layer="0", channel_axis=None, grid=None, **pictured),
        method(att.ExactShapley, interactions=True, features=None, baseline_samples=2, **QUIET),
        method(att.KernelShap, features=None, baseline_samples=2, **{**few, "samples": 16}),
        method(
            att.Lime,
            space="features",
            distance="cosine",
            width=0.3,
            ridge=1.0,
            lasso=None,
            **{**few, "samples": 8},
        ),
        method(att.ShapleySampling, tolerance=0.1, channel_axis=None, **{**few, "samples": 40}),
        method(att.PartitionShap, hierarchy=((0, 1), (2, 3)), **few),
        method(att.Occlusion, window=2, stride=1, channel_axis=None, batch_size=8, seed=0),
        method(att.Rise, cells=2, shown=0.5, **few),
    )


def metrics():
    given = {"model": NET, "inputs": X, "values": torch.rand(2, 4), "target": 1, "baselines": 0.0}
    sets = {**given, "size": 2, "samples": 3, "features": None, "batch_size": 4, "seed": 0}
    curve = {**given, "channel_axis": None, "steps": 3, "batch_size": 4}
    tested = {"method": att.Saliency(NET), "inputs": X, "target": 1, "baselines": None}
    yield from ((one, curve) for one in (att.insertion, att.deletion))
    yield from ((one, sets) for one in (att.removals, att.infidelity, att.faithfulness_correlation))
    yield att.max_sensitivity, {**tested, "radius": 0.1, "samples": 2, "seed": 0}
    yield att.randomization, {**tested, "layers": ["2"], "seed": 0}
    for one in (att.pointing_game, att.relevance_mass_accuracy, att.balance_inside):
        yield one, {"values": VALUES, "masks": MASKS}
    yield att.chance_level, {"measure": att.pointing_game, "values": VALUES, "masks": MASKS, "others": 2}
    compared = {"methods": [att.Saliency(NET)], "inputs": X, "target": 1, "masks": None, "baselines": 0.0}
    yield att.compare, {**compared, "samples": 3, "steps": 2, "batch_size": 4, "faithfulness": True}
    yield att.superpixels, {"images": PICTURES, "count": 4, "compactness": 10.0, "sigma": 1.0}
    yield att.grid, {"images": PICTURES, "rows": 2, "columns": 2}
    yield att.AnswerSpan, {"start": 1, "end": 2}
    yield att.LogProbability, {"token": 1, "against": 0, "position": -1}
    yield att.Constant, {"value": 0.5}
    yield att.AtLayer, {"baseline": 0.5}
    yield att.FromData, {"data": X, "replace": True}
    yield att.Gaussian, {"sigma": 1.0, "mean": None, "low": None, "high": None}
    yield att.Uniform, {"low": 0.0, "high": 1.0}
    yield att.MaxDistance, {"low": 0.0, "high": 1.0}
    yield att.Mean, {"channel_axis": None}
    yield att.Blur, {"sigma": 2.0}
    yield att.Inpaint, {"sigma": 2.0}
    parts, fact = text()
    asked = {"text": fact.prompt.format(fact.subject), "target": fact.target, "against": None}
    yield att.token_attribution, {**parts, **asked, "method": None, "baseline": None}
    generated = {"text": asked["text"], "max_new_tokens": 2, "method": None}
    yield att.generation_attribution, {**parts, **generated}


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


def entered(context):
    def enter(**given):
        with context(**given):
            pass

    return enter


def pipeline(generator, objective, model, **given):
    return cnns.Pipeline(generator, objective).attach(model).optimize(**given)


def style(model, epochs, **given):
    return StyleTransfer(**given).attach(model).optimize(epochs, verbose=False)


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


def whole_networks():
    loss = nn.functional.cross_entropy
    curvature = {"model": NET, "loss": loss, "inputs": X, "targets": TARGETS, "seed": 0}
    yield misc.hessian_trace, {**curvature, "samples": 2}
    yield misc.perturbation_sharpness, {**curvature, "sigmas": 0.01, "samples": 2}
    yield misc.top_eigenvalue, {**curvature, "steps": 2, "tolerance": 1e-3}
    yield (
        misc.neural_tangent_kernel,
        {**{"model": NET, "inputs": X, "others": None, "outputs": "trace", "batch_size": 2}},
    )
    kernel = X @ X.T
    yield misc.kernel_distance, {"first": kernel, "second": kernel + torch.eye(2)}
    yield misc.kernel_velocity, {"kernels": [kernel, kernel + torch.eye(2)]}
    yield misc.effective_rank, {"activation": X, "centred": False, "channel_axis": None}
    yield misc.participation_ratio, {"activation": X, "centred": True, "channel_axis": None}
    labelled = {"graph": graph(), "labels": LABELS}
    for one in (mod.ncut, mod.ncut_by_cluster, mod.in_out_ratio):
        yield one, labelled
    for one in (mod.modularity, mod.modularity_by_cluster):
        yield one, {**labelled, "resolution": 1.0}
    yield mod.chain, {"layers": ["a", "b"], "weights": [torch.rand(2, 2)]}
    yield mod.spectral_partition, {"graph": graph(), "n_clusters": 2, "seed": 0, "largest": 2}
    yield mod.laplacian_eigenpairs, {"graph": graph(), "count": 2, "seed": 0, "tolerance": 1e-5}
    yield mod.null_test, {"graph": graph(), "n_clusters": 2, "samples": 2, "seed": 0, "shuffle": "layer"}
    yield (
        mod.correlation_graph,
        {"model": NET, "layers": ["0", "1"], "inputs": torch.rand(5, 4), "batch_size": 2},
    )
    yield mod.clusterability_loss, {"model": NET, "count": 2, "example_input": X}
    yield mod.LocalityCost, {"model": NET}
    yield mod.WeightGraph.from_model, {"model": NET, "example_input": X}
    yield mod.MLPGraph, {"model": NET, "example_input": X, "norm": "l1"}
    yield (
        mod.CNNGraph,
        {"model": nn.Sequential(*CNN[:2], nn.Conv2d(4, 3, 3)), "example_input": PICTURES, "norm": "l1"},
    )
    yield (
        mod.lesion_test,
        {
            **{"model": NET, "graph": mod.WeightGraph.from_model(NET, X), "inputs": X, "targets": TARGETS},
            **{"labels": torch.arange(12) % 2, "samples": 2, "seed": 0, "batch_size": 2},
        },
    )


def drawn():
    picture = PICTURES[0]
    yield plots.image_grid, {"images": PICTURES, "titles": ["a", "b"], "columns": 2}
    yield plots.montage, {"images": PICTURES, "columns": 2, "gap": 1}
    yield plots.to_pil, {"image": picture}
    yield plots.data_uri, {"image": picture}
    yield plots.picture, {"image": picture, "style": ""}
    yield plots.figure, {"images": PICTURES, "caption": "two"}
    yield plots.page, {"title": "a", "body": "b", "summary": "", "style": "", "script": "", "data": None}
    yield plots.token_spans, {"tokens": ["a", "b"], "values": torch.tensor([0.1, -0.5])}
    yield plots.side_by_side, {"groups": {"a": [PICTURES]}, "titles": ["x"], "columns": 1}
    axes = pyplot.figure().subplots()
    yield plots.distribution, {"samples": torch.rand(9), "value": 0.5, "ax": axes}
    yield plots.heat_map, {"values": torch.rand(2, 3), "rows": ["a", "b"], "ax": axes, "label": "share"}
    yield plots.shade, {"share": 0.5}
    yield plots.palette, {"count": 3, "on_dark": False}
    yield plots.check_overlay, {"maps": (7, 7), "pictures": (14, 14)}
    yield plots.color_limits, {"values": torch.rand(2, 3), "middle": 0.1}
    yield mod.plot_eigenvalues, {"eigenvalues": torch.rand(4), "n_clusters": 2}
    yield mod.plot_null_test, {"samples": torch.rand(4), "value": 0.3, "measure": "ncut"}
    for one in (mod.plot_blocks, mod.plot_layers):
        yield one, {"graph": graph(), "labels": LABELS}
    pyplot.close("all")


def run(model, x, record):
    return core.run(model, x, record=record)["0"]


def networks():
    yield models.SimpleCNN, {"in_channels": 3, "num_classes": 2}
    yield (lambda first, second: models.SimpleMLP(first, second)), {"first": 2, "second": 3}
    yield models.CPPN, {"hidden": 4, "layers": 2, "channels": 3, "images": 1}
    yield models.ShapesCNN, {"pretrained": False}
    yield models.ShapesDataset, {"seed": 0, "size": 4}
    yield models.ShapesDataset(size=8).batch, {"indices": [0, 1]}
    yield models.FactsWorld, {"seed": 0}
    yield models.load_state_dict, {"path": "no such file"}
    yield core.make_generator, {"seed": 0}
    yield entered(core.seeded), {"seed": 0, "device": "cpu"}
    yield core.parse, {"unit": "a:1"}
    yield core.parse_layer, {"text": "a"}
    yield core.find_module, {"model": NET, "name": "0"}
    yield core.find_modules, {"model": NET, "names": ["0"]}
    yield entered(core.frozen), {"model": NET}
    yield entered(core.evaluating), {"model": NET}
    yield (
        (lambda model, x, record: core.run(model, x, record=record)),
        {"model": NET, "x": X, "record": ["0"]},
    )
    yield entered(core.hooked), {"model": NET, "record": ["0"], "edit": None}
    yield core.channels_first, {"activation": VALUES, "channel_axis": None}
    yield core.with_channels_first, {"activation": VALUES, "channel_axis": None, "grid": None}
    yield core.survey, {"model": NET, "layers": ["0"], "forward": lambda: NET(X)}
    yield core.main_tensor, {"output": (X, None)}
    yield core.with_main_tensor, {"output": (X, None), "tensor": X}


def language():
    parts, fact = text()
    prompt = fact.prompt.format(fact.subject)
    request = {"prompt": fact.prompt, "subject": fact.subject, "target": fact.target}
    yield trans.anatomy, {"model": parts["model"]}
    yield trans.logit_lens, {**parts, "prompt": prompt, "answer": fact.target, "top": 2}
    yield trans.EditRequest, request
    yield trans.EditSettings, {"layers": (1,), "steps": 2, "lr": 0.5, "clamp": 4.0, "kl": 0.1}
    yield trans.TraceSettings, {"kind": "hidden", "window": 2, "samples": 2, "seed": 1, "batch_size": 2}
    yield trans.EmbeddingNoise, {"scale": 3.0, "shape": "gaussian", "level": None, "replace": False}
    yield trans.CausalTracer, parts
    yield trans.RankOneEditor, {**parts, "statistics": None, "contexts": (), "seed": 0, "batch_size": 2}
    yield (
        trans.collect_statistics,
        {**{**parts, "texts": [prompt], "layers": [1], "batch_size": 1, "max_length": 8, **QUIET}},
    )
    yield trans.revert_all, {"model": parts["model"]}
    anatomy = trans.anatomy(parts["model"])
    yield (
        lm.score_answers,
        {
            **{"parts": anatomy, "tokenizer": parts["tokenizer"], "questions": [(prompt, fact.target)]},
            "batch_size": 1,
        },
    )
    yield lm.continuation, {"tokenizer": parts["tokenizer"], "prompt": prompt, "text": fact.target}
    yield lm.tokenize, {"tokenizer": parts["tokenizer"], "prompt": prompt}
    yield lm.token_roles, {"count": 5, "subject": (1, 3)}
    yield (
        ev.generate,
        {**{"parts": anatomy, "tokenizer": parts["tokenizer"], "prompts": [prompt], "length": 8, "seed": 0}},
    )
    yield ev.world_cases, {"world": world()[2], "count": 2, "seed": 0}
    cases = ev.world_cases(world()[2], 1)
    yield ev.evaluate, {**parts, "cases": cases, "batch_size": 8, "generate_tokens": 0, "seed": 0}
    yield ev.entropy, {"text": "a b c d"}
    tracer = trans.CausalTracer(**parts)
    yield tracer.trace, {"prompt": fact.prompt, "subject": fact.subject, "answer": fact.target}
    yield tracer.knows, {"prompt": prompt, "answer": fact.target}


ROOMS = (methods, metrics, visualization, objectives, parameterizations, views, whole_networks)
ROOMS = (*ROOMS, drawn, networks, language)
