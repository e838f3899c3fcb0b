"""Thousands of wrong arguments at every public entry: one kind of error, no NaN, no model that is changed.

``TOUMEI_BAD_INPUTS`` sets how many are tried, 2,000 by default.
"""

import dataclasses
import importlib
import inspect
import os
import pkgutil
import random
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib import pyplot
from valid_calls import MODELS, ROOMS, world

import toumei
from toumei.core.errors import ToumeiError
from toumei.core.serialization import Saved
from toumei.models import minilm, smollm2

COUNT = int(os.environ.get("TOUMEI_BAD_INPUTS", "2000"))
BAD = (
    *(None, True, -1, 0, 10**12, 1.5, -0.5, float("nan"), float("inf"), 3 + 4j, "", "no such thing", b"x"),
    *([], {}, set(), (), [1, "a"], ["a"], {"a": 1}, [[1.0], [2.0, 3.0]], object()),
    *(lambda *given, **named: given, range(3), np.array(["a"]), np.zeros((2, 9)), np.float64("nan")),
    *(torch.zeros(0), torch.tensor(2.0), torch.zeros(1, 1, 1, 1, 1), torch.ones(2, 9), torch.arange(3)),
    *(
        torch.full((2, 4), torch.nan),
        torch.zeros(2, 4, dtype=torch.cfloat),
        torch.ones(2, 4, dtype=torch.bool),
    ),
    *(torch.zeros(2, 3, 8, 8) * torch.nan, torch.ones(2, 4).double(), torch.eye(4).to_sparse()),
    *(torch.ones(2, 4, dtype=torch.uint8), torch.zeros(0, 4), torch.zeros(2, 3, 0, 8)),
)


# What holds or hands on what it is given; memories of a single prefix have no variance; NaN is the score of
# what is no edge, the effect of roles that no prompt has, and what `evaluate` was not asked for.
HOLDERS = ("main_tensor", "with_main_tensor", "channels_first", "with_channels_first", "montage", "AtLayer")
HOLDERS = (*HOLDERS, "FromData", "evaluate")
HOLDERS = (*HOLDERS, "memories_of", "attribution_graph", "acdc", "prune", "without", "with_edges", "random")
HOLDERS = (*HOLDERS, "trace_many", "by_layer")


def finite(found, depth=0):
    """Whether there is no NaN in a result."""
    if isinstance(found, torch.Tensor):
        return not (found.is_floating_point() and found.isnan().any())
    if isinstance(found, float):
        return found == found
    if depth > 2:
        return True
    if dataclasses.is_dataclass(found) and not isinstance(found, type):
        return all(finite(getattr(found, one.name), depth + 1) for one in dataclasses.fields(found))
    if isinstance(found, dict):
        return all(finite(one, depth + 1) for one in found.values())
    return all(finite(one, depth + 1) for one in found) if isinstance(found, list | tuple) else True


# Parts of results and of models, what writes files, and what only hands on to other entries.
NO_ENTRIES = """
ActivationCache Activations Anatomy AnswerScore AttentionPage Block Communities Edge EditCase EditEffect
Fact FactPrompt IdentityMoment
FailedItem color_bar diverging_map drawing in_range look seeded_passes
Inception5h Interpolation Lesion LowRank ModelGraph Progress SecondMoment Survey Unit Views closed_form
counterfact_cases draw_tokens escaped evaluate_edits export_lora fitted_vectorizer known_only
null_directions read_facts reference_score save_animation save_figure save_grid save_page
save_pixels script_data settings_for show subject_range sweep token_figure_size
Activation FeedForward Fmrai GraphDifferences KVResults LinearMap Match MultiHeadAttentionInstance
NeuronKVRecord NeuronMemory Normalization Operation OperationGraph Pattern Probe ResidualSum TensorNode
Tracker Trigger HeadBehaviours graph_page neighbourhood
HeadComposition HeadWeights Hop InformationFlow LensRecipe NeuronProbe ResidualParts SVD Subspaces Surgery
PolysemanticNeurons TokenPair TokenTrace
BaseInterpretabilityTool MatplotlibWrapper NotKept PlotlyWrapper Rerun Run RunTable Tool VersionDifference
"""


def test_every_entry_has_a_valid_call():
    packages = (one.name for one in pkgutil.walk_packages(toumei.__path__, "toumei.") if one.ispkg)
    entries = {}
    for package in map(importlib.import_module, packages):
        for name in getattr(package, "__all__", ()):
            entry = getattr(package, name)
            results = inspect.isclass(entry) and (issubclass(entry, Saved) or inspect.isabstract(entry))
            if (inspect.isfunction(entry) or inspect.isclass(entry)) and not results:
                entries[name] = inspect.unwrap(entry).__module__
    files = Path(__file__).with_name("valid_calls").glob("*.py")
    source = "\n".join(path.read_text("utf-8") for path in files)
    ours = {name for name, module in entries.items() if module.startswith("toumei")}
    missing = {name for name in ours if not re.search(rf"\b{name}\b", source)}
    assert missing <= set(NO_ENTRIES.split()), missing - set(NO_ENTRIES.split())


def state(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def spoilt(draw, arguments):
    """Arguments with something wrong in the place of one, now and then of two."""
    names = draw.sample(sorted(arguments), min(len(arguments), draw.choice((1, 1, 1, 2))))
    return {**arguments, **{name: draw.choice(BAD) for name in names}}, names


def described(value):
    return f"{type(value).__name__} {value!r}"[:60].replace("\n", " ")


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.__name__)
def test_bad_inputs_end_in_one_kind_of_error(room, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    draw, calls = random.Random(0), list(room())
    watched = {**MODELS, "gpt": world()[0]}
    before = {name: state(model) for name, model in watched.items()}
    wrong = []
    for index in range(COUNT // len(ROOMS)):
        function, arguments = calls[index % len(calls)]
        given, names = spoilt(draw, arguments)
        if given.get("folder", "") is None and function in (smollm2, minilm):
            continue  # no folder is right, and loads the real network for seconds
        said = ", ".join(f"{name}={described(given[name])}" for name in names)
        entry = f"{getattr(function, '__qualname__', function)}({sorted(arguments)}) with {said}"
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = function(**given)
        except (ToumeiError, FileNotFoundError, IsADirectoryError):
            continue
        except Exception as error:
            wrong.append(f"{entry}: {type(error).__name__} {error}"[:400])
            continue
        finally:
            pyplot.close("all")
        if not finite(found) and function.__name__ not in HOLDERS:
            wrong.append(f"{entry}: NaN")
    for name, model in watched.items():
        now = model.state_dict()
        assert all(torch.equal(tensor, now[key]) for key, tensor in before[name].items()), name
    assert not wrong, f"{len(wrong)} of them:\n" + "\n".join(wrong[:40])
