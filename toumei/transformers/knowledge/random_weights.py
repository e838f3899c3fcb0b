"""The same architecture with random weights, against which probes are compared."""

from copy import deepcopy
from typing import Any

from torch import nn

from ...core.errors import ArchitectureError
from ...core.modules import device_and_dtype, without_wrapper
from ...core.seeding import seeded
from ..model.hooked_model import HookedModel


def random_model(model: HookedModel, seed: int) -> HookedModel:
    """Returns a model of the same architecture with weights as before training; the user's stays as it is.

    Args:
        model: The model.
        seed: Seed of the weights.

    Raises:
        ArchitectureError: It is no model of transformers, so that it is not known how its weights begin.

    Example:
        >>> from toumei.models import facts_gpt
        >>> model = HookedModel(*facts_gpt()[:2])
        >>> random = random_model(model, seed=0)
        >>> random.model.transformer.wte.weight.std() < 0.03 < model.model.transformer.wte.weight.std()
        tensor(True)
    """
    inner: Any = without_wrapper(model.model)
    if all(base.__name__ != "PreTrainedModel" for base in type(inner).__mro__):
        raise ArchitectureError(
            f"it is not known how the weights of {type(inner).__name__} begin: expected a model of "
            f"transformers, or random_baseline=False"
        )
    device, dtype = device_and_dtype(inner)
    config = deepcopy(inner.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    with seeded(seed):
        new: nn.Module = type(inner)(config)
    return HookedModel(new.to(device, dtype).eval(), model.tokenizer)
