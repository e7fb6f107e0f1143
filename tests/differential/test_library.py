"""The generated library as a state machine: refusals leave it intact, and a saved state continues the same bits."""

from __future__ import annotations

import itertools
import zlib
from pathlib import Path

import numpy as np
import pytest

from tests.compiled import CompiledModel
from tests.models import random_4conv, random_samples, regression

pytestmark = pytest.mark.differential

OK, TARGET, FINISHED, COUNT, SUPPORT, TENSOR, STATE, CAPACITY = range(8)
STEPS = 3


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> CompiledModel:
    alpha = np.full((9, STEPS), 0.05, np.float32)
    alpha[:6] = 0
    alpha[6, 0] = 0
    return CompiledModel(random_4conv(2, width=4, steps=STEPS, alpha=alpha), tmp_path_factory.mktemp("library"))


@pytest.fixture(autouse=True)
def reset(library: CompiledModel) -> None:
    library.reset()


SAMPLES, LABELS = random_samples(random_4conv(2, width=4), 3, 4)


def snapshot(library: CompiledModel) -> bytes:
    """Everything that must stay when a call is refused: step, samples, tensors."""
    state = f"{library.step} {library.samples}".encode()
    return state + b"".join(library.tensor_bytes(weight.name) for weight in library.plan.learned)


def adapt_step(library: CompiledModel) -> None:
    for sample, label in zip(SAMPLES, LABELS, strict=True):
        library.adapt_sample(sample, int(label))
    library.end_step(len(SAMPLES))


def test_refusals_change_nothing(library: CompiledModel) -> None:
    library.adapt_sample(SAMPLES[0], int(LABELS[0]))
    before = snapshot(library)
    assert library.try_adapt_sample(SAMPLES[0], 5) == TARGET
    assert library.try_adapt_sample(SAMPLES[0], 2**32 - 1) == TARGET
    assert [library.try_end_step(n) for n in (0, 2, 2**32 - 1)] == [COUNT] * 3
    assert library.try_read(0, 0, 2**20) == TENSOR
    assert library.try_read(0, 2**32 - 4, 8) == TENSOR
    assert library.try_read(99, 0, 1) == TENSOR
    assert library.load(b"\0" * library.state_bytes) == STATE
    assert snapshot(library) == before
    assert library.try_end_step(1) == OK


def test_targets_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    """And others than in step 1, to the last bit."""
    model = regression(random_4conv(2, width=4, steps=2))
    library = CompiledModel(model, tmp_path)
    library.reset()
    samples, targets = random_samples(model, 3, 2)
    library.adapt_sample(samples[0], targets[0])
    before = snapshot(library)
    for number, index in itertools.product((np.inf, -np.inf, np.nan), (0, 4)):
        bad = targets[1].copy()
        bad[index] = number
        assert library.try_adapt_sample(samples[1], bad) == TARGET
    assert snapshot(library) == before
    library.end_step(1)
    other = targets[0].copy()
    other[4] = np.nextafter(other[4], np.float32(9))
    library.adapt_sample(samples[0], other)
    assert library.try_end_step(1) == SUPPORT


def test_after_the_last_step_only_reset_and_predict(library: CompiledModel) -> None:
    for _ in range(STEPS):
        adapt_step(library)
    assert library.step == STEPS + 1
    before = snapshot(library)
    assert library.try_adapt_sample(SAMPLES[0], 0) == FINISHED
    assert library.try_end_step(4) == FINISHED
    library.predict(SAMPLES[0])
    assert snapshot(library) == before


@pytest.mark.parametrize("change", ["sample", "label", "order"])
def test_other_samples_or_labels_than_in_step_1_are_refused(library: CompiledModel, change: str) -> None:
    adapt_step(library)
    before = snapshot(library)
    samples, labels = SAMPLES.copy(), LABELS.copy()
    if change == "sample":
        samples[3] = samples[2]
    elif change == "label":
        labels[3] = (labels[3] + 1) % 5
    else:
        samples, labels = samples[::-1], labels[::-1]
    for sample, label in zip(samples, labels, strict=True):
        library.adapt_sample(sample, int(label))
    assert library.try_end_step(4) == SUPPORT
    assert snapshot(library) == before  # the step starts again
    adapt_step(library)
    assert library.step == 3


