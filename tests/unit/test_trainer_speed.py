"""Scale: tasks batched or looped, spread over processes, read ahead; evaluation on all cores."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
import torch.multiprocessing as mp  # noqa: E402
from torch.utils._pytree import tree_leaves  # noqa: E402

from benchmarks import plain_maml  # noqa: E402
from pmeta.codegen.adaptation import InputEncoding  # noqa: E402
from pmeta.codegen.errors import ConfigError  # noqa: E402
from pmeta.trainer.ahead import Ahead  # noqa: E402
from pmeta.trainer.config import AugmentationConfig, Config, TaskConfig, config_from_dict  # noqa: E402
from pmeta.trainer.convolution import CONVOLUTIONS, Convolution  # noqa: E402
from pmeta.trainer.datasets.base import ClassSamples  # noqa: E402
from pmeta.trainer.distributed import Processes, together  # noqa: E402
from pmeta.trainer.evaluation import evaluate  # noqa: E402
from pmeta.trainer.meta_learner import MetaLearner  # noqa: E402
from pmeta.trainer.objective import TaskBatch, meta_gradient, task_loss  # noqa: E402
from pmeta.trainer.parallel import in_processes  # noqa: E402
from pmeta.trainer.sampler import TaskSampler  # noqa: E402
from pmeta.trainer.tasks import fixed_tasks  # noqa: E402
from pmeta.trainer.training import Training  # noqa: E402

pytestmark = pytest.mark.unit

CPU = torch.device("cpu")
SHAPE = (1, 8, 8)
PLAIN = InputEncoding("uint8", (0.01,), (-1.0,))


def config(**method: Any) -> Config:
    return config_from_dict(
        {
            "task": {"ways": 3, "shots": 2, "queries": 2},
            "network": {"width": 4, "groups": 2, "blocks": 2},
            "method": {"steps": 2, "alpha": 0.2} | method,
            "training": {"iterations": 6, "tasks_per_batch": 3, "validate_every": 6, "validation_tasks": 4},
            "input": {"scale": [0.01], "offset": [-1.0]},
        },
        "test",
    )


def random_tasks(tasks: int, seed: int = 0) -> TaskBatch:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.eye(3).repeat(2, 1).expand(tasks, -1, -1)
    x, query_x = (torch.randn(tasks, 6, *SHAPE, generator=generator) for _ in range(2))
    return TaskBatch(x, labels, query_x, labels)


def data(classes: int = 6) -> ClassSamples:
    samples = np.random.default_rng(0).integers(0, 256, (classes * 5, *SHAPE), dtype=np.uint8)
    labels = np.arange(classes, dtype=np.int64).repeat(5)
    return ClassSamples(samples, labels, tuple(map(str, range(classes))))


def gradient(learner: MetaLearner) -> torch.Tensor:
    return torch.cat([leaf.grad.flatten() for leaf in tree_leaves(learner.meta)])


# --- batching ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("frozen", [(), ("conv1", "norm1"), ("conv1", "norm1", "conv2", "norm2")])
@pytest.mark.parametrize("convolution", ["direct", "matmul"])
def test_batched_and_looped_tasks_give_the_same(frozen: tuple[str, ...], convolution: str) -> None:
    settings = config(frozen_layers=list(frozen))
    settings = replace(settings, training=replace(settings.training, convolution=convolution))
    learner = MetaLearner(settings, SHAPE, CPU)
    looped, batched = (meta_gradient(learner.inner, learner.meta, random_tasks(3), None, how) for how in
                       ("loop", "vmap"))  # fmt: skip
    for one, other in zip(tree_leaves(looped), tree_leaves(batched), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


class AsTf32(torch.autograd.Function):
    """Rounded to the 10 bits of mantissa that TF32 keeps of a float32."""

    @staticmethod
    def forward(_: Any, x: torch.Tensor) -> torch.Tensor:
        return ((x.contiguous().view(torch.int32) + 0x1000) & ~0x1FFF).view(torch.float32)

    @staticmethod
    def backward(_: Any, g: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return g


def test_tf32_stays_within_its_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/training.md: query loss within 2 %, gradient within 25 degrees. Emulated: the CPU has no TF32."""

    def rounded(function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        return lambda a, b, *rest: function(AsTf32.apply(a), AsTf32.apply(b), *rest)

    exact = CONVOLUTIONS["direct"]
    tf32 = Convolution(*map(rounded, (exact.forward, exact.input_gradient, exact.weight_gradient)))
    found = []
    for convolution in (exact, tf32):
        monkeypatch.setitem(CONVOLUTIONS, "direct", convolution)
        learner = MetaLearner(config(name="maml"), SHAPE, CPU)
        found.append((learner.step(random_tasks(3), 0).loss, gradient(learner)))
    (loss, expected), (other_loss, other) = found
    assert other_loss == pytest.approx(loss, rel=0.02)
    assert 0.906 < torch.nn.functional.cosine_similarity(expected, other, 0) < 1 - 1e-7


def test_a_compiled_outer_step_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced once, whatever the iteration, the loss without a graph break; what the compiler makes of it is
    PyTorch's affair."""
    compiled_parts = []

    def traced(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
        compiled_parts.append(function)
        whole = function is task_loss  # PyTorch breaks the graph before and after an optimizer's step
        return compile_(function, backend="aot_eager", fullgraph=whole, **options)

    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", traced)
    exact = config(steps=1, penalty=3.0)
    exact = replace(exact, training=replace(exact.training, clip_norm=0.1, alpha_learning_rate=0.02))
    compiled = replace(exact, training=replace(exact.training, compile=True))
    first, second = (MetaLearner(settings, SHAPE, CPU) for settings in (exact, compiled))
    assert len(compiled_parts) == 2
    torch._dynamo.reset()
    with torch._dynamo.config.patch(error_on_recompile=True):
        for iteration in range(3):
            one, other = (learner.step(random_tasks(1, iteration), iteration) for learner in (first, second))
            assert other.loss == pytest.approx(one.loss, rel=1e-4) and other.zeros == one.zeros
            torch.testing.assert_close(gradient(first), gradient(second), rtol=1e-3, atol=1e-5)
            for mine, theirs in zip(tree_leaves(second.meta), tree_leaves(first.meta), strict=True):
                torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


def test_the_benchmark_measures_the_same_computation() -> None:
    """The plain loop's loss and gradient are the trainer's."""
    settings = config(name="maml")
    learner = MetaLearner(settings, SHAPE, CPU)
    module = plain_maml.four_conv(1, 8, 4, 2, 3, blocks=2)
    with torch.no_grad():
        for parameter, weight in zip(module.parameters(), learner.meta["weights"].values(), strict=True):
            parameter.copy_(weight)
    tasks = random_tasks(3)
    labels = tasks.support_y.argmax(-1)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.0)
    loss = plain_maml.meta_step(module, optimizer, (tasks.support_x, labels, tasks.query_x, labels), 2, 0.2)
    mine, losses, _ = meta_gradient(learner.inner, learner.meta, tasks)
    assert losses.mean().item() == pytest.approx(loss, rel=1e-5)
    for parameter, expected in zip(module.parameters(), mine["weights"].values(), strict=True):
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-4, atol=1e-6)


