"""The simulator as a device: steps, refusals, updates."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from pmeta.codegen.adaptation import Model
from pmeta.codegen.errors import DataError, DeviceError
from pmeta.codegen.graph import frozen_float32
from pmeta.host.simulator import Simulator
from pmeta.host.simulator.arithmetic import canonical_bytes
from tests.models import random_4conv, random_samples

pytestmark = pytest.mark.unit


def small(alpha: Any = 0.05, **options: Any) -> Model:
    return random_4conv(1, width=4, ways=3, steps=2, alpha=alpha, size=(1, 16, 16), **options)


def with_adaptation(model: Model, **changes: Any) -> Model:
    return dataclasses.replace(model, adaptation=dataclasses.replace(model.adaptation, **changes))


def take_step(simulator: Simulator, model: Model, samples: int = 3) -> tuple[str, ...]:
    x, y = random_samples(model, 0, samples)
    for sample, label in zip(x, y, strict=True):
        simulator.adapt_sample(sample, int(label))
    return simulator.end_step(samples)


def weight_bytes(simulator: Simulator) -> dict[str, bytes]:
    return {name: simulator.tensor_bytes(name) for name in simulator.weights}


def test_updates_are_named_in_layer_order_weight_before_bias() -> None:
    alpha = np.full((9, 2), 0.1)
    alpha[:6, 0] = 0
    alpha[8, 1] = 0
    model = small(alpha)
    updates = (("weight", "bias"),) * 5 + (("bias",),) + (("weight", "bias"),) * 3
    model = with_adaptation(model, updates=updates)
    simulator = Simulator(model)
    before = weight_bytes(simulator)
    first = take_step(simulator, model)
    assert first == ("conv4.weight", "norm4.weight", "norm4.bias", "fc1.weight", "fc1.bias")
    after = weight_bytes(simulator)
    assert {name for name in before if before[name] != after[name]} == set(first)
    second = take_step(simulator, model)
    assert second[-4:] == ("norm3.bias", "conv4.weight", "norm4.weight", "norm4.bias")


def test_update_is_alpha_over_n_times_the_sum_of_contributions() -> None:
    alpha, samples = np.float32(0.3), np.float32(3)
    assert alpha / samples != alpha * (np.float32(1) / samples)  # it is a division
    model = small(alpha)
    simulator = Simulator(model)
    x, y = random_samples(model, 0, 3)
    weight = simulator.weights["conv2.weight"]
    total = np.zeros_like(weight)
    for sample, label in zip(x, y, strict=True):
        total = simulator.trace_sample(sample, int(label)).contributions["conv2.weight"].added_to(total)
    take_step(simulator, model, 3)
    expected = weight - (alpha / samples) * total
    assert simulator.tensor_bytes("conv2.weight") == canonical_bytes(expected)


def test_what_is_updated_below_does_not_change_what_happens_above() -> None:
    """Going further down than needed is only work: it has no effect on the layers above."""
    upper = np.full((9, 2), 0.1)
    upper[:6] = 0
    traces = []
    for alpha in (upper, np.full((9, 2), 0.1)):
        model = small(alpha)
        x, y = random_samples(model, 0, 1)
        traces.append(Simulator(model).trace_sample(x[0], int(y[0])))
    for name, contribution in traces[0].contributions.items():
        assert canonical_bytes(contribution.d) == canonical_bytes(traces[1].contributions[name].d)
    assert set(traces[0].gammas) == {"conv4", "norm4", "fc1"}


def test_a_step_may_update_nothing() -> None:
    model = small(np.array([[0.0, 0.1]]))
    simulator = Simulator(model)
    before = weight_bytes(simulator)
    assert take_step(simulator, model) == ()
    assert weight_bytes(simulator) == before
    assert len(take_step(simulator, model)) == 14


def test_results_come_from_the_weights_before_the_step() -> None:
    model = small()
    simulator = Simulator(model)
    x, y = random_samples(model, 0, 2)
    logits = simulator.predict(x[1])
    simulator.adapt_sample(x[0], int(y[0]))
    assert simulator.adapt_sample(x[1], int(y[1])).logits.tobytes() == logits.tobytes()


def test_reset_starts_again_with_the_same_bytes() -> None:
    model = small()
    simulator = Simulator(model)
    initial = weight_bytes(simulator)
    take_step(simulator, model)
    once = weight_bytes(simulator)
    simulator.adapt_sample(random_samples(model, 0, 1)[0][0], 0)
    simulator.reset()
    assert weight_bytes(simulator) == initial and (simulator.step, simulator.samples) == (1, 0)
    take_step(simulator, model)
    assert weight_bytes(simulator) == once
    assert simulator.tensor_crc32("fc1.bias") != Simulator(model).tensor_crc32("fc1.bias")


def test_tracing_and_predicting_leave_no_mark() -> None:
    model = small()
    watched, plain = Simulator(model), Simulator(model)
    x, y = random_samples(model, 0, 3)
    watched.trace_sample(x[2], int(y[2]))
    watched.predict(x[1])
    take_step(watched, model)
    take_step(plain, model)
    assert weight_bytes(watched) == weight_bytes(plain)


@pytest.mark.parametrize("label", [-1, 3, 1000])
def test_labels_out_of_range_are_refused_and_not_counted(label: int) -> None:
    model = small()
    simulator = Simulator(model)
    with pytest.raises(DeviceError, match="is not below 3"):
        simulator.adapt_sample(random_samples(model, 0, 1)[0][0], label)
    assert simulator.samples == 0


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_wrong_count_is_refused_and_changes_nothing(count: int) -> None:
    model = small()
    simulator = Simulator(model)
    for sample in random_samples(model, 0, 2)[0]:
        simulator.adapt_sample(sample, 0)
    before = weight_bytes(simulator)
    with pytest.raises(DeviceError, match="2 samples"):
        simulator.end_step(count)
    assert weight_bytes(simulator) == before and simulator.step == 1
    simulator.end_step(2)


@pytest.mark.parametrize("change", ["label", "sample", "order"])
def test_other_samples_or_labels_than_in_step_1_start_the_step_again(change: str) -> None:
    model = small()
    simulator, plain = Simulator(model), Simulator(model)
    take_step(simulator, model)
    before = weight_bytes(simulator)
    x, y = (array.copy() for array in random_samples(model, 0, 3))
    if change == "label":
        y[1] = (y[1] + 1) % 3
    elif change == "sample":
        x[1, 0, 3, 3] ^= 1
    else:
        x, y = x[::-1], y[::-1]
    for sample, label in zip(x, y, strict=True):
        simulator.adapt_sample(sample, int(label))
    with pytest.raises(DeviceError, match="step 2 has other samples or targets than step 1"):
        simulator.end_step(3)
    assert weight_bytes(simulator) == before and (simulator.step, simulator.samples) == (2, 0)
    take_step(simulator, model)
    for _ in range(2):
        take_step(plain, model)
    assert weight_bytes(simulator) == weight_bytes(plain)


def test_a_restarted_step_forgets_what_it_was_sent() -> None:
    model = small()
    simulator, plain = Simulator(model), Simulator(model)
    simulator.adapt_sample(random_samples(model, 5, 1)[0][0], 2)
    simulator.restart_step()
    for device in (simulator, plain):
        take_step(device, model)
        take_step(device, model)
    assert weight_bytes(simulator) == weight_bytes(plain)


def test_a_step_without_samples_is_refused() -> None:
    with pytest.raises(DeviceError):
        Simulator(small()).end_step(0)


def test_nothing_is_adapted_after_the_last_step() -> None:
    model = small()
    simulator = Simulator(model)
    take_step(simulator, model)
    take_step(simulator, model)
    assert simulator.finished and simulator.step == 3
    sample = random_samples(model, 0, 1)[0][0]
    for call in (lambda: simulator.adapt_sample(sample, 0), lambda: simulator.end_step(0)):
        with pytest.raises(DeviceError, match="finished after 2 steps"):
            call()
    assert simulator.predict(sample).shape == (3,)


def test_samples_of_another_shape_or_type_are_refused() -> None:
    simulator = Simulator(small())
    for sample in (np.zeros((1, 16, 17), np.uint8), np.zeros((1, 16, 16), np.float32)):
        with pytest.raises(DataError, match="expected uint8"):
            simulator.predict(sample)


def test_uint8_samples_are_decoded_with_two_roundings() -> None:
    model = small()
    encoding = model.adaptation.encoding
    sample = random_samples(model, 0, 1)[0][0]
    decoded = sample.astype(np.float32) * np.float32(encoding.scale[0]) + np.float32(encoding.offset[0])
    floats = with_adaptation(model, encoding=dataclasses.replace(encoding, kind="float32", scale=(), offset=()))
    assert Simulator(floats).predict(decoded).tobytes() == Simulator(model).predict(sample).tobytes()


def test_step_sizes_per_channel_are_factors_of_the_update() -> None:
    """Of a convolution by filter and input channel, of a shift by its channel; 0 leaves the weight as it is."""
    model = small(attention=False)
    layers = [layer.name for layer in model.graph.layers]
    rng = np.random.default_rng(0)
    tables = {"alpha_in": {}, "alpha_out": {}}
    for layer in model.graph.layers:
        for side, channels in zip(tables, layer.attention_channels(model.graph.shapes[layer.input]), strict=True):
            tables[side][layer.name] = frozen_float32(rng.uniform(0.5, 2, channels).round(1))
    tables["alpha_out"][layers[-1]] = frozen_float32(np.zeros(model.adaptation.ways))
    samples, labels = random_samples(model, 0, 2)
    moved = []
    for changed in (model, with_adaptation(model, **tables)):
        simulator = Simulator(changed)
        for sample, label in zip(samples, labels, strict=True):
            simulator.adapt_sample(sample, int(label))
        simulator.end_step(2)
        moved.append({name: simulator.weights[name] - model.graph.weights[name] for name in model.graph.weights})
    plain, scaled = moved
    for layer in model.graph.layers:
        by_in, by_out = (tables[side][layer.name] for side in ("alpha_in", "alpha_out"))
        for number, name in enumerate(layer.weight_names):
            factor = by_out.reshape(-1, *[1] * (plain[name].ndim - 1))
            if number == 0:
                factor = factor * (by_in if plain[name].ndim == 1 else by_in.reshape(-1, *[1] * (plain[name].ndim - 2)))
            assert np.abs(plain[name]).max() > 1e-6
            np.testing.assert_allclose(scaled[name], plain[name] * factor, rtol=1e-3, atol=1e-6)
