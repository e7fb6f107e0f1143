"""Training tasks: what is drawn, and what augmentation does to the pixels."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from pmeta.codegen.adaptation import InputEncoding  # noqa: E402
from pmeta.codegen.errors import ConfigError, DataError  # noqa: E402
from pmeta.trainer.augmentation import Augmentation  # noqa: E402
from pmeta.trainer.config import AugmentationConfig, TaskConfig  # noqa: E402
from pmeta.trainer.datasets.base import ClassSamples  # noqa: E402
from pmeta.trainer.encoding import decode  # noqa: E402
from pmeta.trainer.sampler import TaskSampler  # noqa: E402

pytestmark = pytest.mark.unit

TASK = TaskConfig(ways=3, shots=2, queries=1)
PLAIN = InputEncoding("uint8", (1.0, 1.0), (0.0, 0.0))


def data(classes: int = 5, per_class: int = 4, size: tuple[int, int] = (6, 6)) -> ClassSamples:
    """Two channels; every pixel of the set differs from its neighbours."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (classes * per_class, 2, *size), dtype=np.uint8)
    labels = np.arange(classes, dtype=np.int64).repeat(per_class)
    return ClassSamples(images, labels, tuple(map(str, range(classes))))


def sampler(source: ClassSamples, **augmentation: Any) -> TaskSampler:
    return TaskSampler(source, TASK, AugmentationConfig(**augmentation), PLAIN, torch.device("cpu"))


def test_draws_are_distinct_classes_and_samples() -> None:
    source = data()
    draw = sampler(source).draw(seed=1, iteration=0, tasks=50)
    labels = source.labels[draw.samples]
    assert (labels == labels[:, :, :1]).all()  # a class's samples are of one class
    assert all(len(set(row)) == TASK.ways for row in labels[:, :, 0])
    assert all(len(set(samples)) == 3 for task in draw.samples for samples in task)
    assert set(labels.ravel()) == set(range(5))


def test_tasks_of_one_family_are_drawn_where_they_are_asked_for() -> None:
    source, task = replace(data(classes=7), families=(0, 1, 0, 1, 0, 1, 2)), replace(TASK, same_family=1.0)
    subject = TaskSampler(source, task, AugmentationConfig(), PLAIN, torch.device("cpu"))
    labels = source.labels[subject.draw(seed=1, iteration=0, tasks=50).samples]
    assert {frozenset(row) for row in labels[:, :, 0]} == {frozenset({0, 2, 4}), frozenset({1, 3, 5})}


def test_a_draw_depends_on_seed_and_iteration_alone() -> None:
    one, two = (sampler(data(), shift=2, angle=10, zoom=0.1) for _ in range(2))
    for _ in range(3):
        two.draw(1, 0, 4)
    a, b = one.draw(1, 7, 4), two.draw(1, 7, 4)
    assert np.array_equal(a.samples, b.samples)
    for mine, other in zip(vars(a.changes).values(), vars(b.changes).values(), strict=True):
        assert np.array_equal(mine, other)
    assert not np.array_equal(one.draw(1, 7, 4).samples, one.draw(1, 8, 4).samples)
    assert not np.array_equal(one.draw(1, 7, 4).samples, one.draw(2, 7, 4).samples)


def test_augmentation_against_numpy() -> None:
    """Every symmetry and many shifts; edges repeat."""
    source = data()
    subject = sampler(source, shift=2, rotate_classes=True, flip_classes=True)
    symmetries = set()
    for iteration in range(4):
        draw = subject.draw(0, iteration, 8)
        batch = subject.gather(draw)
        x = torch.cat([batch.support_x.unflatten(1, (3, 2)), batch.query_x.unflatten(1, (3, 1))], dim=2)
        for t, way, sample in np.ndindex(draw.samples.shape):
            expected = transformed(source.samples[draw.samples[t, way, sample]], int(draw.changes.symmetry[t, way]),
                                   draw.changes.shift[t, way, sample])  # fmt: skip
            assert np.array_equal(x[t, way, sample].numpy(), expected)
        symmetries |= set(draw.changes.symmetry.ravel())
    assert symmetries == set(range(8))


