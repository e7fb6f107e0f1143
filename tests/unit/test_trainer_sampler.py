"""Training tasks: what is drawn, and what augmentation does to the pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from pmeta.codegen.adaptation import InputEncoding  # noqa: E402
from pmeta.codegen.errors import DataError  # noqa: E402
from pmeta.trainer.config import AugmentationConfig, TaskConfig  # noqa: E402
from pmeta.trainer.datasets.base import ClassImages  # noqa: E402
from pmeta.trainer.encoding import decode  # noqa: E402
from pmeta.trainer.sampler import TaskSampler  # noqa: E402

pytestmark = pytest.mark.unit

TASK = TaskConfig(ways=3, shots=2, queries=1)
PLAIN = InputEncoding("uint8", (1.0, 1.0), (0.0, 0.0))


def data(classes: int = 5, per_class: int = 4, size: tuple[int, int] = (6, 6)) -> ClassImages:
    """Two channels; every pixel of the set differs from its neighbours."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (classes * per_class, 2, *size), dtype=np.uint8)
    labels = np.arange(classes, dtype=np.int64).repeat(per_class)
    return ClassImages(images, labels, tuple(map(str, range(classes))))


def sampler(source: ClassImages, **augmentation: Any) -> TaskSampler:
    return TaskSampler(source, TASK, AugmentationConfig(**augmentation), PLAIN, torch.device("cpu"))


def test_draws_are_distinct_classes_and_samples() -> None:
    source = data()
    draw = sampler(source).draw(seed=1, iteration=0, tasks=50)
    labels = source.labels[draw.images]
    assert (labels == labels[:, :, :1]).all()  # a class's samples are of one class
    assert all(len(set(row)) == TASK.ways for row in labels[:, :, 0])
    assert all(len(set(samples)) == 3 for task in draw.images for samples in task)
    assert set(labels.ravel()) == set(range(5))


def test_a_draw_depends_on_seed_and_iteration_alone() -> None:
    one, two = sampler(data(), shift=2), sampler(data(), shift=2)
    for _ in range(3):
        two.draw(1, 0, 4)
    for a, b in zip(vars(one.draw(1, 7, 4)).values(), vars(two.draw(1, 7, 4)).values(), strict=True):
        assert np.array_equal(a, b)
    assert not np.array_equal(one.draw(1, 7, 4).images, one.draw(1, 8, 4).images)
    assert not np.array_equal(one.draw(1, 7, 4).images, one.draw(2, 7, 4).images)


def test_augmentation_against_numpy() -> None:
    """Every symmetry and many shifts; edges repeat."""
    source = data()
    subject = sampler(source, shift=2, rotate_classes=True, flip_classes=True)
    symmetries = set()
    for iteration in range(4):
        draw = subject.draw(0, iteration, 8)
        batch = subject.gather(draw)
        x = torch.cat([batch.support_x.unflatten(1, (3, 2)), batch.query_x.unflatten(1, (3, 1))], dim=2)
        for t, way, sample in np.ndindex(draw.images.shape):
            expected = transformed(source.images[draw.images[t, way, sample]], int(draw.symmetry[t, way]),
                                   draw.shift[t, way, sample])  # fmt: skip
            assert np.array_equal(x[t, way, sample].numpy(), expected)
        symmetries |= set(draw.symmetry.ravel())
    assert symmetries == set(range(8))


def transformed(image: np.ndarray, symmetry: int, shift: np.ndarray) -> np.ndarray:
    if symmetry >= 4:
        image = image[:, :, ::-1]
    image = np.rot90(image, symmetry % 4, axes=(1, 2))
    padded = np.pad(image, ((0, 0), (2, 2), (2, 2)), mode="edge")
    height, width = image.shape[1:]
    top, left = 2 - shift[0], 2 - shift[1]
    return padded[:, top : top + height, left : left + width]


def test_labels_belong_to_the_samples() -> None:
    source = data()
    subject = sampler(source)
    draw = subject.draw(0, 0, 2)
    batch = subject.gather(draw)
    for t in range(2):
        for x, one_hot in zip(batch.support_x[t], batch.support_y[t], strict=True):
            number = int((source.images == x.numpy()).all((1, 2, 3)).argmax())
            assert source.labels[number] == source.labels[draw.images[t, int(one_hot.argmax()), 0]]


def test_without_augmentation_pixels_stay() -> None:
    source = data(size=(4, 6))
    subject = sampler(source)
    draw = subject.draw(0, 0, 3)
    batch = subject.gather(draw)
    assert np.array_equal(batch.query_x.flatten(0, 1).numpy(), source.images[draw.images[:, :, 2].ravel()])


def test_impossible_data_is_refused() -> None:
    with pytest.raises(DataError, match="only 2 classes have 3 samples"):
        sampler(data(classes=2))
    with pytest.raises(DataError, match="4x6 cannot be rotated"):
        sampler(data(size=(4, 6)), rotate_classes=True)


def test_decoding_rounds_twice() -> None:
    """First the product, then the sum, each to float32."""
    scale, offset = np.float32(0.0123), np.float32(-0.7)
    raw = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 256)
    expected = (np.arange(256, dtype=np.float32) * scale).astype(np.float32) + offset
    got = decode(raw, InputEncoding("uint8", (float(scale),), (float(offset),)))
    assert np.array_equal(got.numpy().ravel(), expected)
