"""The report: the plan's own figures, well-formed whatever the model's names, the same bytes every time."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from rich.console import Console

from pmeta.codegen.adaptation import Model
from pmeta.codegen.appendix_a import appendix_a
from pmeta.codegen.boards import NATIVE, NETDUINOPLUS2, Board
from pmeta.codegen.graph import Graph
from pmeta.codegen.manifest import LearnedTensor, Manifest
from pmeta.codegen.numerics import STRICT
from pmeta.codegen.paper_accounting import paper_accounting
from pmeta.codegen.plan.plan import Plan, make_plan
from pmeta.codegen.plan.program import Role
from pmeta.codegen.project.c_source import Title, library_sources
from pmeta.codegen.project.fit import statics
from pmeta.codegen.report.accounts import ALL_CHANNELS, REAL, accounts_by_step, step_accounts
from pmeta.codegen.report.figures import board_figures, flash_figures, layer_figures, step_figures
from pmeta.codegen.report.html import report_html
from pmeta.codegen.report.instructions import BoardEstimate, board_estimate
from pmeta.codegen.report.macs import macs_by_pass, program_macs
from pmeta.codegen.report.occupancy import runs, scenes
from pmeta.codegen.report.picture import draw
from pmeta.codegen.report.terminal import summary_table
from pmeta.codegen.report.text import (
    bytes_text,
    display_name,
    macs_text,
    offset_text,
    short_bytes,
    steps_text,
    time_text,
)
from tests.models import random_4conv
from tests.networks import random_network
from tests.unit.test_appendix_a import tiny_model
from tests.unit.test_placement import live_bytes

pytestmark = pytest.mark.unit

BOARDS = (NATIVE, NETDUINOPLUS2)
VOID = {"meta", "br", "rect", "line", "path"}  # in SVG closed by "/>"
HOSTILE = "</title><script>alert(1)</script>\u202e\x07&lt;"


def p_meta_model() -> Model:
    """16 filters; conv3 and up learn, each step another part of it; steps 1 and 4 run the same program."""
    alpha = np.zeros((9, 5))
    alpha[4:] = 0.05
    alpha[5, 0] = alpha[4, 1] = alpha[6, 2] = 0
    alpha[4:7, 4] = 0
    alpha[:, 3] = alpha[:, 0]
    return random_4conv(1, width=16, alpha=alpha, steps=5)


def hostile_model() -> Model:
    """The tiny network with names that try to break out of text, attributes and style."""
    model = tiny_model([[0.1], [0.1]])
    graph = model.graph
    conv, *others = graph.nodes
    nodes = (replace(conv, name=HOSTILE, weight=f'"{HOSTILE}'), *others)
    weights = {f'"{HOSTILE}' if name == "conv.weight" else name: array for name, array in graph.weights.items()}
    renamed = Graph(HOSTILE, graph.input, graph.input_shape, nodes, weights)
    return Model(renamed, replace(model.adaptation, method=HOSTILE))


def manifest_of(plan: Plan, boards: tuple[Board, ...] = BOARDS) -> Manifest:
    adaptation = plan.model.adaptation
    return Manifest(
        firmware_id="0123456789abcdef" * 2,
        model_sha256="ab" * 32,
        command="pmeta-gen model.onnx --board native",
        numerics=tuple(STRICT for _ in boards),
        input_shape=plan.graph.input_shape,
        sample_bytes=784,
        ways=adaptation.ways,
        steps=adaptation.steps,
        boards=tuple(board.name for board in boards),
        tensors=tuple(LearnedTensor(w.name, w.layer, w.weight.shape, w.steps) for w in plan.learned),
        statics=statics(plan),
    )


class Page(HTMLParser):
    """Checks that every element is closed in order, and collects text and tags."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.text: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(html)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.fixture(scope="module")
def plan() -> Plan:
    return make_plan(p_meta_model())


@pytest.fixture(scope="module")
def page(plan: Plan) -> Page:
    return Page(report_html(plan, manifest_of(plan), BOARDS))


def test_page_is_self_contained(page: Page) -> None:
    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name in ("src", "href") or name.startswith("on")]
    assert page.tags.count("svg") == 6  # five steps that look different, and prediction


def test_page_shows_the_plans_figures(plan: Plan, page: Page) -> None:
    manifest, text = manifest_of(plan), set(page.text)
    assert bytes_text(plan.arena_bytes) in text
    assert f"{manifest.ram('model', 'link', 'stack'):,} B" in text
    assert f"{manifest.ram('model'):,} B" in text
    assert manifest.command in text and f"sha256 {manifest.model_sha256}" in text
    for k in range(1, 6):
        figures, appendix = step_figures(plan, scenes(plan), k), appendix_a(plan.model, k)
        paper = paper_accounting(plan.model, k)
        real = (figures.peak_bytes, figures.macs)
        for value in (*real, appendix.memory_bytes, appendix.macs, paper.memory_bytes, paper.macs):
            assert f"{value:,}" in text
    for weight in plan.learned:
        assert f"{weight.name} gradient" in text


