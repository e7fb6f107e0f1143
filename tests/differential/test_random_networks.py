"""Random networks, checked in every way of `tests.fuzz.check`: PyTorch ≈ simulator ≡ generated C, sanitizers, RAM.

Thousands more: make fuzz.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from pmeta.codegen.operators import Add, GroupNorm  # noqa: E402
from pmeta.codegen.plan.plan import make_plan  # noqa: E402
from pmeta.codegen.project.ram import library_ram  # noqa: E402
from pmeta.host.simulator.operators import group_norm, max_pool  # noqa: E402
from tests import fuzz  # noqa: E402
from tests.compiled import kernel_objects, write_library  # noqa: E402
from tests.gradients import assert_follows_pytorch, compare  # noqa: E402
from tests.models import as_pytorch, random_4conv, random_samples  # noqa: E402
from tests.networks import Network, random_network  # noqa: E402
from tests.sanitized import adaptation_script, assert_predicted_ram, build, run  # noqa: E402

pytestmark = pytest.mark.differential

SEEDS = 20
PER_SEED = 15


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize("number", range(SEEDS))
def test_random_networks(number: int) -> None:
    fuzz.check_networks(number, PER_SEED)


# --- the checks themselves -----------------------------------------------------------------------------------


def test_the_tolerance_of_gradients_says_something() -> None:
    """It follows from the network. Nearly everywhere it is a small part of the gradient."""
    compared = [
        found
        for seed in range(30)
        for model in [as_pytorch(random_network(seed))]
        for _, found in compare(model, *random_samples(model, seed, 2))
    ]
    real = [found for found in compared if found.largest > 1e-6]
    assert len(real) > 0.7 * len(compared) > 50
    assert sum(found.tolerance < 1e-3 * found.largest for found in real) > 0.9 * len(real)


def test_what_fails_shrinks_and_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if sums of a GroupNormalization's channels were wrong."""

    def failing(network: Network) -> None:
        normalized = {node.output for node in network.model.graph.nodes if isinstance(node, GroupNorm)}
        assert not any(normalized & set(node.inputs) for node in network.model.graph.nodes if isinstance(node, Add))

    monkeypatch.setattr(fuzz, "check", failing)
    with pytest.raises(AssertionError) as caught:
        fuzz.check_networks(0, 200, tmp_path)
    (folder,) = tmp_path.iterdir()
    assert f"again: python -m tests.fuzz --again {folder}" in caught.value.__notes__[0]
    smallest = fuzz.kept_network(folder)
    assert len(smallest.model.graph.nodes) <= 7  # conv, normalization, sum, flatten, fc, and what hides nothing
    with pytest.raises(AssertionError):
        failing(smallest)
    monkeypatch.undo()
    fuzz.check(smallest)


def test_a_wrong_gradient_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a thousandth, of one of the operators."""
    model, right = random_4conv(0, width=4, ways=2, steps=1, size=(1, 16, 16)), group_norm.input_gradient
    monkeypatch.setattr(group_norm, "input_gradient", lambda *given: right(*given) * np.float32(1.001))
    with pytest.raises(AssertionError, match="gradient of conv"):
        assert_follows_pytorch(model, *random_samples(model, 1, 1))


def test_a_wrong_decision_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The simulator says that another pixel won: then PyTorch follows, so gradients alone would not tell."""
    model, right = random_4conv(0, width=4, ways=2, steps=1, size=(1, 16, 16)), max_pool.forward

    def wrong(*given: object) -> object:
        y, pooled = right(*given)
        pooled.best[0, 0, 0] = pooled.best[0, 0, 0] ^ 1
        return y, pooled

    assert_follows_pytorch(model, *random_samples(model, 1, 1))
    monkeypatch.setattr(max_pool, "forward", wrong)
    with pytest.raises(AssertionError, match="pool1 decides otherwise"):
        assert_follows_pytorch(model, *random_samples(model, 1, 1))


def sanitized_run(folder: Path, edit_plan: Callable[[str], str]) -> None:
    """A small network's program, with another pmeta_plan.c, beside the simulator."""
    plan = make_plan(random_4conv(5, width=4, ways=2, steps=1, size=(1, 16, 16), attention=False))
    write_library(plan, folder)
    source = folder / "pmeta_plan.c"
    before = source.read_text(encoding="utf-8")
    after = edit_plan(before)
    source.write_text(after, encoding="utf-8")
    samples, labels = random_samples(plan.model, 1, 2)
    script = adaptation_script(plan, samples, labels, samples)
    script.check(run(build(folder), bytes(script.requests)))
    assert_predicted_ram(plan, folder)
    assert before == after or edit_plan is str, "nothing was noticed"


def offset(text: str, buffer: str) -> str:
    found = re.search(rf"{buffer} = at\((\d+u)\)", text)
    assert found is not None
    return found[1]


def replaced(pattern: str, replacement: str) -> Callable[[str], str]:
    return lambda text: re.sub(pattern, replacement, text)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (replaced(r"(    predict\(s)", r"    pmeta_arena.bytes[PMETA_ARENA_BYTES] = 0;\n\1"), "out of bounds|overflow"),
        (replaced(r"conv1_y = at\(\d+u\)", "conv1_y = at(PMETA_ARENA_BYTES - 4u)"), "global-buffer-overflow"),
        (lambda text: replaced(r"conv2_y = at\(\d+u\)", f"conv2_y = at({offset(text, 'norm2_z')})")(text), "logits"),
        (lambda text: text + "\nint one_more;\n", "occupies"),
    ],
    ids=["a byte outside", "a buffer that ends outside", "an overlap", "a static"],
)
def test_the_sanitized_program_notices(change: Callable[[str], str], message: str, tmp_path: Path) -> None:
    sanitized_run(tmp_path, str)
    with pytest.raises(AssertionError, match=message):
        sanitized_run(tmp_path, change)


def test_kernels_have_no_static_data() -> None:
    assert library_ram(Path(name) for name in kernel_objects()) == 0
