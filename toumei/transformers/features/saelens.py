"""Dictionaries in the files of SAELens: ``cfg.json`` and ``sae_weights.safetensors`` in a folder."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...core.checks import checked
from ...core.errors import ArgumentError
from ...core.files import atomic_write
from ...core.optional import require
from ...core.serialization import write_safetensors
from .dictionary import Activation, Normalization, SparseAutoencoder

_CONFIG, _WEIGHTS = "cfg.json", "sae_weights.safetensors"
_VERSION = (
    "6.0.0"  # without one SAELens takes a configuration for one of before version 6, and drops the names
)
_NAMES = {"hook_point": "hook_name", "activation_fn_str": "activation_fn"}  # of before version 6
_ACTIVATIONS: dict[str, Activation] = {
    "standard": "relu",
    "topk": "topk",
    "jumprelu": "jump_relu",
    "batchtopk": "batch_topk",
    "transcoder": "relu",
    "jumprelu_transcoder": "jump_relu",
}
_NORMALIZATIONS: dict[str, Normalization] = {
    "none": "none",
    "expected_average_only_in": "none",  # SAELens folds that number into the weights before it saves them
    "layer_norm": "layer_norm",
    "constant_norm_rescale": "constant_norm",
}


@checked
def load_saelens(folder: str | Path) -> SparseAutoencoder:
    """Returns a dictionary from a folder that SAELens wrote, in its format of version 6 or of before.

    Args:
        folder: The folder with ``cfg.json`` and ``sae_weights.safetensors``.

    Raises:
        ArgumentError: A file is missing or damaged, or of an architecture other than standard, topk,
            jumprelu, batchtopk, transcoder and jumprelu_transcoder.

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
    config = _config(folder / _CONFIG)
    tensors = _tensors(folder / _WEIGHTS)
    try:
        return _dictionary(_as_new(config), tensors)
    except (ArgumentError, KeyError, TypeError) as error:
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
    with atomic_write(Path(folder) / _WEIGHTS) as partial:
        write_safetensors(tensors, partial, {})
    with atomic_write(Path(folder) / _CONFIG) as partial:
        partial.write_text(json.dumps(config), encoding="utf-8")


def _as_new(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration as that of version 6; before it, TopK was an activation function of ``standard``.

    Raises:
        ArgumentError: It has another activation function.
    """
    config = {_NAMES.get(key, key): value for key, value in config.items()}
    function = config.get("activation_fn") or "relu"
    if function == "topk" and config.get("architecture", "standard") in ("standard", "topk"):
        kept = {"k": (config.get("activation_fn_kwargs") or {}).get("k", config.get("k"))}
        config |= {"architecture": "topk", **kept}
    elif function not in ("relu", "topk"):
        raise ArgumentError(f"its activation_fn is {function!r}, and there are 'relu' and 'topk'")
    if not isinstance(config.get("normalize_activations"), str):
        config["normalize_activations"] = "none"  # None, or whether a number is folded into the weights
    return config


def _dictionary(config: dict[str, Any], tensors: dict[str, Tensor]) -> SparseAutoencoder:
    architecture = config.get("architecture", "standard")
    if architecture not in _ACTIVATIONS:
        raise ArgumentError(
            f"its architecture is {architecture!r}, and there are {', '.join(map(repr, _ACTIVATIONS))}"
        )
    scaling = tensors.get("scaling_factor")
    if scaling is not None and not torch.allclose(scaling, torch.ones_like(scaling)):
        raise ArgumentError("it has a finetuned scaling_factor")
    normalization = config["normalize_activations"]
    if normalization not in _NORMALIZATIONS:
        raise ArgumentError(f"its normalize_activations is {normalization!r}")
    weights = {name: tensors[name] for name in ("W_enc", "b_enc", "W_dec", "b_dec")}
    activation = _ACTIVATIONS[architecture]
    jumps = activation in ("jump_relu", "batch_topk")
    thresholds = tensors["threshold"] if jumps else torch.zeros_like(weights["b_enc"])
    _check_weights(config, {**weights, "threshold": thresholds})
    if config.get("rescale_acts_by_decoder_norm"):
        lengths = weights["W_dec"].norm(dim=1).clamp_min(1e-8)
        weights["W_enc"], weights["b_enc"] = weights["W_enc"] * lengths, weights["b_enc"] * lengths
        weights["W_dec"] = weights["W_dec"] / lengths[:, None]
    metadata = config.get("metadata") or {}
    reads = metadata.get("hook_name") or config.get("hook_name") or "activations"
    transcoder = "transcoder" in architecture
    writes = metadata.get("hook_name_out") or config.get("hook_name_out") or "outputs"
    return SparseAutoencoder(
        **weights,
        thresholds=thresholds,
        activation=activation,
        k=int(config.get("k") or 0),
        subtract_bias=bool(config.get("apply_b_dec_to_input", True)) and not transcoder,
        normalization=_NORMALIZATIONS[normalization],
        reads=str(reads),
        writes=str(writes if transcoder else reads),
    )


def _check_weights(config: dict[str, Any], weights: dict[str, Tensor]) -> None:
    """Raises an error for weights of other shapes than the configuration says, or that are no numbers."""
    width, features = int(config["d_in"]), int(config["d_sae"])
    out = int(config.get("d_out", width))
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
    if not all(bool(one.isfinite().all()) for one in weights.values()):
        raise ArgumentError("there are NaN or infinite numbers in its weights")


def _config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArgumentError(f"{path} cannot be read, or is no JSON: {error}") from error
    if not isinstance(config, dict):
        raise ArgumentError(f"{path} should hold a JSON object, got {type(config).__name__}")
    return config


def _tensors(path: Path) -> dict[str, Tensor]:
    safetensors = require("safetensors", "reading a dictionary")
    try:
        with safetensors.safe_open(path, "pt") as file:
            return {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError) as error:
        raise ArgumentError(f"{path} cannot be read: it is missing, cut short or damaged: {error}") from error