def test_page_is_deterministic(plan: Plan) -> None:
    again = make_plan(p_meta_model())
    assert report_html(plan, manifest_of(plan), BOARDS) == report_html(again, manifest_of(again), BOARDS)


def test_hostile_names_stay_text() -> None:
    plan = make_plan(hostile_model())
    html = report_html(plan, manifest_of(plan), BOARDS)
    page = Page(html)
    assert "script" not in page.tags and page.tags.count("title") > 1
    assert display_name(HOSTILE) in page.text  # shown, but as text
    assert "\u202e" not in html and "\x07" not in html


def test_markup_in_names_is_not_interpreted_in_the_terminal() -> None:
    model = tiny_model([[0.0], [0.1]])
    conv, relu, pool, flatten, fc = model.graph.nodes
    nodes = (conv, relu, pool, flatten, replace(fc, name="[red]fc[/nope]"))
    graph = Graph("g", model.graph.input, model.graph.input_shape, nodes, model.graph.weights)
    plan = make_plan(Model(graph, model.adaptation))
    console = Console(width=120)
    with console.capture() as captured:
        console.print(summary_table(plan, manifest_of(plan), BOARDS))
    assert "[red]fc[/nope]" in captured.get()


def test_terminal_summary_shows_the_plans_figures(plan: Plan) -> None:
    manifest, console = manifest_of(plan), Console(width=120)
    with console.capture() as captured:
        console.print(summary_table(plan, manifest, BOARDS))
    shown = captured.get()
    total = manifest.ram("model", "link", "stack")
    assert f"{total:,}" in shown and f"{100 * total / NETDUINOPLUS2.ram_bytes:.1f} %" in shown
    for k in range(1, 6):
        totals = (account.memory for account in step_accounts(plan, scenes(plan), k) if account.name != ALL_CHANNELS)
        assert all(f"{total:,}" in shown for total in totals)
    assert bytes_text(flash_figures(plan).total) in shown


def test_a_narrow_terminal_shows_the_times_of_all_boards(plan: Plan) -> None:
    console = Console(width=80)
    with console.capture() as captured:
        console.print(summary_table(plan, manifest_of(plan), BOARDS))
    times = captured.get().partition("Time per sample")[2]
    assert times and "…" not in times


@pytest.mark.parametrize("seed", range(6))
def test_scenes_hold_disjoint_bytes_and_reach_the_plans_peak(seed: int) -> None:
    """What is alive together never shares bytes, and the scenes' live bytes are the placement's own."""
    plan = make_plan(random_network(seed))
    for scene in scenes(plan):
        for a, b in itertools.combinations(scene.occupants, 2):
            if a.first <= b.last and b.first <= a.last:
                assert a.offset + a.bytes <= b.offset or b.offset + b.bytes <= a.offset, (a, b)
        assert all(o.offset + o.bytes <= plan.arena_bytes for o in scene.occupants)
        assert sum(count for *_, count in runs(scene)) == len(scene.calls)
    moment = 0
    for k in range(1, len(plan.program_of_step) + 1):
        scene = next(s for s in scenes(plan) if k in s.steps)
        for live in scene.live_bytes:
            assert live == live_bytes(plan.blocks, moment)
            moment += 1
        moment += len(plan.predict.calls)
    assert [live_bytes(plan.blocks, moment + n) for n in range(len(plan.predict.calls))] == list(
        scenes(plan)[-1].live_bytes
    )


@pytest.mark.parametrize("seed", range(6))
def test_any_network_can_be_reported(seed: int) -> None:
    plan = make_plan(random_network(seed))
    Page(report_html(plan, manifest_of(plan), BOARDS))


def test_first_accumulator_lies_where_the_weight_will(plan: Plan) -> None:
    first, fourth = scenes(plan)[0], next(s for s in scenes(plan) if 4 in s.steps)
    before = next(o for o in first.occupants if o.name == "conv3.weight gradient")
    after = next(o for o in fourth.occupants if o.name == "conv3.weight")
    assert (before.role, after.role) == (Role.ACCUMULATOR, Role.WEIGHT)
    assert before.offset == after.offset == plan.offset("", before.buffer.name)


