"""What is captured as a CUDA graph computes the same as what is not; on a faked GPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest

torch = pytest.importorskip("torch")
from torch import Tensor  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils._pytree import tree_leaves  # noqa: E402

from pmeta.trainer import meta_learner  # noqa: E402
from pmeta.trainer.captured import WARM_UP_RUNS, Captured  # noqa: E402
from pmeta.trainer.config import Config, config_from_dict  # noqa: E402
from pmeta.trainer.meta_learner import MetaLearner  # noqa: E402
from pmeta.trainer.objective import TaskBatch  # noqa: E402

pytestmark = pytest.mark.unit
CPU, GPU = torch.device("cpu"), torch.device("cuda")
SHAPE = (1, 8, 8)


class FakeStream:
    def wait_stream(self, _: FakeStream) -> None:
        """Everything happens in order here."""


class FakeGraph(TorchDispatchMode):
    """Notes operations, which then have had no effect, and repeats them on the same memory."""

    made: list[FakeGraph]

    def __init__(self) -> None:
        super().__init__()
        self.replays = 0
        self._operations: list[tuple[Any, Any, Any, Any]] = []
        self._before: dict[int, tuple[Tensor, Tensor]] = {}
        self.made.append(self)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # or PyTorch would first import its compiler, which takes seconds

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert function is not torch.ops.aten._local_scalar_dense.default, "a capture must not wait for the GPU"
        if function._schema.is_mutable:
            for tensor in tree_leaves(args):
                if isinstance(tensor, Tensor):
                    self._before.setdefault(id(tensor), (tensor, tensor.clone()))
        results = function(*args, **(kwargs or {}))
        self._operations.append((function, args, kwargs or {}, results))
        return results

    def forget(self) -> None:
        for tensor, value in self._before.values():
            tensor.copy_(value)

    def replay(self) -> None:
        self.replays += 1
        with torch.no_grad():
            for function, args, kwargs, results in self._operations:
                again = tree_leaves(function(*args, **kwargs))
                for old, new in zip(tree_leaves(results), again, strict=True):
                    if isinstance(old, Tensor) and not shares_memory(old, new):
                        old.copy_(new)


def shares_memory(one: Tensor, other: Tensor) -> bool:
    """As do the results of what works in place, and views."""
    return one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()


@contextmanager
def capturing(graph: FakeGraph) -> Iterator[None]:
    with graph:
        yield
    graph.forget()


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[FakeGraph]:
    """The graphs that were captured."""
    monkeypatch.setattr(FakeGraph, "made", [], raising=False)
    for name, fake in {
        "Stream": FakeStream,
        "current_stream": FakeStream,
        "stream": lambda _: nullcontext(),
        "CUDAGraph": FakeGraph,
        "graph": capturing,
    }.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    return FakeGraph.made


@pytest.mark.usefixtures("graphs")
def test_warming_up_leaves_no_trace() -> None:
    total, calls = torch.tensor([1.0]), []

    def add(inputs: dict[str, Tensor]) -> Tensor:
        calls.append(None)
        return total.mul_(2.0).add_(inputs["x"]) + 0.5

    captured = Captured(add, GPU, changed=[total])
    assert captured({"x": torch.tensor([3.0])}).item() == 5.5 and total.item() == 5.0
    assert len(calls) == WARM_UP_RUNS + 1


def test_later_calls_replay_with_their_own_inputs(graphs: list[FakeGraph]) -> None:
    total, calls = torch.tensor([1.0]), []

    def add(inputs: dict[str, Tensor]) -> Tensor:
        calls.append(None)
        return total.add_(inputs["x"]) * 2.0

    captured = Captured(add, GPU, changed=[total])
    x = torch.tensor([3.0])
    assert captured({"x": x}).item() == 8.0
    total.fill_(10.0)  # others may write to it in between
    assert captured({"x": torch.tensor([7.0])}).item() == 34.0
    assert [graph.replays for graph in graphs] == [2] and len(calls) == WARM_UP_RUNS + 1
    assert x.item() == 3.0, "inputs are copied, not written to"


def test_structures_and_shapes_are_captured_apart(graphs: list[FakeGraph]) -> None:
    captured = Captured(lambda inputs: sum(part.sum() for part in inputs.values()) * len(inputs), GPU)
    one, two = torch.ones(1), torch.ones(2)
    for inputs, expected in (
        ({"a": one}, 1),
        ({"a": two}, 2),
        ({"a": one, "b": one}, 4),
        ({"b": one}, 1),
        ({"a": 3 * one}, 3),
    ):
        assert captured(inputs).item() == expected
    assert [graph.replays for graph in graphs] == [2, 1, 1, 1]


@pytest.mark.parametrize(("device", "enabled"), [(CPU, True), (GPU, False)])
def test_elsewhere_nothing_is_captured(device: torch.device, enabled: bool, graphs: list[FakeGraph]) -> None:
    calls: list[Any] = []
    captured = Captured(calls.append, device, enabled)
    first, second = {"x": torch.ones(1)}, {"x": torch.ones(1)}
    captured(first), captured(second)
    assert calls[0] is first and calls[1] is second and not graphs


# --- the outer step ------------------------------------------------------------------------------------------


def config() -> Config:
    return config_from_dict(
        {
            "task": {"ways": 3, "shots": 2, "queries": 2},
            "network": {"width": 4, "groups": 2, "blocks": 2},
            "method": {"steps": 2, "alpha": 0.2, "penalty": 3.0},
            "training": {"iterations": 6, "clip_norm": 0.1, "multi_step_iterations": 1, "first_order_iterations": 2},
        },
        "test",
    )


def random_tasks(seed: int) -> TaskBatch:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.eye(3).repeat(2, 1).expand(2, -1, -1)
    x, query_x = (torch.randn(2, 6, *SHAPE, generator=generator) for _ in range(2))
    return TaskBatch(x, labels, query_x, labels)


def test_outer_steps_are_the_same(graphs: list[FakeGraph], monkeypatch: pytest.MonkeyPatch) -> None:
    """Every kind of iteration, with the limit of the gradient's norm and the price of step sizes."""
    plain = MetaLearner(config(), SHAPE, CPU)
    monkeypatch.setattr(meta_learner, "Captured", lambda function, _, **options: Captured(function, GPU, **options))
    captured = MetaLearner(config(), SHAPE, CPU)
    for iteration in range(4):  # all steps' losses, first order; the last's; second order; the same again
        reports = [learner.step(random_tasks(iteration), iteration) for learner in (plain, captured)]
        assert reports[0] == reports[1]
        for mine, other in zip(tree_leaves(captured.meta), tree_leaves(plain.meta), strict=True):
            assert torch.equal(mine, other) and torch.equal(mine.grad, other.grad)
    assert sorted(graph.replays for graph in graphs) == [1, 1, 2, 4]
