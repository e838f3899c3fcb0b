"""Dictionaries in the files of SAELens: ``cfg.json`` and ``sae_weights.safetensors`` in a folder."""

import json
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...core.checks import checked
from ...core.checksums import tensors_of
from ...core.errors import ArgumentError
from ...core.files import atomic_pair
from ...core.json_files import from_json
from ...core.optional import require
from ...core.serialization import write_safetensors
from ...core.user_warnings import warn
from .dictionary import Activation, Normalization, SparseAutoencoder

_CONFIG, _WEIGHTS, _SCALING = "cfg.json", "sae_weights.safetensors", "activation_scaler.json"
_VERSION = (
    "6.0.0"  # without one SAELens takes a configuration for one of before version 6, and drops the names
)
_NAMES = {"hook_point": "hook_name", "activation_fn_str": "activation_fn"}  # of before version 6
_ACTIVATIONS: dict[str, Activation] = {
    "standard": "relu",
    "topk": "topk",
    "jumprelu": "jump_relu",
    "batchtopk": "batch_topk",  # in checkpoints of a training, at whose end SAELens saves a jumprelu
    "matryoshka_batchtopk": "batch_topk",
    "transcoder": "relu",
    "jumprelu_transcoder": "jump_relu",
}
_NORMALIZATIONS: dict[str, Normalization] = {
    "none": "none",
    "expected_average_only_in": "none",  # one number, which is folded into the weights
    "layer_norm": "layer_norm",
    "constant_norm_rescale": "constant_norm",
}


@checked
def load_saelens(folder: str | Path) -> SparseAutoencoder:
    """Returns a dictionary from a folder that SAELens wrote, in its format of version 6 or of before.

    Checkpoints of its trainings are read too: the number with which they scale activations is folded into the
    weights. Where a configuration says that there is such a number and the folder has none, a warning says
    so.

    Args:
        folder: The folder with ``cfg.json`` and ``sae_weights.safetensors``.

    Raises:
        ArgumentError: A file is missing or damaged, or of an architecture other than standard, topk,
            jumprelu, batchtopk, matryoshka_batchtopk, transcoder and jumprelu_transcoder.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from toumei.transformers import SparseAutoencoder
        >>> from toumei.transformers.features import save_saelens
        >>> with TemporaryDirectory() as folder:
        ...     save_saelens(SparseAutoencoder.of_directions(torch.eye(4)), folder)
        ...     load_saelens(folder)
        SparseAutoencoder(4 features of width 4, relu, reads activations)
    """
    folder = Path(folder)
    config = _json(folder / _CONFIG)
    tensors = _tensors(folder / _WEIGHTS)
    try:
        config = _as_new(config)
        return _dictionary(config, tensors, _scaling(folder, config))
    except (ArgumentError, KeyError) as error:
        reason = f"there is no {error}" if isinstance(error, KeyError) else str(error)
        raise ArgumentError(f"{folder} is no dictionary of SAELens that toumei can read: {reason}") from error


