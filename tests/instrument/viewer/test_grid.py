"""Cells of levels: edges lead down, nothing overlaps, the same graph has the same cells."""

import random
import time

import networkx as nx
import pytest

from toumei.instrument.viewer.grid import grid_layout
from toumei.instrument.viewer.layering import layered


def random_edges(seed):
    generator = random.Random(seed)
    size = generator.randint(1, 25)
    count = generator.randint(0, 2 * size)
    pairs = {tuple(sorted(generator.sample(range(size), 2))) for _ in range(count)} if size > 1 else set()
    return size, sorted(pairs)


@pytest.mark.parametrize("seed", range(60))
def test_cells_are_taken_once_and_edges_lead_down(seed):
    size, edges = random_edges(seed)
    grid = grid_layout(size, edges)
    bends = [(row, column) for of_node in grid.bends for row, column in of_node.items()]
    taken = [*zip(grid.rows, grid.columns, strict=True), *bends]
    assert len(set(taken)) == len(taken)
    assert min(grid.rows) >= 0 and min(column for _, column in taken) == 0
    for start, end in edges:
        assert grid.rows[start] < grid.rows[end]
        between = list(range(grid.rows[start] + 1, grid.rows[end]))
        assert [row for row, _ in grid.cells(start, end)] == between
    assert grid == grid_layout(size, edges)


@pytest.mark.parametrize("seed", range(20))
def test_rows_are_the_longest_paths_from_the_ports(seed):
    size, edges = random_edges(seed)
    graph = nx.DiGraph(edges)
    graph.add_nodes_from(range(size))
    rows = layered(size, edges, ports=1).rows
    reached = nx.descendants(graph, 0) | {0}
    for node in reached:
        above = [one for one in graph.predecessors(node)]
        assert node == 0 or rows[node] == 1 + max(rows[one] for one in above)
    for node in set(range(size)) - reached:
        below = [rows[one] for one in graph.successors(node)]
        assert not below or rows[node] == min(below) - 1


def test_ports_are_on_top_in_their_order_and_the_way_out_is_below_all():
    edges = [(0, 4), (1, 3), (2, 3), (3, 4), (1, 5), (4, 6)]
    grid = grid_layout(7, edges, ports=3, out=True)
    assert grid.rows[:3] == [0, 0, 0] and sorted(grid.columns[:3]) == grid.columns[:3]
    assert all(row > 0 for row in grid.rows[3:])
    assert grid.rows[6] == max(grid.rows) and grid.rows.count(grid.rows[6]) == 1


def test_a_chain_is_straight_and_a_residual_connection_beside_it():
    chain = [(node, node + 1) for node in range(6)]
    grid = grid_layout(7, [*chain, (1, 5)])
    assert len(set(grid.columns)) == 1
    assert {column for _, column in grid.cells(1, 5)} != set(grid.columns)
    assert len({column for _, column in grid.cells(1, 5)}) == 1


def test_barycentres_undo_crossings():
    edges = [(0, 7), (1, 6), (2, 5), (3, 4)]
    order = layered(8, edges).order
    assert [order[0].index(start) for start, _ in edges] == [order[1].index(end) for _, end in edges]


def test_the_edges_of_a_node_share_their_bends():
    fan = [(0, end) for end in range(1, 30)]
    chain = [(node, node + 1) for node in range(1, 29)]
    grid = grid_layout(30, [*fan, *chain])
    assert grid.cells(0, 29)[:10] == grid.cells(0, 11)


def test_a_graph_with_many_long_edges_has_bends_for_the_shorter_ones():
    generator = random.Random(0)
    size = 600
    edges = [(node, node + 1) for node in range(size - 1)]
    edges += sorted({tuple(sorted(generator.sample(range(size), 2))) for _ in range(size)} - set(edges))
    start = time.process_time()
    grid = grid_layout(size, edges)
    assert time.process_time() - start < 5
    assert sum(map(len, grid.bends)) <= 20 * (size + 50)
    assert any(not grid.cells(*edge) for edge in edges if grid.rows[edge[1]] > grid.rows[edge[0]] + 1)


def test_nothing_at_all():
    grid = grid_layout(0, [])
    assert grid.rows == [] and grid.columns == []
