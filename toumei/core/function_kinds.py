"""Kinds of torch functions, as sets of the names that `canonical_name` gives.

Propagation, guided gradients, gradient overrides and graphs of weights share them.
"""

import math
from collections.abc import Mapping
from types import GetSetDescriptorType
from typing import Any

from torch import Tensor

_RECTIFIERS = "relu relu6 leaky_relu prelu rrelu elu selu celu gelu silu mish hardswish softplus"
_OTHER_ELEMENTWISE = """
tanh sigmoid hardsigmoid hardtanh log_sigmoid softsign tanhshrink hardshrink softshrink threshold
exp exp2 expm1 log log2 log10 log1p logit sqrt rsqrt square pow rpow float_power abs clamp clamp_min clamp_max
reciprocal erf erfc erfinv sin cos tan asin acos atan sinh cosh asinh acosh atanh
sign floor ceil round trunc nan_to_num
"""
_DROPOUTS = "dropout dropout1d dropout2d dropout3d alpha_dropout feature_alpha_dropout feature_dropout"
_CONVERSIONS = "to float double half bfloat16 type type_as cpu cuda"
_LAYOUT = """
view view_as reshape reshape_as flatten unflatten ravel permute transpose movedim t squeeze unsqueeze
expand expand_as broadcast_to repeat tile roll flip rot90 contiguous clone select chunk split split_with_sizes
unbind
"""

# Activations that pass large numbers on as they are, and negative ones little or not at all.
RECTIFIERS = frozenset(_RECTIFIERS.split())
# Functions of each number alone. `rrelu` is left out, since it draws random numbers in training.
ELEMENTWISE = (RECTIFIERS - {"rrelu"}) | frozenset(_OTHER_ELEMENTWISE.split())
CONVOLUTIONS = frozenset(("conv1d", "conv2d", "conv3d"))
TRANSPOSED_CONVOLUTIONS = frozenset(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"))
MAX_POOLINGS = frozenset(f"{kind}max_pool{axes}d" for kind in ("", "adaptive_") for axes in (1, 2, 3))
AVERAGE_POOLINGS = frozenset(f"{kind}avg_pool{axes}d" for kind in ("", "adaptive_") for axes in (1, 2, 3))
POWER_POOLINGS = frozenset(("lp_pool1d", "lp_pool2d", "lp_pool3d"))
DROPOUTS = frozenset(_DROPOUTS.split())
# What changes the precision or the device of a tensor.
CONVERSIONS = frozenset(_CONVERSIONS.split())
# What lays the numbers of one tensor out anew.
LAYOUT = frozenset(_LAYOUT.split())
# Properties that are tensors of the same numbers.
TENSOR_PROPERTIES = frozenset(("T", "H", "mT", "mH", "data", "real", "imag"))
# What is read of a tensor: its properties and its shape.
PROPERTIES = frozenset(("size", "dim")) | frozenset(
    name for name in dir(Tensor) if isinstance(getattr(Tensor, name), property | GetSetDescriptorType)
)
_BOUNDS: dict[str, tuple[tuple[str, float | None], ...]] = {
    "relu": (),
    "relu6": (),
    "clamp": (("min", None), ("max", None)),
    "clamp_min": (("min", None),),
    "hardtanh": (("min_val", -1.0), ("max_val", 1.0)),
    "threshold": (("threshold", None), ("value", None)),
}


def rectifier_ceiling(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> float | None:
    """Returns the ceiling c of a call that computes min(max(x, 0), c), None of any other call.

    Args:
        name: The canonical name of what is called.
        args: The positional arguments.
        kwargs: The others.

    Example:
        >>> import torch
        >>> x = torch.ones(2)
        >>> rectifier_ceiling("relu", (x,), {}), rectifier_ceiling("clamp", (x, 0), {"max": 6})
        (inf, 6.0)
        >>> rectifier_ceiling("clamp", (x, -1), {}) is None
        True
    """
    if name not in _BOUNDS:
        return None
    if name in ("relu", "relu6"):
        return 6.0 if name == "relu6" else math.inf
    bounds = [
        args[place] if len(args) > place else kwargs.get(key, default)
        for place, (key, default) in enumerate(_BOUNDS[name], 1)
    ]
    low, high = bounds[0], bounds[1] if len(bounds) > 1 else None
    if name == "threshold":
        return math.inf if low == high == 0 else None
    if isinstance(low, Tensor) or isinstance(high, Tensor) or low is None or low != 0:
        return None
    return math.inf if high is None else float(high) if high > 0 else None