@checked
def save_saelens(dictionary: SparseAutoencoder, folder: str | Path) -> None:
    """Writes a dictionary to a folder as SAELens does, for its `SAE.load_from_disk`.

    A dictionary of ``batch_topk`` becomes one of ``jumprelu``, as in SAELens.

    Args:
        dictionary: The dictionary.
        folder: The folder, which is made where it is missing.

    Raises:
        ArgumentError: A transcoder with an activation function that SAELens has no transcoder with.
        OSError: A file cannot be written.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     save_saelens(SparseAutoencoder.of_directions(torch.eye(3)), folder)
        ...     load_saelens(folder)
        SparseAutoencoder(3 features of width 3, relu, reads activations)
    """
    names = {"relu": "standard", "topk": "topk", "jump_relu": "jumprelu", "batch_topk": "jumprelu"}
    architecture = names[dictionary.activation]
    if dictionary.is_transcoder:
        if architecture == "topk":
            raise ArgumentError("SAELens has no transcoder whose activation function is topk")
        architecture = "jumprelu_transcoder" if architecture == "jumprelu" else "transcoder"
    normalization = next(
        name
        for name, ours in _NORMALIZATIONS.items()
        if ours == dictionary.normalization and name != "expected_average_only_in"
    )
    config: dict[str, Any] = {
        "architecture": architecture,
        "d_in": dictionary.width,
        "d_sae": dictionary.features,
        "dtype": str(dictionary.W_enc.dtype).removeprefix("torch."),
        "device": "cpu",
        "apply_b_dec_to_input": dictionary.subtract_bias,
        "normalize_activations": normalization,
        "reshape_activations": "hook_z" if dictionary.reads.endswith("hook_z") else "none",
        "metadata": {"hook_name": dictionary.reads, "sae_lens_version": _VERSION},
    }
    if architecture == "topk":
        config |= {"k": dictionary.k, "rescale_acts_by_decoder_norm": False}
    if dictionary.is_transcoder:
        config["d_out"] = dictionary.output_width
        config["metadata"]["hook_name_out"] = dictionary.writes
    tensors = {name: getattr(dictionary, name) for name in ("W_enc", "b_enc", "W_dec", "b_dec")}
    if "jumprelu" in architecture:
        tensors["threshold"] = dictionary.thresholds
    with atomic_pair(Path(folder) / _WEIGHTS, Path(folder) / _CONFIG) as (weights, described):
        write_safetensors(tensors, weights, {})
        described.write_text(json.dumps(config), encoding="utf-8")


