"""One job in a process of its own: `python -m pmeta.trainer.comparison.worker`.

Reads a pickled Job from standard input, from the process that started it. Writes lines of JSON to standard output:
{"stage", "done", "total", "note"} while it works, {"error": [class, what, where, todo]} if it ends with an error a user
can act on. Its results are files: the model, and what lies in the store. SIGINT, or the end of the process that started
it, ends it after the current iteration.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import IO, TYPE_CHECKING, NoReturn

from pmeta.codegen.cli_errors import INTERRUPTED
from pmeta.codegen.errors import DataError, ModelError, PmetaError
from pmeta.trainer.comparison.costs import costs_of
from pmeta.trainer.comparison.entries import PARAMETERS_SUFFIX
from pmeta.trainer.comparison.measurement import Finished, Job, Target, TaskSource, finished, test_split

if TYPE_CHECKING:
    import torch

    from pmeta.codegen.taskfile import Task
    from pmeta.trainer.trained import Trained

SECONDS_BETWEEN_EVENTS = 0.2
Show = Callable[[str, int, int, str], None]  # (stage, how many of its parts are done, of how many, note)


def main() -> NoReturn:
    """The process."""
    # A command in the background ignores SIGINT, and this inherits it; here only the process that started it sends it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints is no event
    try:
        job: Job = pickle.load(sys.stdin.buffer)
        work(job, Events(events).show)
    except PmetaError as error:
        _end(error, events)
    except KeyboardInterrupt:
        with suppress(BrokenPipeError):
            events.close()
        os._exit(INTERRUPTED)
    except OSError as problem:  # no room, no permission, a file where a folder should be
        _end(DataError(str(problem.strerror), str(problem.filename or "output"), "choose another --runs"), events)
    sys.exit(0)


def _end(error: PmetaError, events: IO[str]) -> NoReturn:
    with suppress(BrokenPipeError):
        print(json.dumps({"error": [type(error).__name__, error.what, error.where, error.todo]}), file=events)
        events.flush()
    sys.exit(error.exit_code)


class Events:
    """Writes how far the work is, now and then."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream, self._stage, self._next, self._broken = stream, "", 0.0, False

    def show(self, stage: str, done: int, total: int, note: str = "") -> None:
        """A `Show`; the first and last part of every stage are always written.

        Without the process that reads them nobody waits for the result: the first one that cannot be written is SIGINT.
        """
        now = time.monotonic()
        if self._broken or (stage == self._stage and done < total and now < self._next):
            return
        self._stage, self._next = stage, now + SECONDS_BETWEEN_EVENTS
        event = json.dumps({"stage": stage, "done": done, "total": total, "note": note})
        try:
            print(event, file=self._stream, flush=True)
        except BrokenPipeError:
            self._broken = True
            signal.raise_signal(signal.SIGINT)


def work(job: Job, show: Show) -> None:
    """Train, unless the model is there, and measure what is not known."""
    done = finished(job)
    if done is None:
        _train(job, show)
        done = finished(job)
        assert done is not None
    for target in job.targets:
        if done.accuracies(target.data) is None:
            _measure_accuracies(done, target, show)
    if done.lacks_costs:
        _measure_costs(done, show)


def _train(job: Job, show: Show) -> None:
    """Continues where an earlier training was interrupted."""
    from pmeta.codegen.modelfile import save_model
    from pmeta.trainer.commands.common import Device, torch_device
    from pmeta.trainer.training import Progress, Training, explained_memory_errors

    entry = job.entry
    if entry.config is None or entry.run_dir is None:
        raise ModelError("is gone", str(entry.model_path), "check the path")
    device = torch_device(Device(job.device))
    show(f"reading {entry.data.name}", 0, 1, "")
    test_split(entry.data)  # where it is missing, the training would be in vain
    training = Training(entry.config, entry.data.load("train"), entry.data.load("val"), entry.run_dir, device)
    if training.checkpoint_path.exists():
        training.resume()
    total = entry.config.training.iterations

    def show_iteration(state: Progress) -> None:
        show("training", state.iteration, total, state.note)

    show("training", training.iteration, total, "")
    with explained_memory_errors():
        training.finish(show_iteration)
    if entry.model_path.suffix == PARAMETERS_SUFFIX:
        training.save_best(entry.model_path)
    else:
        save_model(training.best_model(), entry.model_path)


def _measure_accuracies(done: Finished, target: Target, show: Show) -> None:
    from pmeta.trainer.evaluation import evaluate

    data = done.test_data(target.data)
    assert isinstance(data, TaskSource)
    trained, tasks, device = _ready(done, data)
    count = _counter(show, target.label, len(tasks))
    result = evaluate(trained.inner, trained.meta, tasks, trained.encoding, trained.sample_batch, device, count)
    done.job.store.put(done.key("accuracies", target.data, data), {"after": result.after_of_tasks})


def _measure_costs(done: Finished, show: Show) -> None:
    model, kept = done.trained.model, None
    assert model is not None
    if model.adaptation.attention:
        from pmeta.trainer.comparison.kept_channels import kept_channels

        trained, tasks, _ = _ready(done, done.own_test_data())
        kept = kept_channels(trained, tasks, _counter(show, "kept channels", len(tasks)))
    show("planning", 0, 1, "")
    costs = costs_of(model, done.trained.ways * done.trained.shots, kept)
    done.job.store.put(done.costs_key, asdict(costs))


def _ready(done: Finished, data: TaskSource) -> tuple[Trained, Sequence[Task], torch.device]:
    """The model in PyTorch, and the tasks of the protocol."""
    from pmeta.trainer.commands.common import Device, torch_device
    from pmeta.trainer.tasks import fixed_tasks
    from pmeta.trainer.trained import load_trained

    device = torch_device(Device(done.job.device))
    ways, shots, protocol = done.trained.ways, done.trained.shots, done.job.protocol
    tasks = fixed_tasks(data.samples, ways, shots, data.queries, protocol.tasks, protocol.seed)
    return load_trained(done.job.entry.model_path, device), tasks, device


def _counter(show: Show, stage: str, total: int) -> Callable[[int], None]:
    """Adds up the parts that are done."""
    done = 0

    def count(more: int) -> None:
        nonlocal done
        done += more
        show(stage, done, total, "")

    show(stage, 0, total, "")
    return count


if __name__ == "__main__":
    main()