def test_a_quarter_turn_of_samples_is_a_quarter_turn() -> None:
    """A warp of exactly 90 degrees moves pixels onto pixels."""
    source = data()
    augmentation = Augmentation(AugmentationConfig(angle=90), source.shape, torch.device("cpu"))
    raw = torch.from_numpy(source.samples[:1].copy())[None, None]
    changes = replace(
        augmentation.draw((1, 1, 1), np.random.default_rng(0)),
        warp=np.array([[0, -1], [1, 0]], np.float32)[None, None, None],
    )
    turned = augmentation.apply(raw, changes)[0, 0, 0].numpy()
    assert any(np.allclose(turned, np.rot90(source.samples[0], turns, axes=(1, 2)), atol=1e-3) for turns in (1, 3))


def test_channels_are_negated_for_a_whole_class() -> None:
    source = data()
    subject = sampler(source, negate_channels=True)
    draw = subject.draw(0, 0, 20)
    batch = subject.gather(draw)
    x = torch.cat([batch.support_x.unflatten(1, (3, 2)), batch.query_x.unflatten(1, (3, 1))], dim=2).numpy()
    plain = source.samples[draw.samples]
    negated = draw.changes.negated
    assert negated is not None and negated.shape == (20, 3, 2) and 0.3 < negated.mean() < 0.7
    expected = np.where(negated[:, :, None, :, None, None], 255 - plain, plain)
    np.testing.assert_array_equal(x, expected)


def test_series_are_negated_and_shifted_like_pictures_of_one_row() -> None:
    series = torch.randn(2, 3, 4, 5, 9)  # (T, ways, S, C, L)
    config = AugmentationConfig(negate_channels=True, shift=2)
    as_series, as_pictures = (Augmentation(config, shape, torch.device("cpu")) for shape in ((5, 9), (5, 1, 9)))
    changes = as_series.draw((2, 3, 4), np.random.default_rng(0))
    changed = as_series.apply(series, changes)
    assert changed.shape == series.shape
    assert torch.equal(changed[:, :, :, :, None], as_pictures.apply(series[:, :, :, :, None], changes))
    alone = replace(config, shift=0)
    unmoved = Augmentation(alone, (5, 9), torch.device("cpu")).apply(series, replace(changes, shift=0 * changes.shift))
    assert changes.negated is not None
    assert torch.equal(unmoved, series * torch.from_numpy(np.where(changes.negated, -1, 1))[:, :, None, :, None])
    with pytest.raises(ConfigError, match="not single features"):
        Augmentation(config, (5,), torch.device("cpu"))


def test_warps_stay_in_their_range() -> None:
    limits = {"angle": 10.0, "zoom": 0.2, "shear": 0.3}
    augmentation = Augmentation(AugmentationConfig(**limits), (1, 6, 6), torch.device("cpu"))
    warp = augmentation.draw((20, 5, 10), np.random.default_rng(0)).warp
    assert warp is not None
    area = np.abs(np.linalg.det(warp))  # a turn and a slant keep it
    assert 1 / 1.2**2 <= area.min() < 0.8 and 1.3 < area.max() <= 1 / 0.8**2
    no_slant = Augmentation(AugmentationConfig(angle=10.0), (1, 6, 6), torch.device("cpu"))
    turns = no_slant.draw((20, 5, 10), np.random.default_rng(0)).warp
    assert turns is not None and 9 < np.rad2deg(np.arccos(turns[..., 0, 0])).max() <= 10


def test_a_class_is_warped_as_a_whole() -> None:
    limits = {"class_angle": 40.0, "class_zoom": 0.2, "class_shear": 0.3}
    of_class = Augmentation(AugmentationConfig(**limits), (1, 6, 6), torch.device("cpu"))
    warp = of_class.draw((20, 5, 10), np.random.default_rng(0)).warp
    assert warp is not None and warp.shape == (20, 5, 10, 2, 2)
    np.testing.assert_array_equal(warp, warp[:, :, :1].repeat(10, 2))
    assert len(np.unique(warp[:, :, 0, 0, 0])) == 100
    both = Augmentation(AugmentationConfig(**limits, angle=10.0), (1, 6, 6), torch.device("cpu"))
    mixed = both.draw((20, 5, 10), np.random.default_rng(0)).warp
    assert mixed is not None
    apart = np.linalg.inv(mixed[:, :, :1]) @ mixed  # a sample's turn, less that of the first
    np.testing.assert_allclose(np.linalg.det(apart), 1, rtol=1e-4)
    assert 15 < np.rad2deg(np.arccos(apart[..., 0, 0].clip(-1, 1))).max() <= 20.1


