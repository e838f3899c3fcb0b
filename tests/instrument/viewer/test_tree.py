"""The tree of modules has every operation once; equal blocks fold; edges are those of the graph, lifted."""

from collections import Counter

import networkx as nx
import pytest
import torch
from torch import nn

from toumei.instrument import instrument
from toumei.instrument.viewer.edges import levels
from toumei.instrument.viewer.items import activations
from toumei.instrument.viewer.tree import module_tree


class Block(nn.Module):
    """A residual block with a shared activation, and a constant that needs no input."""

    def __init__(self, width=4):
        super().__init__()
        self.first, self.act, self.second = nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 4)

    def forward(self, x, scale=None):
        inner = self.act(self.second(self.act(self.first(x))))
        return x + inner * (torch.arange(4) if scale is None else scale)


class Stack(nn.Module):
    """Blocks in a list that take what the one before made, and a tensor from the beginning."""

    def __init__(self, blocks):
        super().__init__()
        self.blocks, self.head = nn.ModuleList(blocks), nn.Linear(4, 2)

    def forward(self, x, scale):
        hidden = x
        for block in self.blocks:
            hidden = block(hidden, scale)
        return self.head(hidden), hidden.split(2, dim=-1)


def graph_of(model, *inputs, **named):
    with torch.no_grad(), instrument(model) as probe, probe.track(only=[]) as tracker:
        model(*inputs, **named)
    return tracker.build_graph()


def stack(*widths):
    return graph_of(Stack([Block(width) for width in widths]), torch.ones(1, 4), scale=torch.ones(4))


def tiny_gpt2():
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        n_layer=3, n_head=2, n_embd=8, vocab_size=9, n_positions=8, bos_token_id=0, eos_token_id=0
    )
    return graph_of(GPT2LMHeadModel(config).eval(), torch.arange(5)[None])


def calls_a_part_of_another():
    """A module whose operations alternate with those of a part of another module."""

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.block = Block()

        def forward(self, x):
            for _ in range(2):
                x = self.block(self.block.first(x) * 2)
            return x

    return graph_of(Model(), torch.ones(1, 4))


GRAPHS = {
    "stack": lambda: stack(5, 5, 5, 6),
    "gpt2": tiny_gpt2,
    "alternating": calls_a_part_of_another,
    "one operation": lambda: graph_of(nn.ReLU(), torch.ones(2)),
}


@pytest.fixture(params=GRAPHS)
def graph(request):
    return GRAPHS[request.param]()


def test_every_operation_is_in_the_tree_once_and_in_its_order(graph):
    assert list(module_tree(graph).operations()) == list(graph.operations.values())


def test_items_are_inside_the_items_of_their_modules(graph):
    root = module_tree(graph)
    for item in root.everything():
        for operation in item.operations():
            assert operation.module == item.path or operation.module.startswith(item.path and item.path + ".")


def test_edges_are_those_of_the_graph_lifted_to_each_level(graph):
    root = module_tree(graph)
    found = levels(root, graph)
    for item, level in found.items():
        place = {op: n for n, child in enumerate(item.children) for op in child.operations()}
        made = {node: op for op in graph.operations.values() for node in op.written}
        expected = set()
        for op in graph.operations.values():
            for node in activations(op.inputs):
                start, end = place.get(made.get(node), "in"), place.get(op, "out")
                if start != end and {start, end} != {"in", "out"}:
                    expected.add((start, end, node))
        for node in activations(graph.outputs):
            if made.get(node) in place:
                expected.add((place[made[node]], "out", node))

        def name(number, level=level):
            if number < level.first:
                return "in"
            return "out" if number == level.out else number - level.first

        lifted = {(name(s), name(e), node) for (s, e), nodes in level.edges.items() for node in nodes}
        through = {one for one in lifted if one[:2] == ("in", "out")}
        assert lifted - through == expected
        assert all(start < end for start, end in level.edges)
        assert nx.is_directed_acyclic_graph(nx.DiGraph(level.edges))


def test_a_port_leads_to_the_node_around_that_the_tensor_comes_from(graph):
    root = module_tree(graph)
    found = levels(root, graph)
    for item, around in found.items():
        for number, child in enumerate(item.children):
            if child.children:
                level = found[child]
                assert len(set(level.sources)) == len(level.ports)
                for source, nodes in zip(level.sources, level.ports, strict=True):
                    assert set(around.edges[source, around.first + number]) == set(nodes)


def test_equal_blocks_are_folded_and_others_are_not():
    root = module_tree(stack(5, 5, 5, 6, 5))
    blocks = next(item for item in root.children if item.path == "blocks")
    assert [(item.title, item.type, item.repeats) for item in blocks.children] == [
        ("0 \u2026 2", "Block x 3", 3),
        ("3", "Block", 0),
        ("4", "Block", 0),
    ]
    row = blocks.children[0]
    assert [child.path for child in row.children] == ["blocks.0", "blocks.1", "blocks.2"]
    assert [one.module.split(".")[1] for one in row.operations()] == ["0"] * 6 + ["1"] * 6 + ["2"] * 6


def test_blocks_that_alternate_are_one_row_without_the_list_around_it():
    root = module_tree(stack(5, 6, 5, 6, 5, 6))
    row = next(item for item in root.children if item.repeats)
    assert (row.title, row.path, row.type) == ("blocks.0 \u2026 5", "blocks", "Block x 6")


def test_blocks_differ_by_what_is_connected():
    class Crossed(Block):
        def forward(self, x, scale):
            inner = self.act(self.second(self.act(self.first(x))))
            return inner + inner * scale

    Crossed.__name__ = "Block"
    graph = graph_of(Stack([Block(), Block(), Crossed(), Block()]), torch.ones(1, 4), torch.ones(4))
    assert not any(item.repeats for item in module_tree(graph).everything())


def test_a_module_that_ran_twice_is_two_items():
    row = module_tree(stack(5)).children[0]
    assert Counter(child.title for child in row.children)["act"] == 2


def test_a_module_that_holds_a_module_alone_is_one_item():
    graph = graph_of(nn.Sequential(nn.Sequential(nn.Sequential(nn.ReLU()))), torch.ones(2))
    (only,) = module_tree(graph).children
    assert (only.title, only.type, only.operation.name) == ("0.0.0", "ReLU", "0.0.0/relu#0")
