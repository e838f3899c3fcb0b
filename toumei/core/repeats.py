"""Whether a network says the same twice: one that draws random numbers or counts its passes does not."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from .forward import forward_errors
from .hooks import run
from .outputs import main_tensor
from .user_warnings import warn

# Modules of these draw no random numbers in evaluation mode and keep nothing of a pass.
_ROOMS = frozenset(
    f"torch.nn.modules.{name}"
    for name in (
        *("activation", "batchnorm", "channelshuffle", "container", "conv", "dropout", "flatten"),
        *("instancenorm", "linear", "normalization", "padding", "pixelshuffle", "pooling", "sparse"),
        "upsampling",
    )
) | {
    *("torchvision.ops.misc", "torchvision.ops.stochastic_depth"),
    *("transformers.activations", "transformers.pytorch_utils"),
}
_FAMILIES = frozenset(  # of transformers: others, such as Reformer and BigBird, draw in evaluation mode too
    (
        *("bert", "bloom", "cohere", "distilbert", "falcon", "gemma", "gemma2", "gemma3", "gpt2", "gpt_neo"),
        *("gpt_neox", "gptj", "llama", "mistral", "olmo2", "opt", "phi", "phi3", "qwen2", "qwen3", "roberta"),
        *("stablelm", "starcoder2"),
    )
)
_DRAWING = (nn.FractionalMaxPool2d, nn.FractionalMaxPool3d)
_ROUNDING = 32  # how many times the smallest difference of a precision passes of one row may differ by


def always_repeats(model: nn.Module) -> bool:
    """Returns whether a network in evaluation mode is known to say the same twice, without a pass of it.

    Three kinds are known: networks that consist of torch's modules alone, classifiers from torchvision, and
    some language models from transformers. A network that somebody put hooks or other code into is not known.

    Example:
        >>> always_repeats(nn.Sequential(nn.Linear(3, 2), nn.Dropout()).eval())
        True
        >>> always_repeats(nn.FractionalMaxPool2d(2, output_size=3))
        False
    """
    hooks = torch.nn.modules.module
    if hooks._global_forward_hooks or hooks._global_forward_pre_hooks:
        return False
    return all(map(_is_known, model.modules()))


def _is_known(module: nn.Module) -> bool:
    kind = type(module)
    place = kind.__module__
    known = place in _ROOMS or (
        place.startswith("torchvision.models.") and place.count(".") == 2  # classifiers
    )
    known = known or (place.startswith("transformers.models.") and place.split(".")[2] in _FAMILIES)
    changed = "forward" in vars(module) or module._forward_hooks or module._forward_pre_hooks
    if not known or changed or module.training or kind in _DRAWING:
        return False
    weights = module._parameters.values()
    return all(weight is None or type(weight) is nn.Parameter for weight in weights)


def repeat_gap(first: Tensor, second: Tensor) -> float:
    """Returns the largest difference of two passes of the same row, 0 where it may be rounding.

    Args:
        first: What a network returned.
        second: What it returned for the same input.

    Example:
        >>> repeat_gap(torch.ones(2), torch.tensor([1.0, 1.5])), repeat_gap(torch.ones(2), torch.ones(2))
        (0.5, 0.0)
    """
    if first.shape != second.shape:
        return float("inf")
    if torch.equal(first, second):
        return 0.0
    first, second = first.detach(), second.detach()
    precision = torch.finfo(first.dtype).eps if first.is_floating_point() else 0.0
    gap = (first.double() - second.double()).abs().nan_to_num(0.0).max()
    scale = torch.maximum(first.double().abs(), second.double().abs()).nan_to_num(0.0).max()
    return float(gap) if float(gap) > _ROUNDING * precision * float(scale) else 0.0


def check_repeats(model: nn.Module, row: Tensor) -> float:
    """Returns how far two passes of a row are apart, after a warning if they are.

    Args:
        model: The network.
        row: Its input (1, ...).

    Raises:
        ForwardError: The network cannot run on it.
    """
    with torch.no_grad(), forward_errors(model, (row,)):
        gap = repeat_gap(main_tensor(model(row)).clone(), main_tensor(model(row)))
    warn_of_gap(gap)
    return gap


def check_layers_repeat(
    model: nn.Module,
    row: Tensor,
    layers: Mapping[str, str],
) -> None:
    """Warns if the activations of layers differ between two passes of a row.

    Args:
        model: The network, in evaluation mode.
        row: Its input (1, ...).
        layers: By name the last run of each layer.
    """
    if always_repeats(model):
        return
    with torch.no_grad():
        first, second = (run(model, row, record=layers, clone=True) for _ in range(2))
    warn_of_gap(max(repeat_gap(first[name], second[name]) for name in layers))


def warn_of_gap(gap: float) -> None:
    """Warns of a network whose passes are apart."""
    if gap:
        warn(
            f"two passes of the same row differ by {gap:.2g}: the network draws random numbers or counts its "
            f"passes, so that results cannot be repeated and their errors are larger than they say. Switch "
            f"that off (F.dropout takes training=self.training), or fix the seed of each pass, as "
            f"`with seeded_passes(model, seed=0):` of toumei.core does"
        )
