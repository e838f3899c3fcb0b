"""The language model inside of what wraps it: `torch.compile`, PEFT, data parallelism, other modules."""

import torch
from torch import Tensor, nn

from ...core.errors import ArchitectureError
from ...core.modules import check_model, evaluating, without_wrapper
from ...core.outputs import main_tensor


def language_model(model: nn.Module) -> nn.Module:
    """Returns the outermost Hugging Face model with a head inside of a model, or the model itself.

    Wrappers often show the attributes of the model inside of them, so names seem to be theirs.

    Args:
        model: What the user gave.

    Raises:
        ArgumentError: It is no module.
        ArchitectureError: Hooks do not run inside of it, as in `nn.DataParallel`.

    Example:
        >>> from transformers import GPT2Config, GPT2LMHeadModel
        >>> model = GPT2LMHeadModel(GPT2Config(vocab_size=11, n_embd=8, n_layer=2, n_head=2))
        >>> language_model(nn.Sequential(model)) is model
        True
    """
    check_model(model)
    model = without_wrapper(model)
    return next((inner for inner in model.modules() if _is_complete(inner)), model)


def check_wrapper(wrapper: nn.Module, inner: nn.Module, tokens: Tensor) -> None:
    """Checks that a wrapper gives the logits of the model inside of it; two short passes.

    Args:
        wrapper: What the user gave.
        inner: The result of `language_model`.
        tokens: The tokens (1, T) to try.

    Raises:
        ArchitectureError: It computes something else, as prompt tuning does, or cannot be run on tokens.
    """
    wrapper = without_wrapper(wrapper)
    if wrapper is inner:
        return
    names = type(wrapper).__name__, type(inner).__name__
    with torch.no_grad(), evaluating(wrapper):
        expected = main_tensor(inner(tokens))
        try:
            found = main_tensor(wrapper(tokens))
        except Exception as error:
            raise ArchitectureError(
                f"{names[0]} around {names[1]} does not run on token ids ({error}): give the inner model"
            ) from error
    if found.shape != expected.shape or not torch.allclose(found, expected, rtol=1e-2, atol=1e-3):
        raise ArchitectureError(
            f"{names[0]} gives other logits than the {names[1]} inside of it, as prompt tuning does: give "
            f"the inner model, to look at it without the wrapper"
        )


def _is_complete(module: nn.Module) -> bool:
    """Whether a module is a Hugging Face model with a head."""
    if all(base.__name__ != "PreTrainedModel" for base in type(module).__mro__):
        return False
    try:
        return module.get_output_embeddings() is not None  # type: ignore[operator]
    except (AttributeError, NotImplementedError):
        return False
