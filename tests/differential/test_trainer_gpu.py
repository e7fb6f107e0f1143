"""A GPU trains and evaluates as the CPU does.

    python -m pytest tests/differential/test_trainer_gpu.py

Each test also runs on the CPU, and then holds what it asks of a GPU against the CPU itself: without a GPU, that half
alone.
"""

from __future__ import annotations

import sysconfig
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import Tensor  # noqa: E402
from torch.utils._pytree import tree_leaves, tree_map  # noqa: E402

from pmeta.codegen.adaptation import InputEncoding  # noqa: E402
from pmeta.trainer.config import Config, config_from_dict  # noqa: E402
from pmeta.trainer.datasets.base import ClassSamples  # noqa: E402
from pmeta.trainer.evaluation import evaluate  # noqa: E402
from pmeta.trainer.meta_learner import MetaLearner  # noqa: E402
from pmeta.trainer.methods import METHODS  # noqa: E402
from pmeta.trainer.objective import TaskBatch, meta_gradient  # noqa: E402
from pmeta.trainer.tasks import fixed_tasks  # noqa: E402
from pmeta.trainer.training import Progress, Training  # noqa: E402

HEADERS = Path(sysconfig.get_path("include")) / "Python.h"
NEEDS_HEADERS = pytest.mark.skipif(not HEADERS.exists(), reason="Python's C headers are not installed")
NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU here")
pytestmark = [
    pytest.mark.differential,
    pytest.mark.parametrize("kind", ["cpu", pytest.param("cuda", marks=NO_GPU)]),
]
CPU = torch.device("cpu")
SHAPE = (1, 16, 16)
ENCODING = InputEncoding("uint8", (0.02,), (-2.5,))
TASKS, WAYS = 4, 3
CLOSE = 1e-4  # of a gradient's length: two devices add in different orders, and the gradient is of second order


def config(method: dict[str, Any] | None = None, training: dict[str, Any] | None = None, blocks: int = 2) -> Config:
    table = {
        "task": {"ways": WAYS, "shots": 2, "queries": 3},
        "network": {"width": 8, "groups": 4, "blocks": blocks},
        "method": {"name": "p-meta-3.2+3.3", "steps": 3, "alpha": 0.1} | (method or {}),
        "training": {
            "iterations": 8, "tasks_per_batch": TASKS, "learning_rate": 0.005, "multi_step_iterations": 2,
            "first_order_iterations": 3, "validate_every": 4, "validation_tasks": 4, "checkpoint_every": 4,
        } | (training or {}),
        "augmentation": {"shift": 1, "rotate_classes": True, "flip_classes": True},
    }  # fmt: skip
    return config_from_dict(table, "test")


def images(seed: int, classes: int = 8, per_class: int = 6) -> ClassSamples:
    """Classes that differ in where they are bright, with noise."""
    rng = np.random.default_rng(seed)
    bright = rng.random((classes, 1, 1, 4, 4)).repeat(4, 3).repeat(4, 4) > 0.5
    pixels = bright * 150 + rng.integers(0, 100, (classes, per_class, *SHAPE))
    labels = np.arange(classes, dtype=np.int64).repeat(per_class)
    return ClassSamples(pixels.astype(np.uint8).reshape(-1, *SHAPE), labels, tuple(f"c{i}" for i in range(classes)))


def random_tasks(seed: int, device: torch.device) -> TaskBatch:
    generator = torch.Generator().manual_seed(seed)
    x, query_x = (torch.randn(TASKS, WAYS * n, *SHAPE, generator=generator).to(device) for n in (2, 3))
    y, query_y = (torch.eye(WAYS, device=device).repeat(n, 1).expand(TASKS, -1, -1) for n in (2, 3))
    return TaskBatch(x, y, query_x, query_y)


def flat(tree: Any) -> Tensor:
    return torch.cat([leaf.flatten() for leaf in tree_leaves(tree)]).double().cpu()


def distance(found: Tensor, expected: Tensor) -> float:
    """Relative to the length of `expected`."""
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("method", METHODS)
def test_gradient_is_that_of_float64(kind: str, method: str) -> None:
    """Tasks as the device batches them, in float32, against one after the other in float64 on the CPU."""
    device = torch.device(kind)
    here, reference = (MetaLearner(config({"name": method}), SHAPE, where) for where in (device, CPU))
    gradient, losses, _ = meta_gradient(here.inner, here.meta, random_tasks(1, device))
    in_float64 = tree_map(Tensor.double, reference.meta)
    tasks = TaskBatch(*(part.double() for part in random_tasks(1, CPU).tensors()))
    expected, expected_losses, _ = meta_gradient(reference.inner, in_float64, tasks, batching="loop")
    assert distance(flat(gradient), flat(expected)) < CLOSE
    torch.testing.assert_close(losses.double().cpu(), expected_losses, rtol=1e-4, atol=0)