def test_a_restarted_step_gives_the_same_bits(library: CompiledModel) -> None:
    adapt_step(library)
    expected = snapshot(library)
    library.reset()
    library.adapt_sample(SAMPLES[2], 1)
    library.restart_step()
    adapt_step(library)
    assert snapshot(library) == expected


@pytest.mark.parametrize("steps_before", range(STEPS + 1))
def test_a_saved_state_continues_with_the_same_bits(library: CompiledModel, steps_before: int, tmp_path: Path) -> None:
    """After a restart, which leaves nothing in RAM."""
    for _ in range(steps_before):
        adapt_step(library)
    saved = library.save()
    for _ in range(steps_before, STEPS):
        adapt_step(library)
    expected = snapshot(library) + library.predict(SAMPLES[1]).tobytes()
    restarted = library.restarted(tmp_path)
    restarted.poison()
    assert restarted.load(saved) == OK
    for _ in range(steps_before, STEPS):
        adapt_step(restarted)
    assert snapshot(restarted) + restarted.predict(SAMPLES[1]).tobytes() == expected


def test_loading_within_a_step_drops_its_samples(library: CompiledModel) -> None:
    adapt_step(library)
    saved = library.save()
    adapt_step(library)
    expected = snapshot(library)
    library.adapt_sample(SAMPLES[2], int(LABELS[2]))
    assert library.load(saved) == OK
    assert (library.step, library.samples) == (2, 0)
    adapt_step(library)
    assert snapshot(library) == expected


def with_checksum(body: bytes) -> bytes:
    return body + zlib.crc32(body).to_bytes(4, "little")


@pytest.mark.parametrize("step", [0, STEPS + 2, 2**31, 2**32 - 1])
def test_a_state_of_an_impossible_step_is_refused(library: CompiledModel, step: int) -> None:
    """Although its checksum is right."""
    adapt_step(library)
    saved, before = library.save(), snapshot(library)
    assert with_checksum(saved[:-4]) == saved
    assert library.load(with_checksum(saved[:16] + step.to_bytes(4, "little") + saved[20:-4])) == STATE
    assert snapshot(library) == before


@pytest.mark.parametrize("position", [0, 7, 15])
def test_a_state_of_another_firmware_is_refused(library: CompiledModel, position: int) -> None:
    adapt_step(library)
    body, before = bytearray(library.save()[:-4]), snapshot(library)
    body[position] ^= 1
    assert library.load(with_checksum(bytes(body))) == STATE
    assert snapshot(library) == before


def test_a_damaged_state_is_refused(library: CompiledModel) -> None:
    adapt_step(library)
    saved, before = library.save(), snapshot(library)
    for position in [0, 16, 20, 24, len(saved) // 2, len(saved) - 1]:
        damaged = bytearray(saved)
        damaged[position] ^= 1
        assert library.load(bytes(damaged)) == STATE
    assert library.load(saved[:-1]) == STATE
    assert snapshot(library) == before


def test_nothing_is_saved_within_a_step(library: CompiledModel) -> None:
    library.adapt_sample(SAMPLES[0], 0)
    assert library.try_save(library.state_bytes) == STATE
    library.restart_step()
    assert library.try_save(library.state_bytes - 1) == CAPACITY


def test_a_tensor_reads_the_same_in_pieces(library: CompiledModel) -> None:
    adapt_step(library)
    whole = library.tensor_bytes("fc1.weight")
    pieces = [
        library.read(library.number("fc1.weight"), start, min(7, len(whole) - start))
        for start in range(0, len(whole), 7)
    ]
    assert b"".join(pieces) == whole
