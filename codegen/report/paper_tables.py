"""Tables 1 to 3 of the paper: each printed memory and GMAC figure beside what its accounting gives for that network.

Tables 2 and 3 get columns of our own, so that all three accounts stand side by side: Eq. 16 to the letter
(`appendix_a`), and what the plan of this project needs. Accuracies and returns are measurements, and not here. The rows
of p-Meta follow from meta-trained step sizes that the paper does not print: they are shown, not computed.

MB are 10^6 bytes, GMAC 10^9 multiply-accumulates, as in the paper.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import prod

from pmeta.codegen.adaptation import Model
from pmeta.codegen.appendix_a import BYTES_PER_WORD, appendix_a
from pmeta.codegen.bring_your_own import OwnAdaptation, own_model
from pmeta.codegen.graph import Graph
from pmeta.codegen.networks import IMAGE, four_conv, mlp, resnet12
from pmeta.codegen.paper_accounting import PaperAccount, paper_accounting
from pmeta.codegen.plan.plan import make_plan
from pmeta.codegen.progress import OnProgress, nobody_watches
from pmeta.codegen.report.figures import dynamic_bytes

MEGA, GIGA = 10**6, 10**9
ONE_SHOT, FIVE_SHOT = 5, 25  # samples of a 5-way task
PLANS = 4 * 3  # networks, and what they update
EPISODES, HORIZON = 20, 200  # a sample of reinforcement learning is an episode of so many observations

FIRST_BLOCK = (
    "The printed figure equals 25 × 3,704,400 words, what block 1 alone needs. Its stores stay while those of the next "
    "blocks are added; the peak is in block 4."
)
ACCUMULATORS = "The paper prints MAML's figure, but BOIL needs no accumulators for the classifier's 10,260 B."


@dataclass(frozen=True)
class Cell:
    """One figure of a table; `computed` in the unit of its column."""

    printed: str | None  # in the paper; None: a column of our own
    computed: float | None  # None: follows from what the paper does not say
    why: str = ""  # the two differ

    @property
    def agrees(self) -> bool:
        """Whether the computed figure, rounded to the printed digits, is the printed one."""
        if self.printed is None or self.computed is None:
            return True
        return f"{self.computed:.{self.decimals}f}" == self.printed

    @property
    def decimals(self) -> int:
        """Printed digits after the point."""
        return len((self.printed or "0.00").partition(".")[2])


@dataclass(frozen=True)
class Row:
    """One line of a table."""

    group: str  # the network or task; empty where the table has no groups
    name: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class PaperTable:
    """One table of the paper."""

    number: int
    title: str
    names: str  # heading of the rows' names
    columns: tuple[str, ...]  # headings of the cells, with units
    rows: tuple[Row, ...]
    remark: str


def paper_tables(progress: OnProgress = nobody_watches) -> tuple[PaperTable, ...]:
    """Tables 1, 2 and 3; the plans of ResNet12 take a few seconds."""
    done = itertools.count(1)

    def planned() -> None:
        progress("plans", next(done), PLANS)

    return _table_1(), _table_2(planned), _table_3(planned)


@dataclass(frozen=True)
class _Network:
    """A network, and how many times a sample of the paper runs through it."""

    graph: Graph
    observations: int = 1  # per sample

    def learning(self, update: str) -> Model:
        """Adapts in one step what `update` of `OwnAdaptation` says; images are uint8."""
        scale = 1.0 if len(self.graph.input_shape) == 3 else None
        return own_model(self.graph, OwnAdaptation(update, steps=1, uint8_scale=scale))

    def gmacs(self, account: PaperAccount, samples: int) -> float:
        return account.macs * samples * self.observations / GIGA


# Model, samples, inference and adaptation in MB, inference and adaptation in GMAC.
_TABLE_1: Mapping[str, tuple[str | None, ...]] = {
    "4Conv": ("0.13", "0.53", "0.90", "48.33", "0.72", "1.96"),
    "ResNet12": ("32.0", "0.53", "3.61", "370.44", "62.08", "185.42"),
    "MLP": ("0.05", "0.016", "0.08", "3.72", "0.05", "0.15"),
    "MLP/observation": (None, "0.00008", "0.0004", None, None, None),
}


def _table_1() -> PaperTable:
    images = FIVE_SHOT * prod(IMAGE) / MEGA  # a byte per element
    observation = BYTES_PER_WORD * mlp().input_shape[0] / MEGA
    rows = (
        _row_1("4Conv", _Network(four_conv()), FIVE_SHOT, images),
        _row_1("ResNet12", _Network(resnet12()), FIVE_SHOT, images),
        _row_1("MLP", _Network(mlp(), HORIZON), EPISODES, HORIZON * observation),
        _row_1("MLP/observation", _Network(mlp()), 1, observation),
    )
    return PaperTable(
        1,
        "inference, and adaptation with the whole support set as one batch",
        "network",
        ("model MB", "samples MB", "inference MB", "adaptation MB", "inference GMAC", "adaptation GMAC"),
        rows,
        "Samples are all 25 images, as bytes, but one of the MLP's 20 episodes.",
    )


def _row_1(name: str, network: _Network, samples: int, sample_mb: float) -> Row:
    """Inference of one sample at a time, adaptation with all `samples` at once."""
    model = network.learning("all")
    parameters = sum(weight.size for weight in network.graph.weights.values())
    inference = paper_accounting(model, None, network.observations)
    adaptation = paper_accounting(model, 1, samples * network.observations, accumulate=False)
    computed = (
        BYTES_PER_WORD * parameters / MEGA,
        sample_mb,
        inference.memory_bytes / MEGA,
        adaptation.memory_bytes / MEGA,
        network.gmacs(inference, samples),
        network.gmacs(adaptation, samples),
    )
    asked = ((text, value if text else None) for text, value in zip(_TABLE_1[name], computed, strict=True))
    return Row("", name, tuple(_cell(text, value, FIRST_BLOCK) for text, value in asked))


# By method: GMAC and MB in 5-way 1-shot, GMAC and MB in 5-way 5-shot.
_TABLE_2: Mapping[str, Mapping[str, tuple[str, str, str, str]]] = {
    "4Conv": {
        "MAML": ("0.39", "2.06", "1.96", "2.06"),
        "ANIL": ("0.14", "0.92", "0.72", "0.92"),
        "BOIL": ("0.39", "2.05", "1.96", "2.05"),
        "MAML++": ("0.39", "2.06", "1.96", "2.06"),
        "p-Meta (3.2)": ("0.16", "1.00", "1.34", "1.09"),
        "p-Meta (3.2+3.3)": ("0.15", "0.99", "1.11", "1.04"),
    },
    "ResNet12": {
        "MAML": ("37.08", "54.69", "185.42", "54.69"),
        "ANIL": ("12.42", "3.62", "62.08", "3.62"),
        "BOIL": ("37.08", "54.69", "185.42", "54.69"),
        "MAML++": ("37.08", "54.69", "185.42", "54.69"),
        "p-Meta (3.2)": ("25.84", "17.66", "124.15", "18.95"),
        "p-Meta (3.2+3.3)": ("24.02", "16.01", "116.79", "17.17"),
    },
}


def _table_2(planned: Callable[[], None]) -> PaperTable:
    rows = []
    for name, network in (("4Conv", _Network(four_conv())), ("ResNet12", _Network(resnet12()))):
        computed = _methods(network, planned)
        for method, printed in _TABLE_2[name].items():
            values = _values_2(network, computed[method]) if method in computed else (None,) * 6
            pairs = zip((*printed, None, None), values, strict=True)
            rows.append(Row(name, method, tuple(_cell(text, value, ACCUMULATORS) for text, value in pairs)))
    return PaperTable(
        2,
        "adaptation on miniImageNet, one sample at a time",
        "method",
        ("1-shot GMAC", "1-shot MB", "5-shot GMAC", "5-shot MB", "Eq. 16 MB", "our plan MB"),
        tuple(rows),
        "Eq. 16 adds the largest map to all stores, whenever they are needed, and knows no second branch. Our plan "
        "counts the waiting sample, too, and every x̂ that the gradient needs.",
    )


def _values_2(network: _Network, method: _Method) -> tuple[float, ...]:
    memory = method.account.memory_bytes / MEGA
    one_shot, five_shot = (network.gmacs(method.account, samples) for samples in (ONE_SHOT, FIVE_SHOT))
    return one_shot, memory, five_shot, memory, method.eq_16_bytes / MEGA, method.plan_bytes / MEGA


# By method: GMAC and MB.
_TABLE_3: Mapping[str, Mapping[str, tuple[str, str]]] = {
    "HalfCheetah": {
        "MAML": ("0.15", "0.24"),
        "ANIL": ("0.06", "0.09"),
        "BOIL": ("0.15", "0.23"),
        "MAML++": ("0.15", "0.24"),
        "p-Meta (3.2)": ("0.11", "0.12"),
        "p-Meta (3.2+3.3)": ("0.11", "0.11"),
    },
    "2D navigation": {
        "MAML": ("0.12", "0.21"),
        "ANIL": ("0.04", "0.08"),
        "BOIL": ("0.12", "0.21"),
        "MAML++": ("0.12", "0.21"),
        "p-Meta (3.2)": ("0.09", "0.09"),
        "p-Meta (3.2+3.3)": ("0.09", "0.09"),
    },
}


def _table_3(planned: Callable[[], None]) -> PaperTable:
    rows = []
    policies = {"HalfCheetah": mlp(), "2D navigation": mlp(2, outputs=2)}
    for task, graph in policies.items():
        network = _Network(graph, HORIZON)
        computed = _methods(network, planned)
        for method, printed in _TABLE_3[task].items():
            values = _values_3(network, computed[method]) if method in computed else (None,) * 3
            pairs = zip((*printed, None), values, strict=True)
            rows.append(Row(task, method, tuple(_cell(text, value) for text, value in pairs)))
    return PaperTable(
        3,
        "reinforcement learning, one episode at a time",
        "method",
        ("GMAC", "MB", "our plan MB"),
        tuple(rows),
        "Our plan processes one observation at a time, not an episode of 200, and ends in softmax cross-entropy.",
    )


def _values_3(network: _Network, method: _Method) -> tuple[float, ...]:
    memory = method.account.memory_bytes / MEGA
    return network.gmacs(method.account, EPISODES), memory, method.plan_bytes / MEGA


@dataclass(frozen=True)
class _Method:
    """One step of a method, one sample at a time."""

    account: PaperAccount
    eq_16_bytes: int
    plan_bytes: int


def _methods(network: _Network, planned: Callable[[], None]) -> dict[str, _Method]:
    """By method, without those of which the paper does not say what they update; calls `planned` after each plan."""
    body = ",".join(layer.name for layer in network.graph.layers[:-1])
    found = {}
    for method, update in (("MAML", "all"), ("ANIL", "last"), ("BOIL", body)):
        model = network.learning(update)
        account = paper_accounting(model, 1, network.observations)
        found[method] = _Method(account, appendix_a(model, 1).memory_bytes, dynamic_bytes(make_plan(model)))
        planned()
    return {**found, "MAML++": found["MAML"]}


def _cell(printed: str | None, computed: float | None, why: str = "") -> Cell:
    """A cell that says `why` if its figures differ."""
    cell = Cell(printed, computed)
    return cell if cell.agrees else replace(cell, why=why)