@pytest.mark.parametrize("size", [(6, 6), (4, 8), (9, 5)])
def test_a_picture_bent_alike_everywhere_is_shifted(size: tuple[int, int]) -> None:
    """One pixel down and two to the left, by the lattice; edges repeat."""
    source = data(size=size)
    augmentation = Augmentation(AugmentationConfig(bend=2.0), source.shape, torch.device("cpu"))
    raw = torch.from_numpy(source.samples[:1].copy())[None, None]
    still = augmentation.draw((1, 1, 1), np.random.default_rng(0))
    bend = np.zeros_like(still.bend)
    bend[..., 0, :, :], bend[..., 1, :, :] = 2, -1  # target to source: columns, rows
    changes = replace(still, shift=np.zeros_like(still.shift), bend=bend)
    padded = np.pad(source.samples[0], ((0, 0), (1, 0), (0, 2)), mode="edge")[:, : size[0], 2:]
    np.testing.assert_allclose(augmentation.apply(raw, changes)[0, 0, 0], padded, atol=1e-3)


def test_bends_of_a_class_and_of_its_samples() -> None:
    def drawn(**limits: float) -> Any:
        augmentation = Augmentation(AugmentationConfig(**limits), (1, 6, 6), torch.device("cpu"))
        return augmentation.draw((20, 5, 3), np.random.default_rng(0)).bend

    alike, apart = drawn(class_bend=1.5), drawn(bend=1.5)
    np.testing.assert_array_equal(alike, alike[:, :, :1].repeat(3, 2))
    assert (apart[:, :, 0] != apart[:, :, 1]).all()
    for bend in (alike, apart):
        assert bend.shape == (20, 5, 3, 2, 4, 4) and 1.4 < np.abs(bend).max() <= 1.5
    assert drawn(angle=10.0) is None


def test_a_share_of_the_tasks_keeps_all_their_changes() -> None:
    source = data()
    subject = sampler(source, shift=2, angle=10, class_angle=20, bend=1, rotate_classes=True, negate_channels=True)
    draw = subject.draw(0, 0, 6)
    whole, part = subject.gather(draw), subject.gather(draw.share(slice(2, 5)))
    for of_all, of_share in zip(whole.tensors(), part.tensors(), strict=True):
        assert torch.equal(of_all[2:5], of_share)


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
            number = int((source.samples == x.numpy()).all((1, 2, 3)).argmax())
            assert source.labels[number] == source.labels[draw.samples[t, int(one_hot.argmax()), 0]]


def test_without_augmentation_pixels_stay() -> None:
    source = data(size=(4, 6))
    subject = sampler(source)
    draw = subject.draw(0, 0, 3)
    batch = subject.gather(draw)
    assert np.array_equal(batch.query_x.flatten(0, 1).numpy(), source.samples[draw.samples[:, :, 2].ravel()])


def test_impossible_data_is_refused() -> None:
    with pytest.raises(DataError, match=r"3 classes with 2 . 1 samples each, there are 2"):
        sampler(data(classes=2))
    with pytest.raises(ConfigError, match="4x6 cannot be rotated"):
        sampler(data(size=(4, 6)), rotate_classes=True)


def test_decoding_rounds_twice() -> None:
    """First the product, then the sum, each to float32."""
    scale, offset = np.float32(0.0123), np.float32(-0.7)
    raw = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 256)
    expected = (np.arange(256, dtype=np.float32) * scale).astype(np.float32) + offset
    got = decode(raw, InputEncoding("uint8", (float(scale),), (float(offset),)))
    assert np.array_equal(got.numpy().ravel(), expected)