# --- processes -----------------------------------------------------------------------------------------------


def one_of_two(rank: int, folder: str) -> None:
    """A process's part: a gradient, then a whole run; what it got, in a file."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=2)
    processes, tasks = Processes(rank, 2), random_tasks(3)
    learner = MetaLearner(config(), SHAPE, CPU, processes=processes)
    report = learner.step(TaskBatch(*(part[processes.share(3)] for part in tasks.tensors())), 0)
    model = Training(config(), data(), data(), Path(folder) / f"run{rank}", CPU, processes).run()
    weights = {name: torch.tensor(weight) for name, weight in model.graph.weights.items()}
    found = {"gradient": gradient(learner), "loss": report.loss, "weights": weights}
    torch.save(found, Path(folder) / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """(folder, what each of two processes found)."""
    folder = tmp_path_factory.mktemp("two")
    mp.spawn(one_of_two, (str(folder),), nprocs=2)
    return folder, [torch.load(folder / f"{rank}.pt") for rank in (0, 1)]


def test_two_processes_give_the_gradient_of_one(two: tuple[Path, list[dict[str, Any]]]) -> None:
    first, second = two[1]
    assert torch.equal(first["gradient"], second["gradient"])
    learner = MetaLearner(config(), SHAPE, CPU)
    report = learner.step(random_tasks(3), 0)
    expected = gradient(learner)
    assert (first["gradient"] - expected).norm() < 1e-6 * expected.norm()
    assert first["loss"] == pytest.approx(report.loss, rel=1e-6)


def test_two_processes_give_the_run_of_one(two: tuple[Path, list[dict[str, Any]]], tmp_path: Path) -> None:
    folder, (first, second) = two
    for name, weight in Training(config(), data(), data(), tmp_path, CPU).run().graph.weights.items():
        assert torch.equal(first["weights"][name], second["weights"][name])
        np.testing.assert_allclose(first["weights"][name], weight, rtol=1e-3, atol=1e-5)
    assert (folder / "run0" / "checkpoint.pt").exists()
    assert not (folder / "run1").exists()


def test_shares_are_all_tasks_once() -> None:
    shares = [list(range(7))[Processes(rank, 3).share(7)] for rank in range(3)]
    assert sorted(task for share in shares for task in share) == list(range(7))
    with pytest.raises(ConfigError, match="4 processes, but only 3 tasks"):
        Processes(0, 4).share(3)


def test_without_torchrun_there_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with together(CPU) as processes:
        assert processes.first and processes.count == 1
        assert processes.any(True, CPU) and not processes.any(False, CPU)


# --- reading ahead -------------------------------------------------------------------------------------------


def test_ahead_keeps_the_order_and_the_depth() -> None:
    made: list[int] = []
    with Ahead(lambda number: made.append(number) or number, range(2, 9), depth=3) as items:
        assert next(items) == 2
        assert list(items) == [3, 4, 5, 6, 7, 8]
    assert made == [2, 3, 4, 5, 6, 7, 8]


def test_ahead_makes_no_more_than_its_depth() -> None:
    made, release = [], threading.Event()

    def make(number: int) -> int:
        release.wait(5)
        made.append(number)
        return number

    with Ahead(make, range(100), depth=2) as items:
        release.set()
        next(items)
    assert max(made) <= 2


def test_ahead_raises_what_making_raised() -> None:
    def make(number: int) -> int:
        if number == 1:
            raise ValueError("number one")
        return number

    with Ahead(make, range(3), depth=3) as items:
        assert next(items) == 0
        with pytest.raises(ValueError, match="number one"):
            next(items)


def test_a_data_set_in_a_file_is_never_copied_whole(tmp_path: Path) -> None:
    source = data()
    np.save(tmp_path / "samples.npy", source.samples)
    mapped = np.load(tmp_path / "samples.npy", mmap_mode="r")
    in_file = ClassSamples(mapped, source.labels, source.class_names)
    task = TaskConfig(ways=3, shots=2, queries=2)
    samplers = [TaskSampler(d, task, AugmentationConfig(shift=1), PLAIN, CPU) for d in (source, in_file)]
    assert isinstance(samplers[1]._samples, np.memmap)
    one, other = (sampler.gather(sampler.draw(1, 0, 2)) for sampler in samplers)
    for mine, theirs in zip(one.tensors(), other.tensors(), strict=True):
        assert torch.equal(mine, theirs)


def _handler_of_ctrl_c() -> Callable[[int], str]:
    return lambda _: str(signal.getsignal(signal.SIGINT))


def test_workers_leave_ctrl_c_to_the_process_that_started_them() -> None:
    here = signal.getsignal(signal.SIGINT)
    assert set(in_processes(_handler_of_ctrl_c, (), range(4), 2)) == {str(signal.SIG_IGN)}
    assert signal.getsignal(signal.SIGINT) == here


# --- evaluation ----------------------------------------------------------------------------------------------


def test_evaluation_does_not_depend_on_the_number_of_workers() -> None:
    learner = MetaLearner(config(), SHAPE, CPU)
    tasks = fixed_tasks(data(), 3, 2, 2, 9, 1)
    done: list[int] = []
    results = [evaluate(learner.inner, learner.meta, iter(tasks), PLAIN, 1, CPU, done.append, workers)
               for workers in (1, 2)]  # fmt: skip
    assert results[0] == results[1]
    assert sum(done) == 18
