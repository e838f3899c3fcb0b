"""A small language of patterns for chains and subgraphs of operations.

A pattern describes a tensor by how it was computed, from the last operation back to the first one: every
tensor has one producer, so that a search looks at each operation a bounded number of times. (The matcher of
`torch.fx` wants an example graph and knows no optional steps; isomorphism of subgraphs in networkx is
exponential.)

::

    Value("x")                          any tensor; the same name stands for the same tensor
    Weight("w")                         a parameter or buffer
    Constant(1.702)                     a number in the arguments; without one, any argument that is no tensor
    Step("mul", Value("x"), Constant(2))   what a function returns for these operands
    Skip("add|mul", of=...)             a tensor, and what any number of these functions made of it
    Either(..., ...)                    what fits one of several patterns
    chain("matmul", Skip("div|add"), "softmax")   steps one after the other

Operations that lay the numbers of a tensor out anew or cast them, and dropout, are passed over between steps.
"""

from .base import Match, Pattern
from .composites import Either, Skip, Step, chain
from .operands import Constant, Value, Weight

__all__ = ["Constant", "Either", "Match", "Pattern", "Skip", "Step", "Value", "Weight", "chain"]