def test_rectangles_are_to_scale(plan: Plan) -> None:
    scene = scenes(plan)[0]
    picture = draw(scene, plan.arena_bytes, [("near", plan.arena_bytes + 1000), ("far", 10 * plan.arena_bytes)])
    panel = picture.panels[0]
    zero, arena = panel.ticks[0].y, panel.lines[0].y
    pixels = (zero - arena) / plan.arena_bytes
    for occupant, box in zip(scene.occupants, panel.boxes, strict=True):
        assert box.y + box.height == pytest.approx(zero - pixels * occupant.offset, abs=0.03)
        assert box.height == pytest.approx(pixels * occupant.bytes, abs=0.03)
        calls = (box.width / (picture.right - picture.left)) * len(scene.calls)
        assert calls == pytest.approx(occupant.last - occupant.first + 1, abs=0.01)
    assert [line.css for line in panel.lines] == ["arena", "limit"]
    assert picture.beyond == (f"far has room for {bytes_text(10 * plan.arena_bytes)}, 10.0 times the arena",)


def test_macs_of_a_tiny_network_counted_by_hand() -> None:
    """conv (2,4,4) → (3,2,2): 216 MACs; fc 3 → 2: 6. The sample's own gradient is not computed."""
    plan = make_plan(tiny_model([[0.1, 0.0], [0.1, 0.1]]))
    forward, fc_backward = 216 + 6, 6 + 2  # weight and bias
    assert program_macs(plan, plan.predict) == forward
    assert program_macs(plan, plan.program(1)) == forward + fc_backward + 6 + 216
    assert program_macs(plan, plan.program(2)) == forward + fc_backward


def test_layer_figures_tell_what_is_stored(plan: Plan) -> None:
    layers = {layer.name: layer for layer in layer_figures(plan)}
    conv3, norm3, fc = layers["conv3"], layers["norm3"], layers["fc1"]
    assert conv3.kept_in == conv3.kept_out == (11, 16)  # 16 − ⌈0.3·16⌉
    assert fc.kept_in is None
    stored = conv3.steps[0].stored
    assert stored is not None and (stored.rows, stored.bytes) == (11, 4 * 11 * 7 * 7)
    assert conv3.steps[1].stored is None and conv3.steps[1].alpha == 0
    passed = norm3.steps[0].stored  # frozen, but the gradient of conv3 passes through it
    assert passed is not None and passed.for_input_gradient and passed.bytes == 4 * 16 * 7 * 7
    assert layers["conv1"].input_bytes == 4 * 28 * 28 and layers["conv1"].output_bytes == 4 * 16 * 28 * 28


def test_flash_counts_what_the_c_contains(plan: Plan) -> None:
    """Modules of layers that never learn are not generated: of 8 layers with attention only the last 4 are asked."""
    flash = flash_figures(plan)
    assert flash.weights == sum(array.nbytes for array in plan.graph.weights.values())
    assert flash.attention == 4 * 2 * 4 * (2 * 16 * 16 + 2 * 16)
    assert flash.total == flash.weights + flash.attention + 8
    title = Title("model", "command", "ab" * 32, "cd" * 16)
    values = re.findall(r"-?0x[0-9a-f.]+p[+-]?\d+f", str(library_sources(plan, title)["pmeta_weights.c"]))
    assert 4 * len(values) == flash.weights + flash.attention


def test_board_figures(plan: Plan) -> None:
    manifest = manifest_of(plan)
    native, board = (board_figures(manifest, b) for b in BOARDS)
    assert (native.total, native.limit) == (manifest.ram("model"), None)
    assert (board.total, board.limit) == (manifest.ram("model", "link", "stack"), 128 * 1024)


def test_texts() -> None:
    assert [short_bytes(n) for n in (0, 1023, 1024, 1536, 3 << 20)] == ["0 B", "1023 B", "1 KiB", "1.5 KiB", "3 MiB"]
    assert [macs_text(n) for n in (7, 1234, 2_500_000)] == ["7", "1.23 k", "2.50 M"]
    assert [steps_text(s) for s in ((2,), (1, 2), (1, 2, 3), (1, 3))] == [
        "step 2",
        "steps 1, 2",
        "steps 1–3",
        "steps 1, 3",
    ]
    assert display_name("x" * 99, longest=5) == "xxxx…"


# --- accounts ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_the_real_account_is_the_plans_peak(seed: int) -> None:
    """Its terms add up to the arena in use, its MACs to those of all calls."""
    plan = make_plan(random_network(seed))
    for k in range(1, len(plan.program_of_step) + 1):
        *_, real = step_accounts(plan, scenes(plan), k)
        assert real.memory == step_figures(plan, scenes(plan), k).peak_bytes
        assert real.macs.total == program_macs(plan, plan.program(k))


