"""Valid calls of whole networks: models, the engine, curvature, modules."""

import torch
from torch import nn

import toumei.core as core
import toumei.misc.modularity as mod
import toumei.models as models
from toumei import misc

from .small_models import CNN, LABELS, NET, PICTURES, TARGETS, VALUES, X, entered, graph


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


def networks():
    yield models.SimpleCNN, {"in_channels": 3, "num_classes": 2}
    yield (lambda first, second: models.SimpleMLP(first, second)), {"first": 2, "second": 3}
    yield models.CPPN, {"hidden": 4, "layers": 2, "channels": 3, "images": 1}
    yield models.ShapesCNN, {"pretrained": False}
    yield models.ShapesDataset, {"seed": 0, "size": 4}
    yield models.ShapesDataset(size=8).batch, {"indices": [0, 1]}
    yield models.FactsWorld, {"seed": 0}
    yield models.InductionTransformer, {"vocabulary": 4, "positions": 8, "sharpness": 3.0}
    yield models.ModularAddition, {"pretrained": False, "prime": 3}
    yield models.InductionTransformer(6, 8).sequences, {"batch": 1, "length": 3, "seed": 0}
    yield models.load_state_dict, {"path": "no such file"}
    yield models.smollm2, {"folder": "no such folder"}
    yield models.minilm, {"folder": "no such folder"}
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
    yield (
        (lambda function: core.run(NET, X, record=["0"], edit={"0": core.CallEdit(function)})),
        {"function": lambda tensor, args, kwargs: tensor},
    )
    yield core.channels_first, {"activation": VALUES, "channel_axis": None}
    yield core.with_channels_first, {"activation": VALUES, "channel_axis": None, "grid": None}
    yield core.survey, {"model": NET, "layers": ["0"], "forward": lambda: NET(X)}
    yield core.main_tensor, {"output": (X, None)}
    yield core.with_main_tensor, {"output": (X, None), "tensor": X}
