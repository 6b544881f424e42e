"""Draws the lineage of a run: a layered graph from what came in to what came out.

The usual three steps of a layered drawing (Sugiyama): each node gets a layer, each layer an order
with few crossings, each node a place near its neighbours. An edge over several layers bends round
what lies between them: it passes through an invisible node in each.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dashboards import theme
from dashboards.format import count, one_line
from dashboards.layout import apart
from dashboards.markup import Html, tag
from dashboards.summary import Summary, number, rows

if TYPE_CHECKING:
    from collections.abc import Iterable

MOST_NODES = 80
_WIDTH, _HEIGHT = 96.0, 42.0
_LANE = 14.0
_SWEEPS = 8

Edge = tuple[str, str]
# (along the layers, across them), whichever way the picture runs.
Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class _Graph:
    """Nodes by layer in drawing order, edges between neighbouring layers, and invisible nodes."""

    layers: list[list[str]]
    edges: list[Edge]
    lanes: list[str]


def lineage_svg(summary: Summary, *, vertical: bool = False) -> Html | None:
    """Return the lineage as an SVG element, left to right or (for narrow screens) downwards.

    ``None`` without lineage, and for more than `MOST_NODES` nodes, which nobody could read.
    """
    nodes = {str(row["id"]): row for row in rows(summary, "lineage", "nodes") if "id" in row}
    if not nodes or len(nodes) > MOST_NODES:
        return None
    edges = _edges(summary, nodes)
    graph = _with_lanes(_layers(list(nodes), edges), edges)
    _order(graph)
    along, across = (_HEIGHT, _WIDTH) if vertical else (_WIDTH, _HEIGHT)
    sizes = {name: _LANE if name in graph.lanes else across + 24 for name in _names(graph)}
    places = _places(graph, sizes)
    start = min(places[name] - sizes[name] / 2 for name in sizes)
    end = max(places[name] + sizes[name] / 2 for name in sizes)
    pitch = along + 32
    centres = {
        name: (4 + along / 2 + depth * pitch, places[name] - start)
        for depth, layer in enumerate(graph.layers)
        for name in layer
    }
    length, extent = len(graph.layers) * pitch - 32 + 12, end - start
    width, height = (extent, length) if vertical else (length, extent)
    wires = _drawn(graph, centres, along / 2, vertical=vertical)
    boxes = []
    for name, row in nodes.items():
        u, v = centres[name]
        boxes.append(_box(row, v, u) if vertical else _box(row, u, v))
    shape = {"viewBox": f"0 0 {width:.0f} {height:.0f}"}
    return tag("svg", *wires, *boxes, width=f"{width:.0f}", height=f"{height:.0f}", **shape)


def _names(graph: _Graph) -> list[str]:
    return [name for layer in graph.layers for name in layer]


def _edges(summary: Summary, nodes: Iterable[str]) -> list[Edge]:
    known = set(nodes)
    lineage = summary.get("lineage") or {}
    found = ((str(source), str(target)) for source, target in lineage.get("edges") or [])
    return [
        (source, target)
        for source, target in dict.fromkeys(found)
        if source in known and target in known and source != target
    ]


def _layers(nodes: list[str], edges: list[Edge]) -> dict[str, int]:
    """Longest path from the sources; then each source moves up to the first that reads it.

    Content keys cannot form a cycle; were there one, the bounded number of rounds still ends.
    """
    depth = dict.fromkeys(nodes, 0)
    for _ in nodes:
        for source, target in edges:
            depth[target] = min(max(depth[target], depth[source] + 1), len(nodes) - 1)
    targets = {target for _, target in edges}
    for name in nodes:
        readers = [depth[target] for source, target in edges if source == name]
        if name not in targets and readers:
            depth[name] = max(0, min(readers) - 1)
    return depth


def _with_lanes(depth: dict[str, int], edges: list[Edge]) -> _Graph:
    layers: list[list[str]] = [[] for _ in range(max(depth.values()) + 1)]
    for name, layer in depth.items():
        layers[layer].append(name)
    short: list[Edge] = []
    lanes: list[str] = []
    for source, target in edges:
        before = source
        for layer in range(depth[source] + 1, depth[target]):
            # Edges of one source share a lane as long as they run side by side.
            lane = f"\0{source}\0{layer}"
            if lane not in lanes:
                lanes.append(lane)
                layers[layer].append(lane)
            short.append((before, lane))
            before = lane
        short.append((before, target))
    return _Graph(layers, list(dict.fromkeys(short)), lanes)


def _neighbours(graph: _Graph) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    before: dict[str, list[str]] = defaultdict(list)
    after: dict[str, list[str]] = defaultdict(list)
    for source, target in graph.edges:
        before[target].append(source)
        after[source].append(target)
    return before, after


def _order(graph: _Graph) -> None:
    """Sort each layer by the mean rank of its neighbours, forth and back (barycentre rule)."""
    before, after = _neighbours(graph)
    for sweep in range(_SWEEPS):
        forth = sweep % 2 == 0
        neighbours = before if forth else after
        for layer in graph.layers if forth else reversed(graph.layers):
            rank = {name: i / len(la) for la in graph.layers for i, name in enumerate(la)}
            wish = {name: _mean([rank[o] for o in neighbours[name]], rank[name]) for name in layer}
            layer.sort(key=wish.__getitem__)


def _places(graph: _Graph, sizes: dict[str, float]) -> dict[str, float]:
    before, after = _neighbours(graph)
    places: dict[str, float] = {}
    for layer in graph.layers:
        placed = apart([0.0] * len(layer), [sizes[name] for name in layer])
        places.update(zip(layer, placed, strict=True))
    for _ in range(_SWEEPS):
        for layer in graph.layers:
            wanted = [
                _mean([places[o] for o in (*before[name], *after[name])], places[name])
                for name in layer
            ]
            placed = apart(wanted, [sizes[name] for name in layer])
            places.update(zip(layer, placed, strict=True))
    return places


def _mean(values: list[float], default: float) -> float:
    return sum(values) / len(values) if values else default


def _drawn(graph: _Graph, centres: dict[str, Point], half: float, *, vertical: bool) -> list[Html]:
    """Curves from layer to layer, straight lines through the lanes, a head where a node is met."""
    wires = []
    for source, target in graph.edges:
        (u, v), (s, t) = centres[source], centres[target]
        u, s = u + half, s - half - (0 if target in graph.lanes else 5)
        curve = [(u, v), ((u + s) / 2, v), ((u + s) / 2, t), (s, t)]
        wires.append(_path("M{} C{} {} {}", curve, vertical=vertical, fill="none"))
        if target not in graph.lanes:
            head = [(s + 5, t), (s - 1, t - 3.5), (s - 1, t + 3.5)]
            wires.append(_path("M{} L{} L{} Z", head, vertical=vertical, fill=theme.RULE))
    for lane in graph.lanes:
        u, v = centres[lane]
        ends = [(u - half, v), (u + half, v)]
        wires.append(_path("M{} L{}", ends, vertical=vertical, fill="none"))
    return wires


def _path(form: str, points: list[Point], *, vertical: bool, fill: str) -> Html:
    written = (f"{v:.1f} {u:.1f}" if vertical else f"{u:.1f} {v:.1f}" for u, v in points)
    stroke = theme.RULE if fill == "none" else None
    return tag("path", d=form.format(*written), fill=fill, stroke=stroke, stroke_width=1.2)


def _box(row: Summary, x: float, y: float) -> Html:
    kind = one_line(row.get("kind", ""), limit=13)
    key = one_line(row.get("key", ""), limit=60)
    many = number(row, "count") or 1
    left, top = x - _WIDTH / 2, y - _HEIGHT / 2
    size = {"width": _WIDTH, "height": _HEIGHT, "rx": 5, "class_": "box"}
    behind = tag("rect", x=f"{left + 4:.1f}", y=f"{top + 4:.1f}", **size) if many > 1 else None
    about = f"{kind} {key}" + (f", {count(many)} artifacts" if many > 1 else "")
    second = key[:8] + (f" × {count(many)}" if many > 1 else "")
    middle = {"x": f"{x:.1f}", "text_anchor": "middle"}
    return tag(
        "g",
        tag("title", about),
        behind,
        tag("rect", x=f"{left:.1f}", y=f"{top:.1f}", **size),
        tag("text", kind, y=f"{y - 3:.1f}", fill=theme.INK, class_="kind", **middle),
        tag("text", second, y=f"{y + 12:.1f}", fill=theme.MUTED, class_="key", **middle),
    )
