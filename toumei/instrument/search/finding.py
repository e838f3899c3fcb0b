"""Searches a graph of operations for what fits a pattern."""

import re
from collections.abc import Iterable, Iterator, Sequence

from ...core.checks import checked
from ..graph import OperationGraph
from .patterns import Match, Pattern


@checked
def find(graph: OperationGraph, pattern: Pattern) -> Iterator[Match]:
    """Yields what fits a pattern, at most one match for each operation that can be the last, in their order.

    Args:
        graph: The graph of a forward pass; see `toumei.instrument.instrument`.
        pattern: A `Step`, a `chain` or an `Either` of them.

    Raises:
        ArgumentError: No graph, or no pattern.

    Example:
        >>> import torch
        >>> from toumei.instrument import instrument
        >>> from toumei.instrument.search.patterns import Step, chain
        >>> model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
        >>> with instrument(model) as probe, probe.track() as tracker:
        ...     output = model(torch.ones(1, 3))
        >>> steps = chain(Step("linear", name="up"), "relu|gelu", Step("linear", name="down"))
        >>> list(find(tracker.build_graph(), steps))
        [Match(down='2/linear#0', up='0/linear#0')]
    """
    for operation in graph:
        if pattern.last is not None and operation.function not in pattern.last:
            continue
        for node in operation.outputs[:1]:
            match = next(pattern.matches(graph, node, Match()), None)
            if match is not None and match.operations and match.operation is operation:
                yield match


def largest(graph: OperationGraph, matches: Iterable[Match]) -> list[Match]:
    """Returns the matches that are not parts of others, such as the ReLU of a squared ReLU, as they ended.

    Args:
        graph: The graph in which they were found.
        matches: Matches of several patterns, in any order.
    """
    order = {operation: place for place, operation in enumerate(graph)}
    matches = list(matches)
    parts = {operation for match in matches for operation in match.operations[1:]}
    whole = [match for match in matches if match.operation not in parts]
    return sorted(whole, key=lambda match: order[match.operation])


def layer_numbers(modules: Sequence[str]) -> list[int]:
    """Returns a number for each part of a network: that in its module's name, if these tell the parts apart.

    Otherwise, as where a module runs several times, they are numbered in their order.

    Example:
        >>> layer_numbers(["h.1.attn", "h.3.attn"]), layer_numbers(["encoder.0", "decoder.0"])
        ([1, 3], [0, 1])
    """
    numbers = [re.search(r"\d+$", layer_prefix(name)) for name in modules]
    found = [int(number[0]) for number in numbers if number is not None]
    return found if len(set(found)) == len(modules) else list(range(len(modules)))


def layer_prefix(module: str) -> str:
    """Returns the name of the layer that a module is in, up to its number; empty without one.

    Example:
        >>> layer_prefix("model.layers.3.mlp.experts.0"), layer_prefix("encoder.encoder_layer_2.mlp.linear1")
        ('model.layers.3', 'encoder.encoder_layer_2')
    """
    match = re.match(r"(?:.*?[._])??\d+(?=\.|$)", module)
    return "" if match is None else match[0]