def _as_new(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration as that of version 6; before it, TopK was an activation function of ``standard``.

    Raises:
        ArgumentError: It has another activation function.
    """
    config = {_NAMES.get(key, key): value for key, value in config.items()}
    function = config.get("activation_fn") or "relu"
    if function == "topk" and config.get("architecture", "standard") in ("standard", "topk"):
        kept = {"k": _mapping(config, "activation_fn_kwargs").get("k", config.get("k"))}
        config |= {"architecture": "topk", **kept}
    elif function not in ("relu", "topk"):
        raise ArgumentError(f"its activation_fn is {function!r}, and there are 'relu' and 'topk'")
    normalization = config.get("normalize_activations") or "none"
    config["normalize_activations"] = "expected_average_only_in" if normalization is True else normalization
    return config


def _scaling(folder: Path, config: dict[str, Any]) -> float:
    """The number that activations were multiplied with in the training and that no weight has in it.

    Raises:
        ArgumentError: The file with it is damaged.
    """
    if config["normalize_activations"] != "expected_average_only_in":
        return 1.0
    path = folder / _SCALING
    if not path.exists():
        warn(
            f"{folder} was trained on activations that were scaled to a norm of sqrt(width) on average, "
            f"and has no {_SCALING} with the number: its features are right for activations scaled alike"
        )
        return 1.0
    scaling = _json(path).get("scaling_factor")
    if scaling is None:  # it was folded already
        return 1.0
    if not isinstance(scaling, int | float) or not isfinite(scaling) or scaling <= 0:
        raise ArgumentError(f"the scaling_factor in {_SCALING} should be a positive number, got {scaling!r}")
    return float(scaling)


def _dictionary(config: dict[str, Any], tensors: dict[str, Tensor], scaling: float) -> SparseAutoencoder:
    architecture = config.get("architecture", "standard")
    if not isinstance(architecture, str) or architecture not in _ACTIVATIONS:
        raise ArgumentError(
            f"its architecture is {architecture!r}, and there are {', '.join(map(repr, _ACTIVATIONS))}"
        )
    finetuned = tensors.get("scaling_factor")
    if finetuned is not None and not torch.allclose(finetuned, torch.ones_like(finetuned)):
        raise ArgumentError("it has a finetuned scaling_factor")
    normalization = config["normalize_activations"]
    if not isinstance(normalization, str) or normalization not in _NORMALIZATIONS:
        raise ArgumentError(f"its normalize_activations is {normalization!r}")
    weights = {name: tensors[name] for name in ("W_enc", "b_enc", "W_dec", "b_dec")}
    activation = _ACTIVATIONS[architecture]
    jumps = activation in ("jump_relu", "batch_topk")
    thresholds = _thresholds(tensors) if jumps else torch.zeros_like(weights["b_enc"])
    _check_weights(config, {**weights, "threshold": thresholds})
    for name, factor in (("W_enc", scaling), ("W_dec", 1 / scaling), ("b_dec", 1 / scaling)):
        weights[name] = weights[name] * factor
    if config.get("rescale_acts_by_decoder_norm"):
        lengths = weights["W_dec"].norm(dim=1).clamp_min(1e-8)
        weights["W_enc"], weights["b_enc"] = weights["W_enc"] * lengths, weights["b_enc"] * lengths
        weights["W_dec"] = weights["W_dec"] / lengths[:, None]
        thresholds = thresholds / scaling  # of numbers that the lengths multiply
    metadata = _mapping(config, "metadata")
    reads = metadata.get("hook_name") or config.get("hook_name") or "activations"
    transcoder = "transcoder" in architecture
    writes = metadata.get("hook_name_out") or config.get("hook_name_out") or "outputs"
    return SparseAutoencoder(
        **weights,
        thresholds=thresholds,
        activation=activation,
        k=_count(config, "k") if config.get("k") else 0,
        subtract_bias=bool(config.get("apply_b_dec_to_input", True)) and not transcoder,
        normalization=_NORMALIZATIONS[normalization],
        reads=str(reads),
        writes=str(writes if transcoder else reads),
    )


def _thresholds(tensors: dict[str, Tensor]) -> Tensor:
    """The threshold of each feature; checkpoints of batchtopk have one for all."""
    one = tensors.get("topk_threshold")
    if one is None:
        return tensors["threshold"]
    if one.numel() != 1:
        raise ArgumentError(f"its topk_threshold is {tuple(one.shape)}, and one number is expected")
    return torch.full_like(tensors["b_enc"], float(one))


def _count(config: dict[str, Any], key: str) -> int:
    """A number of the configuration; that of features may have been a share of one in the training."""
    value = config[key]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value < 2**31:
        raise ArgumentError(f"its {key} should be a number from 1 on, got {value!r}")
    return int(value)


def _mapping(config: dict[str, Any], key: str) -> dict[str, Any]:
    value = config.get(key) or {}
    if not isinstance(value, dict):
        raise ArgumentError(f"its {key} should be a JSON object, got {type(value).__name__}")
    return value


def _check_weights(config: dict[str, Any], weights: dict[str, Tensor]) -> None:
    """Raises an error for weights of other shapes than the configuration says, or that are no numbers."""
    width, features = _count(config, "d_in"), _count(config, "d_sae")
    out = _count(config, "d_out") if "d_out" in config else width
    expected = {
        "W_enc": (width, features),
        "b_enc": (features,),
        "W_dec": (features, out),
        "b_dec": (out,),
        "threshold": (features,),
    }
    for name, shape in expected.items():
        found = tuple(weights[name].shape)
        if found != shape:
            raise ArgumentError(f"its {name} is {found}, and its configuration says {shape}")
        if not weights[name].is_floating_point():
            raise ArgumentError(f"its {name} is of {weights[name].dtype}, and weights are floating-point")
    if not all(bool(one.isfinite().all()) for one in weights.values()):
        raise ArgumentError("there are NaN or infinite numbers in its weights")


def _json(path: Path) -> dict[str, Any]:
    try:
        config = from_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArgumentError(f"{path} cannot be read, or is no JSON: {error}") from error
    if not isinstance(config, dict):
        raise ArgumentError(f"{path} should hold a JSON object, got {type(config).__name__}")
    return config


def _tensors(path: Path) -> dict[str, Tensor]:
    safetensors = require("safetensors", "reading a dictionary")
    try:
        with safetensors.safe_open(path, "pt") as file:
            return tensors_of(file)
    except (safetensors.SafetensorError, OSError) as error:
        raise ArgumentError(f"{path} cannot be read: it is missing, cut short or damaged: {error}") from error
