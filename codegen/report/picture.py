"""The picture of a scene: calls from left to right, arena offsets from bottom to top, one rectangle per buffer.

Only geometry and words are decided here, in pixels of an SVG; the template draws them, its style sheet colours them.
Brackets above the plot mark calls that run slice by slice. Where many small buffers crowd in a small part of a large
arena, a second panel shows that part enlarged.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from pmeta.codegen.report.occupancy import Occupant, Scene, runs
from pmeta.codegen.report.text import bytes_text, display_name, offset_text, shape_text

WIDTH = 1120
LEFT, RIGHT = 66, 14
PLOT_WIDTH = WIDTH - LEFT - RIGHT
PHASE_HEIGHT = 20
LOOP_TOP, LOOP_HEIGHT = 37, 5  # brackets over the calls of loops; their labels are above
PLOT_TOP, PLOT_HEIGHT = 64, 360
ENLARGED_HEIGHT, LIVE_HEIGHT = 240, 58
NAMES_HEIGHT = (62, 136)  # node names, below the plot: room for short ones, and the most there is
GAP = 30  # above a panel, with its title
CHARACTER = 6.3  # width of a letter in a label
LINE = 13.0  # height of a line in a label
LIMIT_IN_SIGHT = 1.6  # a board's limit is drawn to scale up to so many times the arena
MOST_TICKS = 9
CROWDED = 12  # pixels; a lower buffer has no room for its name
CROWD_SHARE = 0.8  # of the crowded buffers that the enlarged part shows, at least
ENLARGE_BELOW = 1 / 3  # of the arena; enlarging a larger part would not gain enough


@dataclass(frozen=True)
class Text:
    """A label; `turned` runs upward."""

    x: float
    y: float
    text: str
    anchor: str = "middle"
    turned: bool = False


@dataclass(frozen=True)
class Box:
    """A rectangle with its hover title and labels."""

    x: float
    y: float
    width: float
    height: float
    css: str
    title: str = ""
    labels: tuple[Text, ...] = ()


@dataclass(frozen=True)
class Bracket:
    """A bracket over the calls of a loop."""

    path: str
    title: str
    label: Text | None


@dataclass(frozen=True)
class Rule:
    """A horizontal line across a panel with a label."""

    y: float
    label: Text
    css: str


@dataclass(frozen=True)
class Panel:
    """The arena, or a part of it, over the calls."""

    columns: tuple[Box, ...]  # one per run of calls of a node
    ticks: tuple[Rule, ...]
    boxes: tuple[Box, ...]  # the buffers
    lines: tuple[Rule, ...]  # the arena's size and the boards' limits
    peak: Box
    title: Text | None = None


@dataclass(frozen=True)
class Picture:
    """One scene, laid out."""

    height: int
    phases: tuple[Box, ...]
    loops: tuple[Bracket, ...]
    panels: tuple[Panel, ...]
    live_title: Text
    live_path: str
    beyond: tuple[str, ...]  # limits too far up to be drawn to scale
    width: int = WIDTH
    left: int = LEFT
    right: int = WIDTH - RIGHT


@dataclass(frozen=True)
class _Scale:
    """Calls and bytes to pixels; what lies outside of `bottom_bytes` to `top_bytes` is cut off."""

    calls: int
    top_bytes: int
    top: int  # pixels
    height: int
    bottom_bytes: int = 0

    @property
    def bottom(self) -> int:
        return self.top + self.height

    def x(self, call: float) -> float:
        return LEFT + PLOT_WIDTH * call / self.calls

    def y(self, offset: float) -> float:
        inside = min(max(offset, self.bottom_bytes), self.top_bytes) - self.bottom_bytes
        return self.bottom - self.height * inside / (self.top_bytes - self.bottom_bytes)


def draw(scene: Scene, arena_bytes: int, limits: Sequence[tuple[str, int]]) -> Picture:
    """Lay a scene out; `limits` are (board, bytes that its RAM leaves for the arena)."""
    near = [(name, limit) for name, limit in limits if 0 < limit <= LIMIT_IN_SIGHT * arena_bytes]
    far = [(name, limit) for name, limit in limits if limit > LIMIT_IN_SIGHT * arena_bytes]
    top_bytes = round(1.04 * max([arena_bytes, *(limit for _, limit in near)]))
    scale = _Scale(len(scene.calls), top_bytes, PLOT_TOP, PLOT_HEIGHT)
    lines = [_line(scale, arena_bytes, f"arena {bytes_text(arena_bytes)}", "arena")]
    lines += [_line(scale, limit, f"{name}: room for {bytes_text(limit)}", "limit") for name, limit in near]
    panels = [_panel(scene, scale, tuple(lines))]
    bottom = scale.bottom + _names_height(scene)
    crowd = _crowd(scene, scale, arena_bytes)
    if crowd:
        enlarged = _Scale(scale.calls, crowd[1], bottom + GAP, ENLARGED_HEIGHT, crowd[0])
        low, high = map(offset_text, crowd)
        where = f"{low} to {high}" if crowd[0] else f"the lowest {high}"
        title = Text(LEFT, bottom + GAP - 7, f"{where} enlarged", "start")
        panels.append(_panel(scene, enlarged, (), title))
        bottom = enlarged.bottom
    live = _Scale(scale.calls, top_bytes, bottom + GAP, LIVE_HEIGHT)
    return Picture(
        height=live.bottom + 8,
        phases=_phases(scene, scale),
        loops=tuple(_loops(scene, scale)),
        panels=tuple(panels),
        live_title=Text(LEFT, live.top - 7, "bytes that hold data, call by call", "start"),
        live_path=_live_path(scene, live),
        beyond=tuple(
            f"{n} has room for {bytes_text(size)}, {size / arena_bytes:.1f} times the arena" for n, size in far
        ),
    )


def _panel(scene: Scene, scale: _Scale, lines: tuple[Rule, ...], title: Text | None = None) -> Panel:
    visible = (o for o in scene.occupants if o.offset < scale.top_bytes and o.offset + o.bytes > scale.bottom_bytes)
    return Panel(
        columns=_columns(scene, scale, named=title is None),
        ticks=tuple(_tick(scale, size) for size in _tick_sizes(scale)),
        boxes=tuple(_buffer(occupant, scene, scale) for occupant in visible),
        lines=lines,
        peak=_peak(scene, scale, labelled=title is None),
        title=title,
    )


def _crowd(scene: Scene, scale: _Scale, arena_bytes: int) -> tuple[int, int] | None:
    """(lowest, highest) offset of the narrowest part of the arena with most of the buffers that are too low for a name.

    None where enlarging it would not help.
    """
    small = CROWDED * scale.top_bytes / scale.height
    too_low = (occupant for occupant in scene.occupants if occupant.bytes < small and not occupant.outlives_sample)
    crowded = sorted((occupant.offset, occupant.offset + occupant.bytes) for occupant in too_low)
    if not crowded:
        return None
    count = max(1, int(CROWD_SHARE * len(crowded)))
    parts = (crowded[n : n + count] for n in range(len(crowded) - count + 1))
    low, high = min(((part[0][0], max(top for _, top in part)) for part in parts), key=lambda part: part[1] - part[0])
    low = 0 if 3 * low < high else low
    margin = round(0.04 * (high - low))
    low, high = max(0, low - margin), high + margin
    return (low, high) if high - low <= ENLARGE_BELOW * arena_bytes else None


def _tick_sizes(scale: _Scale) -> list[int]:
    """Round offsets: multiples of a power of two."""
    step = 1
    while (scale.top_bytes - scale.bottom_bytes) / step > MOST_TICKS:
        step *= 2
    return list(range(-(-scale.bottom_bytes // step) * step, scale.top_bytes + 1, step))


def _tick(scale: _Scale, size: int) -> Rule:
    y = scale.y(size)
    return Rule(_px(y), Text(LEFT - 6, _px(y + 4), offset_text(size), "end"), "tick")


def _line(scale: _Scale, size: int, label: str, css: str) -> Rule:
    y = scale.y(size)
    return Rule(_px(y), Text(WIDTH - RIGHT - 4, _px(y - 4), label, "end"), css)


def _phases(scene: Scene, scale: _Scale) -> tuple[Box, ...]:
    """One box for calls in a row; with micro-batches there are several of a phase."""
    boxes, first = [], 0
    for phase, group in groupby(scene.calls, key=lambda call: call.phase):
        count = len(list(group))
        x, width = scale.x(first), scale.x(first + count) - scale.x(first)
        shown = (Text(_px(x + width / 2), 14, phase),) if width >= 5 * len(phase) else ()
        boxes.append(Box(_px(x), 0, _px(width), PHASE_HEIGHT, f"phase-{phase}", f"{phase}: {count} calls", shown))
        first += count
    return tuple(boxes)


def _loops(scene: Scene, scale: _Scale) -> Iterator[Bracket]:
    """What runs slice by slice: the calls below a bracket, all of them for one slice, then for the next."""
    first = 0
    for loop, group in groupby(scene.calls, key=lambda call: call.loop):
        calls = list(group)
        if loop is not None:
            x, end = scale.x(first) + 2, scale.x(first + len(calls)) - 2
            nodes = ", ".join(dict.fromkeys(display_name(call.layer) for call in calls))
            title = f"{nodes}: these {len(calls)} calls run {loop.slices} times, for one slice of the channels each"
            texts = (f"slice by slice, {loop.slices} times", f"{loop.slices} slices", f"×{loop.slices}")
            fitting = next((text for text in texts if CHARACTER * len(text) <= end - x), None)
            label = Text(_px((x + end) / 2), LOOP_TOP - 4, fitting) if fitting else None
            path = f"M{_px(x)} {LOOP_TOP + LOOP_HEIGHT}V{LOOP_TOP}H{_px(end)}V{LOOP_TOP + LOOP_HEIGHT}"
            yield Bracket(path, title, label)
        first += len(calls)


def _names_height(scene: Scene) -> int:
    """Room for the longest name of a node, as far as there is."""
    longest = max(len(display_name(node)) for node, _, _, _ in runs(scene))
    return round(min(max(CHARACTER * (longest + 1), NAMES_HEIGHT[0]), NAMES_HEIGHT[1]))


def _columns(scene: Scene, scale: _Scale, named: bool) -> tuple[Box, ...]:
    boxes = []
    for number, (node, phase, first, count) in enumerate(runs(scene)):
        x, width = scale.x(first), scale.x(first + count) - scale.x(first)
        name = "loss" if phase == "loss" else display_name(node, longest=int(NAMES_HEIGHT[1] / CHARACTER) - 1)
        label = Text(_px(x + width / 2 + 4), scale.bottom + 6, name, "end", turned=True)
        functions = ", ".join(call.function.removeprefix("*loss = ") for call in scene.calls[first : first + count])
        title = f"{display_name(node)}, {phase}: {functions}"
        shown = (label,) if named and width >= LINE - 2 else ()
        boxes.append(Box(_px(x), scale.top, _px(width), scale.height, f"column-{number % 2}", title, shown))
    return tuple(boxes)


def _buffer(occupant: Occupant, scene: Scene, scale: _Scale) -> Box:
    x, width = scale.x(occupant.first), scale.x(occupant.last + 1) - scale.x(occupant.first)
    y = scale.y(occupant.offset + occupant.bytes)
    height = scale.y(occupant.offset) - y
    labels = _labels(occupant, x, y, width, height)
    css = f"role-{occupant.role.value}"
    return Box(_px(x), _px(y), _px(width), _px(height), css, _title(occupant, scene), labels)


def _title(occupant: Occupant, scene: Scene) -> str:
    """What the mouse shows: name, role, shape, bytes, place and lifetime."""
    size = f"{shape_text(occupant.buffer.shape)} {occupant.buffer.ctype}, {bytes_text(occupant.bytes)}"
    return (
        f"{display_name(occupant.name)} ({occupant.role.value})\n{size} at offset {occupant.offset:,}\n"
        f"{lifetime_text(occupant, scene)}"
    )


def lifetime_text(occupant: Occupant, scene: Scene) -> str:
    """When a buffer holds data, in calls counted from 1 and the nodes they belong to."""
    if occupant.outlives_sample:
        return "outlives the sample"
    first, last = scene.calls[occupant.first], scene.calls[occupant.last]
    begin = f"{display_name(first.layer)} {first.phase}"
    end = f"{display_name(last.layer)} {last.phase}"
    single = occupant.first == occupant.last
    calls = f"call {occupant.first + 1}" if single else f"calls {occupant.first + 1}–{occupant.last + 1}"
    return f"{calls}: {begin}" + ("" if begin == end else f" to {end}")


def _labels(occupant: Occupant, x: float, y: float, width: float, height: float) -> tuple[Text, ...]:
    """Name and bytes, as far as they fit into the rectangle; upward where only that fits."""
    name, size = display_name(occupant.name), bytes_text(occupant.bytes)
    middle, centre = x + width / 2, y + height / 2
    if width >= CHARACTER * max(len(name), len(size)) + 6 and height >= 2 * LINE + 2:
        return Text(_px(middle), _px(centre - 2), name), Text(_px(middle), _px(centre + LINE - 2), size)
    for text in (f"{name} · {size}", name):
        if width >= CHARACTER * len(text) + 6 and height >= LINE - 1:
            return (Text(_px(middle), _px(centre + 4), text),)
        if height >= CHARACTER * len(text) + 6 and width >= LINE - 1:
            return (Text(_px(middle + 4), _px(centre), text, turned=True),)
    return ()


def _peak(scene: Scene, scale: _Scale, labelled: bool) -> Box:
    """The column of the first call with most live bytes."""
    call = scene.calls[scene.peak_call]
    x, width = scale.x(scene.peak_call), scale.x(1) - scale.x(0)
    text = f"peak: {bytes_text(scene.peak_bytes)} hold data in {display_name(call.layer)}, {call.phase}"
    right = x + width < WIDTH * 0.6
    label = Text(_px(x if right else x + width), PLOT_TOP - 8, text, "start" if right else "end")
    return Box(_px(x), scale.top, _px(width), scale.height, "peak", text, (label,) if labelled else ())


def _live_path(scene: Scene, scale: _Scale) -> str:
    """Outline of the live bytes: a staircase on the base line."""
    points = [f"M{_px(scale.x(0))} {scale.bottom}"]
    for number, count in enumerate(scene.live_bytes):
        points.append(f"V{_px(scale.y(count))}H{_px(scale.x(number + 1))}")
    return "".join(points) + f"V{scale.bottom}Z"


def _px(value: float) -> float:
    """Pixels to a hundredth: enough to see, and the same text everywhere."""
    return round(value, 2)
