"""The layers of a feed-forward network and the weights between them, in the order in which they really run.

`torch.fx` traces the network if it can; otherwise one forward pass of an example is recorded. Both walks
hand what they meet, by its canonical name, to the same few rules: weights make a layer, normalizations scale,
sums and products join, concatenations lie beside each other, and activations, poolings and reshapes pass
channels on.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

from ...core.errors import ArgumentError
from ...core.forward import forward_errors
from ...core.function_kinds import (
    AVERAGE_POOLINGS,
    CONVERSIONS,
    CONVOLUTIONS,
    DROPOUTS,
    ELEMENTWISE,
    MAX_POOLINGS,
    POWER_POOLINGS,
    TENSOR_PROPERTIES,
    TRANSPOSED_CONVOLUTIONS,
)
from ...core.functions import Function, canonical_name, intercepted, tensors_among
from ...core.modules import evaluating
from ...core.summaries import counted
from ...core.untracked import Untracked
from .norms import Norm, check_norm
from .signals import Ledger, Signal, concatenation, stale, union

_JOINED = {"add", "sub", "rsub", "mul", "div", "rdiv", "maximum", "minimum"}
_PRODUCTS = {"addmm", "matmul", "mm"}
_WEIGHTED = {"linear"} | CONVOLUTIONS | TRANSPOSED_CONVOLUTIONS | _PRODUCTS
_NORMALIZED = {"batch_norm", "layer_norm", "group_norm", "instance_norm"}
_LAID_OUT = {"flatten", "view", "reshape", "squeeze", "unsqueeze", "contiguous", "clone"} | {
    *("permute", "transpose", "movedim", "view_as", "reshape_as"),
    *TENSOR_PROPERTIES,
}
_POOLED = MAX_POOLINGS | AVERAGE_POOLINGS | POWER_POOLINGS | {"mean", "amax"}
_OTHERS = {"softmax", "log_softmax", "softmin", "rrelu", "neg", "positive", "local_response_norm"} | {
    *("interpolate", "upsample", "pad", "detach", "stochastic_depth", "identity"),
}
_PASSED_ON = ELEMENTWISE | DROPOUTS | CONVERSIONS | _POOLED | _LAID_OUT | _OTHERS
_PASSING_MODULES = (
    *(
        nn.Identity,
        nn.Flatten,
        nn.Unflatten,
        nn.Upsample,
        nn.LocalResponseNorm,
        nn.modules.dropout._DropoutNd,
    ),
    *(nn.modules.pooling._MaxPoolNd, nn.modules.pooling._AvgPoolNd, nn.modules.pooling._AdaptiveAvgPoolNd),
    *(nn.modules.pooling._AdaptiveMaxPoolNd, nn.modules.pooling._LPPoolNd, nn.modules.padding._ConstantPadNd),
    *(nn.modules.padding._ReflectionPadNd, nn.modules.padding._ReplicationPadNd),
)


def weight_blocks(
    model: nn.Module, example_input: object, norm: Norm, keep_graph: bool
) -> tuple[tuple[str, ...], tuple[int, ...], list[tuple[int, int, Tensor]]]:
    """Returns names and sizes of the layers, and (source, target, weights) of the blocks between them.

    The arguments and errors are those of `WeightGraph.from_model`.
    """
    check_norm(norm)
    for name, module in model.named_modules():
        if isinstance(module, nn.RNNBase | nn.RNNCellBase):
            raise ArgumentError(
                f"{name or type(model).__name__!r} is a recurrent network: a graph of weights needs a "
                f"feed-forward one"
            )
    rules = _Rules(model, norm)
    with torch.set_grad_enabled(keep_graph):
        if example_input is None:
            _walk_trace(rules, _trace(model))
        else:
            _walk_recording(rules, example_input, keep_graph)
    ledger = rules.ledger
    if not ledger.weights:
        raise ArgumentError(
            f"{type(model).__name__} has no weights to make a graph of: no linear layers, no convolutions"
        )
    unused = [index for index, size in enumerate(ledger.sizes) if size is None]
    position = {
        index: new for new, index in enumerate(i for i in range(len(ledger.names)) if i not in unused)
    }
    names = tuple(ledger.names[index] for index in position)
    sizes = tuple(size for size in ledger.sizes if size is not None)
    blocks = [
        (position[source], position[target], block) for (source, target), block in ledger.weights.items()
    ]
    return names, sizes, blocks


class _Rules:
    """What each operation makes of the signals that it gets."""

    def __init__(self, model: nn.Module, norm: Norm) -> None:
        self.model = model
        self.ledger = Ledger(norm)
        self.modules = dict(model.named_modules())
        self.owners = {
            id(parameter): name
            for name, module in self.modules.items()
            for parameter in module.parameters(recurse=False)
        }

    def function(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Signal | None:
        """Returns the signal that a function makes, given by its name; None where no signal goes in."""
        signals = [value for value in _flat((args, kwargs)) if isinstance(value, Signal)]
        if not signals:
            return None
        if name in _WEIGHTED:
            return self._weighted(name, args, kwargs)
        if name in _NORMALIZED:
            return self._normalized(name, args, kwargs)
        if name == "cat":
            axis = kwargs.get("dim", kwargs.get("axis", args[1] if len(args) > 1 else 0))
            if axis not in (1, -1, -3):
                raise ArgumentError(
                    f"values are concatenated along axis {axis}, which is not that of channels"
                )
            return concatenation(signals)
        if name in _JOINED or name in _PASSED_ON:
            return self._joined(name, signals, (*args, *kwargs.values()))
        raise ArgumentError(
            f"no graph of weights for the operation {name!r} in {type(self.model).__name__}: channels must "
            f"pass from layer to layer through activations, poolings, sums and concatenations"
        )

    def module(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Signal | None:
        """Returns the signal that a module makes which is not traced into."""
        module = self.modules[name]
        signal = next((value for value in _flat((args, kwargs)) if isinstance(value, Signal)), None)
        if signal is None:
            return None
        weight = getattr(module, "weight", None)
        if isinstance(module, nn.Linear):
            return self.ledger.layer(name, signal, module.weight)
        if isinstance(module, nn.modules.conv._ConvTransposeNd):
            return self.ledger.layer(name, signal, _untransposed(module.weight, module.groups))
        if isinstance(module, nn.modules.conv._ConvNd):
            return self.ledger.layer(name, signal, module.weight, module.groups)
        if type(module).__name__ == "Conv1D" and isinstance(weight, Tensor):  # Hugging Face's linear layer
            return self.ledger.layer(name, signal, weight.T)
        if isinstance(module, nn.modules.batchnorm._NormBase):
            return self.ledger.normalized(signal, _batch_scale(module.weight, module.running_var, module.eps))
        if isinstance(module, nn.LayerNorm | nn.GroupNorm):
            return signal if weight is None else self.ledger.normalized(signal, weight)
        activation = type(module).__module__ == "torch.nn.modules.activation"
        if isinstance(module, _PASSING_MODULES) or (
            activation and not isinstance(module, nn.MultiheadAttention)
        ):
            return stale(signal)
        return self.function(type(module).__name__, (signal,), {})

    def _weighted(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Signal:
        values = [value for value in (*args, *kwargs.values()) if isinstance(value, Signal | Tensor)]
        signal = next(value for value in values if isinstance(value, Signal))
        weights = [value for value in values if isinstance(value, Tensor) and value.dim() >= 2]
        if not weights or id(weights[0]) not in self.owners:
            raise ArgumentError(
                f"the weights of a {name!r} in {type(self.model).__name__} are no parameter of a module: "
                f"attention and weights that are computed have no fixed graph"
            )
        (weight, *_), owner = weights, self.owners[id(weights[0])]
        groups = kwargs.get("groups", next((arg for arg in args[6:7]), 1))
        if name in TRANSPOSED_CONVOLUTIONS:
            return self.ledger.layer(owner, signal, _untransposed(weight, groups))
        if name in _PRODUCTS:
            return self.ledger.layer(owner, signal, weight.T)
        return self.ledger.layer(owner, signal, weight, groups)

    def _normalized(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Signal:
        signal = args[0] if args else kwargs["input"]
        if name == "batch_norm":
            _, _, variance, weight, *_ = (*args, *(None,) * 4)
            variance, weight = kwargs.get("running_var", variance), kwargs.get("weight", weight)
            return self.ledger.normalized(signal, _batch_scale(weight, variance, kwargs.get("eps", 1e-5)))
        weight = kwargs.get("weight", args[2] if len(args) > 2 else None)
        return signal if weight is None else self.ledger.normalized(signal, weight)

    def _joined(self, name: str, signals: list[Signal], values: Iterable[Any]) -> Signal:
        joined = union(signals) if len(signals) > 1 else stale(signals[0])
        if name == "mul" and len(signals) == 1:
            for factor in values:
                if isinstance(factor, Tensor) and joined.width and factor.numel() == joined.width:
                    joined = joined.scaled(factor)
        return joined


def _batch_scale(weight: Tensor | None, variance: Tensor | None, epsilon: float) -> Tensor:
    if variance is None:
        assert weight is not None
        return weight
    scale = (variance + epsilon).rsqrt()
    return scale if weight is None else scale * weight


def _untransposed(weight: Tensor, groups: int) -> Tensor:
    if groups != 1:
        raise ArgumentError(f"transposed convolutions of {counted(groups, 'group')} are not supported")
    return weight.transpose(0, 1)


def _flat(value: Any) -> Iterable[Any]:
    if isinstance(value, list | tuple):
        for item in value:
            yield from _flat(item)
    elif isinstance(value, dict):
        yield from _flat(list(value.values()))
    else:
        yield value


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return super().is_leaf_module(m, module_qualified_name) or type(m).__name__ == "Conv1D"


def _trace(model: nn.Module) -> fx.Graph:
    try:
        with evaluating(model):
            return _Tracer().trace(model)
    except Exception as error:  # whatever the model's own code raises on symbolic values
        raise ArgumentError(
            f"torch.fx cannot trace {type(model).__name__} ({str(error).splitlines()[0]}): give an "
            f"example_input, and its forward pass is recorded"
        ) from error


def _walk_trace(rules: _Rules, graph: fx.Graph) -> None:
    values: dict[fx.Node, Any] = {}
    for node in graph.nodes:
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), values.__getitem__)
        if node.op == "placeholder":
            values[node] = rules.ledger.input("input" if not rules.ledger.names else str(node.target))
        elif node.op == "get_attr":
            values[node] = _attribute(rules.model, str(node.target))
        elif node.op == "call_module":
            values[node] = rules.module(str(node.target), args, kwargs)
        elif node.target is getattr:
            name = str(node.args[1])
            values[node] = rules.function(name, args, {}) if name in TENSOR_PROPERTIES else None
        elif node.op in ("call_function", "call_method"):
            name, _ = canonical_name(node.target)
            values[node] = None if name in ("size", "dim") else rules.function(name, args, kwargs)


def _attribute(model: nn.Module, name: str) -> Any:
    value: Any = model
    for part in name.split("."):
        value = getattr(value, part)
    return value


class _Recorder:
    """Follows signals through the functions that a forward pass calls."""

    def __init__(self, rules: _Rules, keep_graph: bool) -> None:
        self.rules, self.keep_graph = rules, keep_graph
        self.untracked = Untracked()
        # the tensor is kept, so that its id is not given to another one
        self.signals: dict[int, tuple[Tensor, Signal]] = {}

    def tag(self, tensor: Tensor, signal: Signal) -> None:
        """Notes the signal that a tensor carries."""
        self.signals[id(tensor)] = (tensor, signal)

    def handle(self, function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Returns what the function returns, and notes its signal."""
        with self.untracked:
            output = function(*args, **kwargs)
        # a comparison carries no signal
        outputs = [tensor for tensor in tensors_among([output]) if tensor.is_floating_point()]
        if outputs:
            name, _ = canonical_name(function)
            with torch.set_grad_enabled(self.keep_graph):
                signal = self.rules.function(name, self._signals(args), self._signals(kwargs))
            if signal is not None:
                for tensor in outputs:
                    self.tag(tensor, signal)
        return output

    def _signals(self, value: Any) -> Any:
        if isinstance(value, list | tuple):
            return tuple(self._signals(item) for item in value)
        if isinstance(value, dict):
            return {key: self._signals(item) for key, item in value.items()}
        return self.signals[id(value)][1] if id(value) in self.signals else value


def _walk_recording(rules: _Rules, example_input: object, keep_graph: bool) -> None:
    inputs = example_input if isinstance(example_input, tuple) else (example_input,)
    inputs = tuple(_differentiable(value) for value in inputs)
    recorder = _Recorder(rules, keep_graph)
    for index, value in enumerate(inputs):
        if isinstance(value, Tensor):
            recorder.tag(value, rules.ledger.input("input" if index == 0 else f"input{index}"))
    forward = forward_errors(rules.model, inputs)
    with evaluating(rules.model), torch.enable_grad(), intercepted(recorder.handle), forward:
        output = rules.model(*inputs)
    for tensor in tensors_among(output.values() if isinstance(output, Mapping) else [output]):
        if untracked := recorder.untracked.described(tensor):
            raise ArgumentError(f"no graph of weights for {untracked} in {type(rules.model).__name__}")


def _differentiable(value: Any) -> Any:
    """A copy of a tensor that depends on a leaf, so that all that is made of it is part of a graph."""
    real = isinstance(value, Tensor) and value.is_floating_point()
    return value.detach().requires_grad_().clone() if real else value