def test_graphs_replay_what_single_kernels_compute(kind: str) -> None:
    """Every kind of iteration, the clipped gradient's norm and the price of step sizes among them."""
    device = torch.device(kind)
    settings = config({"penalty": 3.0}, {"clip_norm": 0.5})
    single = replace(settings, training=replace(settings.training, cuda_graph=False))
    learners = [MetaLearner(one, SHAPE, device) for one in (settings, single)]
    start = flat(learners[0].meta)
    for iteration in range(6):  # all steps' losses and first order; first order; second order
        reports = [learner.step(random_tasks(iteration, device), iteration) for learner in learners]
        assert reports[0].loss == pytest.approx(reports[1].loss, rel=CLOSE)
        assert reports[0].zeros == reports[1].zeros
    ends = [flat(learner.meta) for learner in learners]
    assert distance(ends[0] - start, ends[1] - start) < 0.02
    torch.testing.assert_close(learners[0].meta["alpha"], learners[1].meta["alpha"], rtol=0, atol=1e-3)


@NEEDS_HEADERS
def test_a_compiled_step_is_the_same(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In machine code, by PyTorch's own compiler: others leave in what it simplifies."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    device = torch.device(kind)
    torch._dynamo.reset()
    both = [config({"name": "maml++", "steps": 1}, {"compile": compiled}, blocks=1) for compiled in (True, False)]
    learners = [MetaLearner(one, SHAPE, device) for one in both]
    for iteration in (5, 6):
        reports = [learner.step(random_tasks(iteration, device), iteration) for learner in learners]
        assert reports[0].loss == pytest.approx(reports[1].loss, rel=CLOSE)
    torch.testing.assert_close(flat(learners[0].meta), flat(learners[1].meta), rtol=0, atol=1e-3)


def test_tf32_is_bounded_and_stays_inside(kind: str) -> None:
    """docs/training.md: query loss within 2 %, gradient within 25 degrees; what follows is float32 again."""
    device, found = torch.device(kind), []
    for precision in ("float32", "tf32"):
        learner = MetaLearner(config({"name": "maml"}, {"precision": precision}), SHAPE, device)
        loss = learner.step(random_tasks(2, device), 7).loss
        found.append((loss, torch.cat([leaf.grad.flatten() for leaf in tree_leaves(learner.meta)])))
        assert not torch.backends.cuda.matmul.allow_tf32
    (loss, expected), (other_loss, other) = found
    assert other_loss == pytest.approx(loss, rel=0.02)
    assert torch.nn.functional.cosine_similarity(expected, other, 0) > 0.906


def test_a_run_resumes_and_follows_the_cpu(kind: str, tmp_path: Path) -> None:
    """A run on the device, interrupted and resumed, against one on the CPU: the same tasks, nearly the same curve."""

    class Interrupted(Exception):
        pass

    def interrupt(progress: Progress) -> None:
        if progress.iteration == 5:
            raise Interrupted

    curves: dict[str, list[float]] = {}

    def note(name: str) -> Any:
        return lambda progress: curves.setdefault(name, []).append(progress.report.loss)

    Training(config(), images(0), images(1), tmp_path / "cpu", CPU).run(note("cpu"))
    with pytest.raises(Interrupted):
        Training(config(), images(0), images(1), tmp_path / "here", torch.device(kind)).run(interrupt)
    resumed = Training(config(), images(0), images(1), tmp_path / "here", torch.device(kind))
    resumed.resume()
    assert resumed.iteration == 4
    resumed.run(note("here"))
    assert curves["here"] == pytest.approx(curves["cpu"][4:], rel=0.02)


def test_evaluation_finds_the_same(kind: str) -> None:
    device = torch.device(kind)
    tasks = fixed_tasks(images(2), WAYS, 2, 4, 20, 1)
    found = []
    for where in (device, CPU):
        learner = MetaLearner(config(), SHAPE, where)
        found.append(evaluate(learner.inner, learner.meta, iter(tasks), ENCODING, 1, where))
    assert found[0].after == pytest.approx(found[1].after, abs=2 / (20 * WAYS * 4))  # two queries near a boundary
    assert found[0].loss == pytest.approx(found[1].loss, rel=CLOSE)
