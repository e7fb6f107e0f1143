"""Fig. 5 in numbers: what adaptation updates, and how alike samples are in it, against the simulator's γ."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from pmeta.codegen.adaptation import Model  # noqa: E402
from pmeta.codegen.errors import UnsupportedError  # noqa: E402
from pmeta.codegen.modelfile import save_model  # noqa: E402
from pmeta.codegen.taskfile import Task  # noqa: E402
from pmeta.host.simulator import Simulator  # noqa: E402
from pmeta.trainer.channel_picture import save_picture  # noqa: E402
from pmeta.trainer.channel_statistics import ChannelStatistics, channel_statistics  # noqa: E402
from pmeta.trainer.trained import Trained, load_trained  # noqa: E402
from tests.models import random_4conv, random_samples  # noqa: E402

pytestmark = pytest.mark.unit
STEPS, WIDTH = 2, 4
LAYERS = ("conv1", "norm1", "conv2", "norm2", "conv3", "norm3", "conv4", "norm4", "fc1")


def model(attention: bool = True) -> Model:
    alpha = np.full((9, STEPS), 0.1, np.float32)
    alpha[0] = alpha[3, 0] = 0  # conv1 never learns, norm2 only in step 2
    return random_4conv(
        5,
        width=WIDTH,
        groups=2,
        ways=3,
        steps=STEPS,
        alpha=alpha,
        size=(1, 16, 16),
        rho=(300, 250),
        attention=attention,
    )


def trained(folder: Path, attention: bool = True) -> Trained:
    save_model(model(attention), folder / "model.onnx")
    return load_trained(folder / "model.onnx", torch.device("cpu"))


def tasks(count: int, samples: int) -> list[Task]:
    drawn = []
    for seed in range(count):
        x, y = random_samples(model(), seed, samples)
        drawn.append(Task(x, y.astype(np.uint8), x[:1], y[:1].astype(np.uint8), ("a", "b", "c"), str(seed)))
    return drawn


def by_simulator(task: Task) -> tuple[np.ndarray, list[dict[str, np.ndarray]]]:
    """(updating ratios (K, L), γ_l of every sample in step 1) of one task, sample by sample."""
    simulator, ratios, gammas = Simulator(model()), np.zeros((STEPS, len(LAYERS))), []
    for step in range(STEPS):
        for x, y in zip(task.support_x, task.support_y, strict=True):
            found = simulator.trace_sample(x, int(y)).gammas
            own = {}
            for number, layer in enumerate(LAYERS):
                if layer not in found:
                    continue  # it does not learn in this step
                fw, bw = (np.ones(1) if g is None else np.asarray(g) for g in (found[layer].fw, found[layer].bw))
                both, shift = (bw[:, None] * fw != 0).mean(), (bw != 0).mean()
                if layer.startswith("norm"):  # a scale and a shift per channel
                    ratios[step, number] += ((fw * bw != 0).mean() + shift) / 2
                else:
                    ratios[step, number] += both
                own[layer] = (bw[:, None] * fw).ravel()
            gammas.append(own)
        for x, y in zip(task.support_x, task.support_y, strict=True):
            simulator.adapt_sample(x, int(y))
        simulator.end_step(len(task.support_x))
    return ratios / len(task.support_x), gammas[: len(task.support_x)]


def test_updating_ratios(tmp_path: Path) -> None:
    drawn = tasks(3, 4)
    found = channel_statistics(trained(tmp_path), drawn)
    expected = np.stack([by_simulator(task)[0] for task in drawn])
    assert found.layers == LAYERS and found.tasks == 3
    np.testing.assert_allclose(found.ratio_mean, expected.mean(0), atol=1e-12)
    np.testing.assert_allclose(found.ratio_deviation, expected.std(0), atol=1e-12)
    assert found.ratio_mean[0][0] == found.ratio_mean[1][0] == found.ratio_mean[0][3] == 0
    assert 0 < found.ratio_mean[1][3] < 1 and found.ratio_mean[0][8] == 1
    assert np.max(found.ratio_deviation) > 0, "all tasks are alike: nothing is compared"


def test_similarity_of_two_samples(tmp_path: Path) -> None:
    """There is but one pair."""
    (task,) = drawn = tasks(1, 2)
    found = channel_statistics(trained(tmp_path), drawn)
    first, second = by_simulator(task)[1]
    assert [value is None for value in found.similarity_mean] == [name in ("conv1", "norm2") for name in LAYERS]
    for number, layer in enumerate(LAYERS):
        if layer in first:
            a, b = first[layer], second[layer]
            cosine = a @ b / np.sqrt((a @ a) * (b @ b))
            assert found.similarity_mean[number] == pytest.approx(cosine, abs=1e-5)
            assert found.similarity_deviation[number] == pytest.approx(0, abs=1e-12)
    assert min(value for value in found.similarity_mean if value is not None) < 0.99


def test_pairs_are_of_all_tasks(tmp_path: Path) -> None:
    """One sample in each task."""
    found = channel_statistics(trained(tmp_path), tasks(3, 1))
    assert found.pairs == 1000 and max(d for d in found.similarity_deviation if d is not None) > 0


def test_without_attention_all_that_learns_is_updated(tmp_path: Path) -> None:
    found = channel_statistics(trained(tmp_path, attention=False), tasks(2, 2))
    learns = np.array(model().adaptation.alpha.T > 0, float)
    np.testing.assert_array_equal(found.ratio_mean, learns)
    assert found.similarity_mean == tuple(1.0 if row else None for row in learns[0])


def test_one_sample_has_no_other(tmp_path: Path) -> None:
    found = channel_statistics(trained(tmp_path), tasks(1, 1))
    assert found.pairs == 0 and set(found.similarity_mean) == {None}


def test_maps_that_attention_weighs_are_refused(tmp_path: Path) -> None:
    loaded = trained(tmp_path)
    object.__setattr__(loaded.inner, "sparsify", "input")
    with pytest.raises(UnsupportedError, match="attention weighs maps"):
        channel_statistics(loaded, tasks(1, 1))


@pytest.mark.parametrize("steps", [1, 3, 5])
def test_the_picture(steps: int, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from PIL import Image

    means = tuple((0.0, 0.3, 1.0) for _ in range(steps))
    statistics = ChannelStatistics(("conv1", "norm1", "fc"), 2, 10, means, means, (None, 0.5, 1.0), (None, 0.4, 0.0))
    assert json.loads(json.dumps(statistics.as_dict()))["similarity_mean"] == [None, 0.5, 1.0]
    save_picture(statistics, tmp_path / "a.png")
    save_picture(statistics, tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with Image.open(tmp_path / "a.png") as picture:
        colours = {colour for _, colour in picture.convert("RGB").getcolors(1 << 20)}
    assert any(b > r + 80 for r, _, b in colours) and any(r > b + 80 for r, _, b in colours)  # both kinds of bars
