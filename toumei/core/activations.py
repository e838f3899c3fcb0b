"""What a forward pass recorded: the tensors of layers, by the names they were asked for."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from .errors import LayerError, OverwrittenError, UnreachedLayerError
from .names import Layer
from .summaries import counted, listed


def version_of(tensor: Tensor) -> int:
    """Returns how often a tensor was written into; in inference mode torch does not count."""
    return 0 if tensor.is_inference() else tensor._version


@dataclass(eq=False)
class Runs:
    """How often something ran in the current or last forward pass.

    Attributes:
        count: The number of runs.
        others: What else ran inside the same module, with its number of runs, for operations.
        inside: The modules inside, for lists of modules, which never run.
        parts: For the parts of the output that are edited the keys and indices that lead on to each tensor.
    """

    count: int = 0
    others: dict[str, int] = field(default_factory=dict)
    inside: tuple[str, ...] = ()
    parts: dict[tuple[int | str, ...], tuple[tuple[int | str, ...], ...]] = field(default_factory=dict)


class Activations(Mapping[str, Tensor]):
    """The tensors that recorded layers returned, by layer name.

    `activations[name]` is the last one that was recorded under the name; `calls(name)` has all of them when
    they were recorded with ``every=True``, else the last. Iterating goes over the layers that were reached.

    Example:
        >>> import torch
        >>> from toumei.core import run
        >>> from toumei.models import SimpleMLP
        >>> found = run(SimpleMLP(4, 3, 2), torch.rand(5, 4), record=["fc0"])
        >>> list(found), found["fc0"].shape
        (['fc0'], torch.Size([5, 3]))
    """

    def __init__(self, layers: Mapping[str, Layer]) -> None:
        self._layers = dict(layers)
        self._runs: dict[str, Runs] = {}
        self._calls: dict[str, list[tuple[Tensor, int]]] = {name: [] for name in layers}

    def count(self, runs: Mapping[str, Runs]) -> None:
        """Takes over where the runs of layers are counted, by name."""
        self._runs.update(runs)

    def emptied(self) -> "Activations":
        """Returns activations of the same layers, without a tensor so far."""
        empty = Activations(self._layers)
        empty._runs = self._runs
        return empty

    def calls(self, name: str) -> list[Tensor]:
        """Returns the recorded outputs of a layer in the order of its runs.

        Raises:
            LayerError: The layer is not being recorded.
            UnreachedLayerError: It is, but the forward pass never ran it, or not so often.
            OverwrittenError: An operation wrote into the recorded tensor afterwards.
        """
        if name not in self._calls:
            raise LayerError(
                f"layer {name!r} is not recorded: recorded are {', '.join(self._calls) or 'no layers'}"
            )
        if not self._calls[name]:
            raise UnreachedLayerError(not_reached(self._layers[name], self._runs[name]))
        for tensor, version in self._calls[name]:
            if version_of(tensor) != version:
                raise OverwrittenError(
                    f"the output of layer {name!r} was overwritten in place by a later operation: "
                    f"record it with clone=True"
                )
        return [tensor for tensor, _ in self._calls[name]]

    def reached(self, name: str) -> bool:
        """Returns whether the layer is recorded and a forward pass ran it."""
        return bool(self._calls.get(name))

    def complete(self) -> bool:
        """Returns whether all recorded layers were reached."""
        return all(self._calls.values())

    def runs(self, name: str) -> int:
        """Returns how often the module or operation of a layer ran in the last forward pass.

        Raises:
            LayerError: The layer is neither recorded nor edited.
        """
        if name not in self._runs:
            raise LayerError(
                f"layer {name!r} is neither recorded nor edited: there are {', '.join(self._runs) or 'none'}"
            )
        return self._runs[name].count

    def parts(self, name: str, part: tuple[int | str, ...]) -> tuple[tuple[int | str, ...], ...]:
        """Returns the keys that lead from an edited part of a layer's output to each tensor in it.

        Those of its main tensor are first.

        Raises:
            LayerError: The layer is neither recorded nor edited.
        """
        self.runs(name)
        return self._runs[name].parts.get(part, ())

    def __getitem__(self, name: str) -> Tensor:
        return self.calls(name)[-1]

    def __iter__(self) -> Iterator[str]:
        return (name for name, calls in self._calls.items() if calls)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.reached(name)

    def __repr__(self) -> str:
        return f"Activations({listed(f'{name}: {tuple(self[name].shape)}' for name in self)})"

    def state(self) -> dict[str, list[tuple[Tensor, int]]]:
        """Returns what `reset` goes back to."""
        return {name: list(calls) for name, calls in self._calls.items()}

    def reset(self, state: dict[str, list[tuple[Tensor, int]]]) -> None:
        """Forgets what was recorded since."""
        self._calls = {name: list(calls) for name, calls in state.items()}

    def _add(self, name: str, tensor: Tensor, every: bool) -> None:
        if not every:
            self._calls[name].clear()
        self._calls[name].append((tensor, version_of(tensor)))


def not_reached(layer: Layer, runs: Runs) -> str:
    """Returns why a layer was not reached: it did not run, or not so often, and what ran in its place."""
    name = str(layer)
    if layer.run is not None and runs.count:
        numbers = ", ".join(f"#{number}" for number in range(min(runs.count, 6)))
        more = ", ..." if runs.count > 6 else ""
        return (
            f"layer {name!r} was never reached: {layer.source!r} ran {counted(runs.count, 'time')} in a "
            f"forward pass, {numbers}{more}"
        )
    if runs.inside:
        inner = ", ".join(f"{layer.module}.{child}" for child in runs.inside)
        return f"layer {name!r} was never reached: it holds modules and never runs, name one of them, {inner}"
    if layer.operation is None:
        return f"layer {name!r} was never reached in the forward pass"
    where = f"in the module {layer.module!r}" if layer.module else "in the model itself, outside its modules"
    if not runs.others:
        return f"operation {layer.operation!r} was never reached: no operation ran {where}"
    ran = ", ".join(
        f"{other} ({count} times)" if count > 1 else other for other, count in sorted(runs.others.items())
    )
    return f"no operation {layer.operation!r} ran {where}: there ran {ran}"
