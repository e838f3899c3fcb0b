"""Recurrent layers and their cells written step by step, as in `decompositions`."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .calls import NotDecomposed

Weights = Sequence[Any]  # for the input, the state, their biases, and the projection of an LSTM
State = tuple[Tensor, ...]  # (h,) or (h, c)
Step = Callable[[Tensor, State, Weights], State]


def _lstm(x: Tensor, state: State, weights: Weights) -> State:
    gates = F.linear(x, weights[0], weights[2]) + F.linear(state[0], weights[1], weights[3])
    let_in, forget, candidate, out = gates.chunk(4, 1)
    cell = forget.sigmoid() * state[1] + let_in.sigmoid() * candidate.tanh()
    hidden = out.sigmoid() * cell.tanh()
    return (hidden if weights[4] is None else F.linear(hidden, weights[4])), cell


def _gru(x: Tensor, state: State, weights: Weights) -> State:
    of_input, of_state = F.linear(x, weights[0], weights[2]), F.linear(state[0], weights[1], weights[3])
    (reset, update, new), (reset0, update0, new0) = of_input.chunk(3, 1), of_state.chunk(3, 1)
    candidate = (new + (reset + reset0).sigmoid() * new0).tanh()
    return (candidate + (update + update0).sigmoid() * (state[0] - candidate),)


def _plain(activation: Callable[[Tensor], Tensor], x: Tensor, state: State, weights: Weights) -> State:
    summed = F.linear(x, weights[0], weights[2]) + F.linear(state[0], weights[1], weights[3])
    return (activation(summed),)


_STEPS: dict[str, Step] = {
    "lstm": _lstm,
    "gru": _gru,
    "rnn_tanh": partial(_plain, torch.tanh),
    "rnn_relu": partial(_plain, torch.relu),
}


def _cell(
    step: Step,
    input: Tensor,
    hx: Any,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None = None,
    b_hh: Tensor | None = None,
) -> Any:
    """One step."""
    state = hx if isinstance(hx, list | tuple) else (hx,)
    found = step(input, tuple(state), (w_ih, w_hh, b_ih, b_hh, None))
    return found if len(found) > 1 else found[0]


def _layers(step: Step, *args: Any) -> Any:
    """All layers of a module, over a batch (T, N, C) or (N, T, C), or over packed sequences."""
    packed = isinstance(args[1], Tensor) and args[1].dim() == 1 and not args[1].is_floating_point()
    if packed:
        x, sizes, hx, flat, biases, count, dropout, training, both = args
        lengths = sizes.tolist()
    else:
        x, hx, flat, biases, count, dropout, training, both, batch_first = args
        x = x.transpose(0, 1) if batch_first else x
        lengths = [x.shape[1]] * x.shape[0]
        x = x.flatten(0, 1)
    if dropout and training:
        raise NotDecomposed
    states = tuple(hx) if isinstance(hx, list | tuple) else (hx,)
    directions = 2 if both else 1
    weights = _by_layer(flat, biases, count * directions)
    ends: list[State] = []
    for layer in range(count):
        outputs = []
        for direction in range(directions):
            number = layer * directions + direction
            start = tuple(state[number] for state in states)
            output, end = _run(step, x, lengths, start, weights[number], backwards=direction == 1)
            outputs.append(output)
            ends.append(end)
        x = torch.cat(outputs, 1)
    if not packed:
        x = x.unflatten(0, (len(lengths), -1))
        x = x.transpose(0, 1) if batch_first else x
    return (x, *(torch.stack(parts) for parts in zip(*ends, strict=True)))


def _by_layer(flat: Sequence[Tensor], biases: bool, count: int) -> list[Weights]:
    """The weights of each layer and direction from the list of all."""
    each = len(flat) // count
    found: list[Weights] = []
    for part in (flat[start : start + each] for start in range(0, len(flat), each)):
        of_states, rest = (part[2:4], part[4:]) if biases else ((None, None), part[2:])
        found.append((*part[:2], *of_states, rest[0] if rest else None))
    return found


def _run(
    step: Step, x: Tensor, lengths: Sequence[int], state: State, weights: Weights, backwards: bool
) -> tuple[Tensor, State]:
    """The outputs of one layer in one direction, and the state at the end; sequences are the longest first.

    Args:
        step: From an input and a state to the next state.
        x: The inputs of all steps, one after the other, (sum of lengths, C).
        lengths: How many sequences take part in each step.
        state: At the start.
        weights: Of the layer.
        backwards: Whether it begins at the end.
    """
    pieces = list(x.split(list(lengths)))
    outputs: list[Tensor] = []
    for piece in reversed(pieces) if backwards else pieces:
        count = len(piece)
        new = step(piece, tuple(part[:count] for part in state), weights)
        outputs.append(new[0])
        if count == len(state[0]):
            state = new
        else:  # the other sequences have ended, or have not begun
            state = tuple(torch.cat([now, part[count:]]) for now, part in zip(new, state, strict=True))
    return torch.cat(outputs[::-1] if backwards else outputs), state


RECURRENT: dict[str, Callable[..., Any]] = {
    **{name: partial(_layers, step) for name, step in _STEPS.items()},
    **{f"{name}_cell": partial(_cell, step) for name, step in _STEPS.items()},
}