def test_each_account_keeps_its_own_terms(plan: Plan) -> None:
    """Step 1 of the model: conv3, conv4, norm4 and fc learn, norm3 does not, with attention."""
    appendix, every_channel, paper, real = step_accounts(plan, scenes(plan), 1)
    assert [appendix.name, every_channel.name, real.name] == ["Appendix A", ALL_CHANNELS, REAL]
    terms, counted = appendix_a(plan.model, 1), paper_accounting(plan.model, 1)
    assert (appendix.maps, appendix.stored) == (4 * terms.largest_map_words, 4 * terms.stored_input_words)
    assert (appendix.memory, appendix.macs.total) == (terms.memory_bytes, terms.macs)
    assert every_channel.stored == 4 * appendix_a(plan.model, 1, "all").stored_input_words > appendix.stored
    assert (paper.memory, paper.macs.total) == (counted.memory_bytes, counted.macs)
    assert appendix.updated_weights is None and real.updated_weights == 0


def test_attention_is_only_what_calls_of_attention_do(plan: Plan) -> None:
    macs = macs_by_pass(plan, plan.program(1))
    assert min(macs.forward, macs.weight_gradients, macs.input_gradients, macs.attention) > 0
    alone = macs_by_pass(plan, plan.predict)
    assert (alone.weight_gradients, alone.input_gradients, alone.attention) == (0, 0, 0)
    assert alone.forward == macs.forward  # nothing is computed again


def test_steps_that_agree_share_their_accounts() -> None:
    """Steps 1 and 4 learn the same layers, but the weights that are in RAM then differ."""
    groups = list(accounts_by_step(make_plan(p_meta_model()), scenes(make_plan(p_meta_model()))))
    assert [group.steps for group in groups] == [(1,), (2,), (3,), (4,), (5,)]
    plan = make_plan(random_4conv(0, width=8, steps=3, attention=False))
    groups = list(accounts_by_step(plan, scenes(plan)))
    assert [group.steps for group in groups] == [(1,), (2, 3)]
    assert groups[1].learning == tuple(layer.name for layer in plan.graph.layers)
    assert [account.name for account in groups[0].accounts] == ["Appendix A", "paper's tables", REAL]


# --- the picture ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_a_bracket_marks_every_loop(seed: int) -> None:
    plan = make_plan(random_network(seed))
    for scene in scenes(plan):
        picture = draw(scene, plan.arena_bytes, [])
        loops = [loop for loop, _ in itertools.groupby(call.loop for call in scene.calls) if loop is not None]
        assert len(picture.loops) == len(loops)
        for bracket, loop in zip(picture.loops, loops, strict=True):
            assert f" run {loop.slices} times" in bracket.title
            left, right = (float(x) for x in re.findall(r"[MH]([\d.]+)", bracket.path))
            assert picture.left <= left < right <= picture.right


def test_crowded_buffers_are_enlarged_wherever_they_are() -> None:
    """Small buffers between two large ones: a second panel shows them, cut off where it begins and ends."""
    plan = make_plan(p_meta_model())
    for scene in scenes(plan):
        for panel in draw(scene, plan.arena_bytes, []).panels[1:]:
            ys = [y for box in panel.boxes for y in (box.y, box.y + box.height)]
            top, height = panel.columns[0].y, panel.columns[0].height
            assert min(ys) >= top - 0.01 and max(ys) <= top + height + 0.01


def test_what_is_kept_for_the_backward_pass_is_drawn_as_kept() -> None:
    """x̂ of a GroupNormalization in a loop is a map that lives on."""
    plan = make_plan(random_4conv(0, width=8, steps=1, attention=False))
    scene = scenes(plan)[0]
    for occupant in scene.occupants:
        phases = scene.calls[occupant.first].phase, scene.calls[occupant.last].phase
        assert (occupant.role is Role.MAP) <= (phases != ("forward", "backward")), occupant.name
    assert sum(o.bytes for o in scene.occupants if o.role is Role.STORE) > 4 * 8 * 14 * 14


# --- time ----------------------------------------------------------------------------------------------------


def test_time_is_shown_where_it_can_be_estimated(plan: Plan, page: Page) -> None:
    estimate = board_estimate(plan, NETDUINOPLUS2)
    assert estimate is not None and board_estimate(plan, NATIVE) is None
    shown = time_text(estimate, estimate.steps[0].sample)
    assert shown in page.text
    console = Console(width=120)
    with console.capture() as captured:
        console.print(summary_table(plan, manifest_of(plan), BOARDS))
    assert shown in captured.get() and "one per clock cycle" in captured.get()
    alone = report_html(plan, manifest_of(plan, (NATIVE,)), (NATIVE,))
    assert "<h2>Time</h2>" not in alone


def test_time_text() -> None:
    estimate = BoardEstimate(NETDUINOPLUS2, (), 0.0)
    assert time_text(estimate, 16_000_000) == "16.00 M instructions, 1 s"
    assert time_text(estimate, 8_000) == "8.00 k instructions, 0.5 ms"
    assert offset_text(1792) == "1.75 KiB" and offset_text(3 << 20) == "3 MiB" and offset_text(100) == "100 B"
