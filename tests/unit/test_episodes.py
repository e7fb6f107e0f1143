"""Samples with their classes, and the episodes that are drawn from them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmeta.codegen.errors import DataError
from pmeta.trainer.datasets.base import ONLY_QUERY, ONLY_SUPPORT, ClassSamples
from pmeta.trainer.datasets.episodes import TaskDrawer, sample_episode
from pmeta.trainer.datasets.picture import draw_episode

pytestmark = pytest.mark.unit


def numbered(class_sizes: list[int]) -> ClassSamples:
    """Images whose pixel values are their own index, in shuffled label order."""
    labels = np.random.default_rng(1).permutation(np.repeat(np.arange(len(class_sizes)), class_sizes))
    images = np.arange(len(labels), dtype=np.uint8)[:, None, None, None].repeat(2, axis=2)
    return ClassSamples(images, labels.astype(np.int64), tuple(f"class {label}" for label in range(len(class_sizes))))


def test_class_samples_are_checked() -> None:
    good = numbered([2, 3])
    for images, labels, names in (
        (good.samples.astype(np.int32), good.labels, good.class_names),
        (good.samples[:, 0], good.labels, good.class_names),
        (good.samples, good.labels[:-1], good.class_names),
        (good.samples, good.labels.astype(np.int32), good.class_names),
        (good.samples, good.labels, ("only one",)),
        (good.samples, good.labels, ("a", "b", "without images")),
    ):
        with pytest.raises(ValueError):
            ClassSamples(images, labels, names)
    for domains, roles in (((0,), None), ((), good.labels), ((), np.zeros(2, np.uint8))):
        with pytest.raises(ValueError):
            ClassSamples(good.samples, good.labels, good.class_names, domains, roles)
    with pytest.raises(ValueError, match="1 families of 2 classes"):
        replace(good, families=(0,))
    with pytest.raises(ValueError):
        good.samples[0] = 1


def test_subset_relabels_in_the_order_given() -> None:
    data = numbered([2, 3, 4])
    part = replace(data, domains=(3, 4, 5), families=(6, 7, 8)).subset([2, 0])
    assert part.class_names == ("class 2", "class 0")
    assert (part.domains, part.families) == ((5, 3), (8, 6))
    for new, old in ((0, 2), (1, 0)):
        np.testing.assert_array_equal(part.samples[part.labels == new], data.samples[data.labels == old])
    for classes in ([0, 0], [3], [-1]):
        with pytest.raises(ValueError):
            data.subset(classes)


@given(
    ways=st.integers(1, 6),
    shots=st.integers(1, 4),
    queries=st.integers(1, 4),
    spare=st.lists(st.integers(0, 5), min_size=6, max_size=8),
    seed=st.integers(0, 2**32 - 1),
)
def test_episode(ways: int, shots: int, queries: int, spare: list[int], seed: int) -> None:
    data = numbered([shots + queries + extra for extra in spare])
    episode = sample_episode(data, ways, shots, queries, np.random.default_rng(seed))
    again = sample_episode(data, ways, shots, queries, np.random.default_rng(seed))
    np.testing.assert_array_equal(episode.support_x, again.support_x)

    assert episode.support_y.tolist() == list(range(ways)) * shots
    assert episode.query_y.tolist() == list(range(ways)) * queries
    assert len(set(episode.class_names)) == ways
    support, query = episode.support_x[:, 0, 0, 0], episode.query_x[:, 0, 0, 0]
    assert len({*support.tolist(), *query.tolist()}) == ways * (shots + queries)
    for indices, labels in ((support, episode.support_y), (query, episode.query_y)):
        for index, label in zip(indices, labels, strict=True):
            assert data.class_names[data.labels[index]] == episode.class_names[label]


def test_every_class_gets_every_label() -> None:
    data = numbered([2] * 4)
    seen = {
        (name, label)
        for seed in range(200)
        for label, name in enumerate(sample_episode(data, 3, 1, 1, np.random.default_rng(seed)).class_names)
    }
    assert len(seen) == 4 * 3


def test_episode_that_cannot_be_drawn_is_refused() -> None:
    data = numbered([5, 5])
    with pytest.raises(DataError, match=r"the data: a task needs 3 classes with 1 . 1 samples each, there are 2 among"):
        sample_episode(data, 3, 1, 1, np.random.default_rng(0))
    with pytest.raises(DataError, match=r"a task needs 2 classes with 3 . 3 samples each, there are 0"):
        sample_episode(data, 2, 3, 3, np.random.default_rng(0))
    with pytest.raises(ValueError):
        sample_episode(data, 2, 0, 1, np.random.default_rng(0))


def test_a_task_stays_in_one_domain_and_keeps_its_order() -> None:
    data = numbered([4] * 6)
    data = replace(data, domains=(0, 1, 0, 1, 0, 1), fixed_order=True)
    drawn = {sample_episode(data, 3, 1, 1, np.random.default_rng(seed)).class_names for seed in range(20)}
    assert drawn == {("class 0", "class 2", "class 4"), ("class 1", "class 3", "class 5")}
    with pytest.raises(DataError, match="there are 3"):
        sample_episode(data, 4, 1, 1, np.random.default_rng(0))


def drawn_classes(data: ClassSamples, same_family: float, tasks: int = 200) -> list[set[int]]:
    drawer = TaskDrawer(data, 2, 1, 1, same_family)
    return [set(drawer.draw(np.random.default_rng(seed)).classes.tolist()) for seed in range(tasks)]


def test_a_share_of_the_tasks_stays_in_one_family() -> None:
    data = replace(numbered([4] * 7), families=(0, 1, 2, 0, 1, 2, 3))  # the last one is too small for a task
    families = [{0, 3}, {1, 4}, {2, 5}]
    always = drawn_classes(data, 1.0)
    assert all(classes in families for classes in always) and all(family in always for family in families)
    half = sum(classes in families for classes in drawn_classes(data, 0.5)) / 200
    chance = 3 / 21  # of the pairs that there are
    assert abs(half - (0.5 + 0.5 * chance)) < 0.1
    assert drawn_classes(data, 0.0) == drawn_classes(replace(data, families=()), 0.0)
    assert any(6 in classes for classes in drawn_classes(data, 0.5))


def test_families_do_not_reach_over_domains() -> None:
    data = replace(numbered([4] * 6), families=(0, 0, 0, 0, 1, 1), domains=(0, 1, 0, 1, 0, 1))
    assert all(classes in ({0, 2}, {1, 3}) for classes in drawn_classes(data, 1.0))


def test_tasks_of_one_family_need_families_that_are_large_enough() -> None:
    data = numbered([4] * 4)
    with pytest.raises(DataError, match=r"has no families; set task\.same_family = 0, or lower"):
        TaskDrawer(data, 2, 1, 1, 0.5)
    with pytest.raises(DataError, match="no family has 3 classes with enough samples"):
        TaskDrawer(replace(data, families=(0, 0, 1, 1)), 3, 1, 1, 0.5)


@given(seed=st.integers(0, 2**32 - 1))
def test_samples_keep_to_their_roles(seed: int) -> None:
    data = numbered([8] * 3)
    roles = np.random.default_rng(seed).integers(0, 3, 24).astype(np.uint8)
    try:
        drawer = TaskDrawer(replace(data, roles=roles), 2, 2, 2)
    except DataError:
        return
    for number in range(5):
        drawn = drawer.draw(np.random.default_rng([seed, number]))
        assert not (roles[drawn.support] == ONLY_QUERY).any() and not (roles[drawn.query] == ONLY_SUPPORT).any()
        assert len(np.unique(np.concatenate([drawn.support, drawn.query], axis=1))) == 8
        assert (data.labels[drawn.support] == drawn.classes[:, None]).all()


def test_picture_shows_every_support_sample() -> None:
    empty = numbered([8] * 5)
    blank = ClassSamples(np.zeros((40, 1, 28, 28), np.uint8), empty.labels, ("", "", "", "", ""))
    inked = ClassSamples(np.full((40, 1, 28, 28), 255, np.uint8), empty.labels, ("", "", "", "", ""))
    pictures = [
        np.asarray(draw_episode(sample_episode(data, 5, 5, 3, np.random.default_rng(0)))) for data in (blank, inked)
    ]
    changed = (pictures[0] != pictures[1]).any(axis=-1)
    shown_queries = 2 * 7
    assert abs(int(changed.sum()) - (25 + shown_queries) * (28 * 3) ** 2) < 0.01 * changed.sum()


@pytest.mark.parametrize(("ways", "numbers"), [(5, False), (6, True)])
def test_classes_that_share_a_colour_have_numbers(ways: int, numbers: bool) -> None:
    """Queries of class 1 and class 6 have the same colour; with six ways, their tiles differ."""
    labels = np.arange(ways, dtype=np.int64).repeat(8)
    data = ClassSamples(np.zeros((8 * ways, 1, 28, 28), np.uint8), labels, ("",) * ways)
    picture = np.asarray(draw_episode(sample_episode(data, ways, 5, 3, np.random.default_rng(0))))
    tile, step, left = 28 * 3 + 24, 28 * 3 + 36, 40  # queries: two rows at the bottom
    tops = [picture.shape[0] - 40 - tile - row * step for row in (0, 1)]
    corners = [picture[top : top + 12, left + n * step : left + n * step + 30] for top in tops for n in range(7)]
    written = [len(np.unique(corner.reshape(-1, 3), axis=0)) > 4 for corner in corners]
    assert any(written) == numbers
