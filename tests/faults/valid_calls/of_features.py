"""Valid calls of dictionaries, of what trains and shows them, and of the toy model of superposition."""

import tempfile
from functools import cache

import torch

import toumei.transformers as trans
import toumei.transformers.features as feats
import toumei.transformers.tools as tools

from .of_heads import hooked
from .small_models import QUIET, entered, world

NAME = "blocks.2.hook_mlp_out"


def texts():
    return [fact.text for fact in world()[2].facts[:4]]


def settings():
    return trans.DictionarySettings(features=8, k=2, tokens=64, batch_size=16, buffer=32)


@cache
def trained():
    source = trans.ActivationSource(hooked(), texts(), NAME)
    return trans.train_dictionary(source, settings(), **QUIET)


def activations():
    model = hooked()
    size = {"length": 8, "batch_size": 2, "skip_first": 1, "max_tokens": 12}
    yield trans.ActivationSource, {"model": model, "corpus": texts(), "names": NAME, **size}
    folder = tempfile.mkdtemp()
    source = trans.ActivationSource(model, texts(), NAME)
    given = {
        "source": source,
        "folder": folder,
        "shard_tokens": 10,
        "dtype": torch.float16,
        "jobs": 1,
        **QUIET,
    }
    yield trans.ActivationStore.write, given
    yield trans.ActivationStore, {"folder": folder}
    yield model.activations, {"given": "a", "names": NAME}


def dictionaries():
    model, found = hooked(), trained()
    dictionary = found.dictionary
    size = {"length": 8, "batch_size": 2, "skip_first": 1, "max_tokens": 12}
    values = {"x": torch.rand(40, 4), "y": torch.rand(40, 3)}
    given = {"activations": values, "settings": settings(), "reads": "x", "writes": "y", "device": "cpu"}
    yield trans.train_dictionary, {**given, "checkpoint": None, **QUIET}
    yield found.plot, {"ax": None}
    yield (
        trans.evaluate_dictionary,
        {"dictionary": dictionary, "model": model, "corpus": texts(), **size, **QUIET},
    )
    source = trans.ActivationSource(model, texts(), NAME)
    yield feats.reconstruction, {"dictionary": dictionary, "activations": source, "max_tokens": 8}
    yield feats.reconstruction(dictionary, source).plot, {"ax": None}
    yield dictionary.encode, {"inputs": torch.rand(2, 128)}
    yield dictionary.decode, {"features": torch.rand(2, 8), "inputs": None}
    yield dictionary.written, {"inputs": torch.rand(2, 128), "features": [1, 2]}
    given = {"directions": torch.eye(3), "bias": torch.zeros(3), "reads": NAME}
    yield feats.SparseAutoencoder.of_directions, given
    folder = tempfile.mkdtemp()
    yield trans.save_saelens, {"dictionary": dictionary, "folder": folder}
    feats.save_saelens(dictionary, folder)
    yield trans.load_saelens, {"folder": folder}
    parts = {"model": model, "dictionary": dictionary}
    yield entered(trans.spliced), {**parts, "mask": None}
    yield entered(trans.ablate_features), {**parts, "features": [1]}
    yield entered(trans.steer_by_feature), {**parts, "feature": 1, "strength": 2.0}


def shown():
    model, dictionary = hooked(), trained().dictionary
    lengths = {"top": 2, "tokens": 2, "before": 1, "after": 1, "length": 8, "batch_size": 2, "skip_first": 1}
    given = {"dictionary": dictionary, "model": model, "features": [1, 2]}
    yield trans.show_features, {**given, "corpus": texts(), **lengths, "max_tokens": 12}
    table = trans.show_features(**given, corpus=texts())
    yield table.plot, {"ax": None, "feature": None, "texts": 2}
    yield table.save_page, {"path": f"{tempfile.mkdtemp()}/page.html"}
    yield feats.direct_logits, given
    yield feats.match_features, {"directions": torch.rand(5, 4), "known": torch.rand(3, 4)}
    yield (
        trans.SyntheticFeatures,
        {"features": 5, "width": 4, "active": 2.0, "noise": 0.1, "tokens": 9, "seed": 0},
    )
    yield feats.SyntheticFeatures(5, 4).sample, {"count": 3, "seed": 1}


def superposition():
    size = {"steps": 3, "batch_size": 4, "learning_rate": 1e-2, "instances": 2, "seed": 0}
    given = {"features": 3, "dimensions": 2, "density": 0.1, "importances": torch.ones(3), **size}
    yield feats.train_superposition, given
    yield feats.train_superposition(**given)[0].plot, {"ax": None}
    for function in (feats.feature_dimensionality, feats.interference, feats.polysemanticity):
        yield function, {"directions": torch.rand(3, 4)}


def taken_apart():
    model = hooked()
    listed = {"input_ids_list": texts(), "activation_key": ("mlp_out", 2)}
    tool, other = tools.SparsityAnalyzer(model), tools.SuperpositionDisentangler(model)
    yield tools.SparsityAnalyzer, {"model": model}
    yield tools.SuperpositionDisentangler, {"model": model}
    for method in (tool.compute_activation_sparsity, tool.firing_rates, tool.dead_neurons):
        yield method, listed
    yield entered(tool.prune_network), {"threshold": 0.5}
    yield tool.find_polysemantic_neurons, {"dictionary": trained().dictionary, "threshold": 1.5}
    yield other.compute_activation_covariance, listed
    options = {"n_components": 3, "method": "dictionary", "active": 2, "passes": 2, "seed": 0}
    yield other.disentangle_superposition, {**listed, **options}
    found = other.disentangle_superposition(**listed, **{**options, "method": "pca"})
    yield found.project, {"activations": torch.rand(2, 128)}
    yield found.reconstruct, {"coordinates": torch.rand(2, 3)}
    yield found.interpolate, {"first": torch.rand(128), "second": torch.rand(128), "alpha": 0.5}


def features():
    for part in (activations, dictionaries, shown, superposition, taken_apart):
        yield from part()
