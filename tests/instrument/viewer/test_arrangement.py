"""Boxes do not overlap, edges meet them, and the script of the page puts everything where Python does."""

import json
import subprocess
from itertools import combinations
from pathlib import Path
from shutil import which

import pytest
import torch
from torch import nn

import toumei.instrument.viewer as viewer
from toumei.instrument import instrument
from toumei.instrument.viewer.arrangement import HEIGHT, arranged, box_width, grids
from toumei.instrument.viewer.edges import levels
from toumei.instrument.viewer.page import page_data
from toumei.instrument.viewer.tree import module_tree


class Attention(nn.Module):
    """Three branches that meet, a residual connection, a mask from outside, several outputs."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(4, 4) for _ in range(4))
        self.norm = nn.Sequential(nn.LayerNorm(4), nn.Dropout())

    def forward(self, x, mask):
        weights = (self.q(x) @ self.k(x).T + mask).softmax(-1)
        return x + self.norm(self.out(weights @ self.v(x))), weights


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(Attention() for _ in range(4))

    def forward(self, x, mask):
        kept = []
        for layer in self.layers:
            x, weights = layer(x, mask)
            kept.append(weights)
        return x, torch.stack(kept).mean()


@pytest.fixture(scope="module")
def graph():
    with torch.no_grad(), instrument(Model()) as probe, probe.track(only=[]) as tracker:
        probe.model(torch.ones(3, 4), mask=torch.zeros(3, 3))
    return tracker.build_graph()


def arrangement(graph, everything):
    root = module_tree(graph)
    found = levels(root, graph)
    opened = {item for item in root.everything() if item.children} if everything else set()
    return root, found, arranged(root, found, grids(found), opened)


def boxes(item, level, frame):
    """Left, top, right and bottom of each child."""
    for number, (child, (x, y)) in enumerate(zip(item.children, frame.places, strict=True)):
        inner = frame.inner.get(level.first + number)
        width, height = (inner.width, inner.height) if inner else (box_width(child), HEIGHT)
        yield x, y, x + width, y + height


@pytest.mark.parametrize("everything", [False, True])
def test_boxes_of_a_level_do_not_overlap_and_edges_go_around_them(graph, everything):
    root, found, frame = arrangement(graph, everything)
    waiting = [(root, frame)]
    while waiting:
        item, frame = waiting.pop()
        rectangles = list(boxes(item, found[item], frame))
        for (left, top, right, bottom), (left2, top2, right2, bottom2) in combinations(rectangles, 2):
            assert right <= left2 or right2 <= left or bottom <= top2 or bottom2 <= top
        for left, top, right, bottom in rectangles:
            assert left >= 0 and right <= frame.width and top > 0 and bottom <= frame.height
            for edge in frame.edges:
                for (x, y), (_, y2) in zip(edge.points[::2], edge.points[1::2], strict=False):
                    assert not left < x < right or y2 <= top or bottom <= y
        first = found[item].first
        for edge in frame.edges:
            downward = [y for _, y in edge.points]
            assert downward == sorted(downward)
            start, end = (node - first for node in edge.nodes)
            if start >= 0:
                left, _, right, bottom = rectangles[start]
                assert left < edge.points[0][0] < right and edge.points[0][1] == bottom
            if end < len(rectangles):
                left, top, right, _ = rectangles[end]
                assert left < edge.points[-1][0] < right and edge.points[-1][1] == top
        waiting += [(item.children[node - first], inner) for node, inner in frame.inner.items()]


def test_edges_go_on_where_they_enter_an_open_box(graph):
    root, found, frame = arrangement(graph, True)
    (row,) = (number for number, item in enumerate(root.children) if item.repeats)
    node = found[root].first + row
    inner, place = frame.inner[node], frame.places[row]
    for edge in frame.edges:
        if edge.nodes[1] == node:
            assert edge.points[-1][0] == pytest.approx(place[0] + inner.ports[edge.nodes[0]])
        if edge.nodes[0] == node:
            assert edge.points[0][0] == pytest.approx(place[0] + inner.anchor)


def test_the_same_graph_is_arranged_in_the_same_way(graph):
    assert arrangement(graph, True)[2] == arrangement(graph, True)[2]


@pytest.mark.skipif(which("node") is None, reason="there is no node to run the script of the page")
def test_the_script_puts_everything_where_python_does(graph, tmp_path):
    script = Path(viewer.__file__).with_name("arrangement.js").read_text()
    last = """
    for (const item of items) item.open = item.children.length > 0;
    const plain = (one) => ({ width: one.width, height: one.height, anchor: one.anchor, edges: one.edges,
      corners: one.corners, inner: one.inner.filter(Boolean).map(plain) });
    console.log(JSON.stringify(plain(frame(root))));"""
    (tmp_path / "run.js").write_text(f"const data = {json.dumps(page_data(graph, {}, None))};{script}{last}")
    done = subprocess.run(["node", str(tmp_path / "run.js")], capture_output=True, text=True, check=True)
    root, found, frame = arrangement(graph, True)

    def compare(there, here, item):
        level = found[item]
        assert (there["width"], there["height"], there["anchor"]) == pytest.approx(
            (here.width, here.height, here.anchor)
        )
        last = level.first + len(item.children)
        corners = torch.tensor(there["corners"][level.first : last])
        assert torch.allclose(corners.double(), torch.tensor(here.places).double(), atol=1e-6)
        for points, edge in zip(there["edges"], here.edges, strict=True):
            assert torch.allclose(
                torch.tensor(points).double(), torch.tensor(edge.points).double(), atol=1e-6
            )
        inner = [here.inner[node] for node in sorted(here.inner)]
        items = [item.children[node - level.first] for node in sorted(here.inner)]
        for one, other, child in zip(there["inner"], inner, items, strict=True):
            compare(one, other, child)

    compare(json.loads(done.stdout), frame, root)
