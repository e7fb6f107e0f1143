"""A training run: outer steps, validation, logs, checkpoints, and the model that validated best."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils._pytree import tree_map

from pmeta.codegen.adaptation import Model
from pmeta.codegen.errors import ConfigError, DataError
from pmeta.trainer.ahead import Ahead
from pmeta.trainer.checkpoint import CHECKPOINT, load_checkpoint, save_checkpoint
from pmeta.trainer.config import Config, config_from_dict
from pmeta.trainer.datasets.base import ClassSamples
from pmeta.trainer.datasets.hashing import data_hash
from pmeta.trainer.distributed import ALONE, Processes
from pmeta.trainer.encoding import input_encoding
from pmeta.trainer.evaluation import Evaluation, evaluate
from pmeta.trainer.export import to_model
from pmeta.trainer.interrupt import DeferredInterrupt
from pmeta.trainer.logbook import Logbook
from pmeta.trainer.meta_learner import MetaLearner, StepReport
from pmeta.trainer.sampler import Read, TaskSampler
from pmeta.trainer.tasks import fixed_tasks
from pmeta.trainer.trained import save_parameters

VALIDATION_SEED = 20_000  # the validation tasks are the same for every training seed
READ_AHEAD = 3  # iterations whose tasks lie ready
LOG_EVERY = 10  # iterations between lines of the training curve


@dataclass(frozen=True)
class Progress:
    """What a progress display can show."""

    iteration: int  # finished ones
    report: StepReport  # of the last iteration
    validation: Evaluation | None  # the latest
    best: float  # best validation accuracy so far

    @property
    def note(self) -> str:
        """What a progress bar says beside the count."""
        loss = self.report.loss
        text = f"loss {loss:.3f}" if loss < 1000 else f"loss {loss:.2e}"
        if self.validation is not None:
            text += f", validation {100 * self.validation.after:.1f} % (best {100 * self.best:.1f} %)"
        return text


class Training:
    """One run in `run_dir`: checkpoint.pt, curve.jsonl, TensorBoard events, and in the end a `Model`."""

    def __init__(
        self,
        config: Config,
        train: ClassSamples,
        validation: ClassSamples,
        run_dir: Path,
        device: torch.device,
        processes: Processes = ALONE,
    ) -> None:
        _check_alike(train, validation, config.data.name)
        self.config, self.run_dir, self.device, self._processes = config, run_dir, device, processes
        self._share = processes.share(config.training.tasks_per_batch)
        self._encoding = input_encoding(config.input, train)
        self._learner = MetaLearner(config, train.shape, device, self._encoding, processes)
        name = config.data.name
        self._sampler = TaskSampler(
            train, config.task, config.augmentation, self._encoding, device, f"{name}'s train split"
        )
        task = config.task
        self._validation_tasks = fixed_tasks(
            validation, task.ways, task.shots, task.queries, config.training.validation_tasks, VALIDATION_SEED,
            f"{name}'s val split",
        )  # fmt: skip
        self._data_hashes = {"train": data_hash(train), "validation": data_hash(validation)}
        self._iteration = 0
        self._saved: int | None = None
        self._validation: Evaluation | None = None
        self._best: dict[str, Any] = {"accuracy": -1.0}

    @property
    def checkpoint_path(self) -> Path:
        return self.run_dir / CHECKPOINT

    # --- running -------------------------------------------------------------------------------------------------

    def run(self, show: Callable[[Progress], None] | None = None) -> Model:
        """`finish`, and return the best model."""
        self.finish(show)
        return self.best_model()

    def finish(self, show: Callable[[Progress], None] | None = None) -> None:
        """Train to the configured end.

        Ctrl-C or SIGTERM ends the run after the current iteration: a checkpoint is written, then KeyboardInterrupt
        raised. A second one raises it at once: `saved` tells what the checkpoint holds.
        """
        training = self.config.training
        with (
            Logbook(self.run_dir, self._iteration) if self._processes.first else nullcontext() as logbook,
            Ahead(self._read, range(self._iteration, training.iterations), READ_AHEAD) as upcoming,
            DeferredInterrupt() as interrupt,
        ):
            for read in upcoming:
                if self._processes.any(interrupt.requested, self.device):
                    break
                report = self._learner.step(self._sampler.assemble(read), self._iteration)
                if not np.isfinite(report.loss):
                    raise _diverged(self._iteration)
                self._iteration += 1
                if logbook is not None:
                    self._record(report, logbook)
                if show is not None:
                    show(Progress(self._iteration, report, self._validation, self._best["accuracy"]))
        if self._iteration < training.iterations:
            if self._processes.first:
                self.save()
            raise KeyboardInterrupt
        self._best = self._processes.from_first(self._best)

    def _record(self, report: StepReport, logbook: Logbook) -> None:
        """After an iteration: what is due of log, validation and checkpoint."""
        training = self.config.training
        last = self._iteration == training.iterations
        if last or self._iteration % LOG_EVERY == 0:
            logbook.write(self._iteration, _curve_point(report))
        if last or self._iteration % training.validate_every == 0:
            self._validation = self._validate(logbook)
        if last or self._iteration % training.checkpoint_every == 0:
            self.save()

    def _read(self, iteration: int) -> Read:
        """This process's share of the tasks of an iteration, read; in another thread."""
        training = self.config.training
        draw = self._sampler.draw(training.seed, iteration, training.tasks_per_batch)
        return self._sampler.read(draw.share(self._share))

    def _validate(self, logbook: Logbook) -> Evaluation:
        """Evaluate on the fixed validation tasks; remember the meta-parameters where they are the best yet."""
        learner, meta = self._learner, self._learner.settled()
        result = evaluate(
            learner.inner, meta, self._validation_tasks, self._encoding,
            self.config.device.sample_batch, self.device,
        )  # fmt: skip
        values = {
            "validation/accuracy_before": result.before,
            "validation/accuracy_after": result.after,
            "validation/query_loss": result.loss,
        }
        for layer, row in zip(learner.graph.layers, meta["alpha"].tolist(), strict=True):
            values |= {f"alpha/{layer.name}/step{k}": value for k, value in enumerate(row, 1)}
        logbook.write(self._iteration, values)
        if result.after > self._best["accuracy"]:
            self._best = {
                "accuracy": result.after,
                "interval": result.after_interval,
                "iteration": self._iteration,
                "meta": tree_map(lambda t: t.detach().cpu().clone(), meta),
            }
        return result

    # --- state ---------------------------------------------------------------------------------------------------

    def save(self) -> None:
        """Write the checkpoint. Tasks follow from (seed, iteration), so no random generator has a state to keep."""
        save_checkpoint(
            self.checkpoint_path,
            {
                "config": self.config.as_dict(),
                "data": self._data_hashes,
                "versions": versions(),
                "iteration": self._iteration,
                "learner": self._learner.state(),
                "best": self._best,
            },
        )
        self._saved = self._iteration

    def resume(self) -> None:
        """Continue from the run directory's checkpoint; refuses one of another configuration or data set."""
        mine = load_checkpoint(self.checkpoint_path) if self._processes.first else None
        content = self._processes.from_first(mine)
        where = str(self.checkpoint_path)
        same = {
            "configuration": _resolved(content.get("config"), where) == self.config.as_dict(),
            "data set": content.get("data") == self._data_hashes,
        }
        for what in (key for key, equal in same.items() if not equal):
            todo = "resume with what it was started with, or train in another --run-dir"
            raise DataError(f"belongs to another {what}", where, todo)
        try:
            self._iteration, self._best = _position(content, self.config.training.iterations)
            self._learner.load_state(content["learner"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise DataError("is damaged", where, "start the training again") from error
        self._saved = self._iteration

    @property
    def iteration(self) -> int:
        """Finished iterations."""
        return self._iteration

    @property
    def saved(self) -> int | None:
        """Finished iterations of the checkpoint that this run wrote last, or went on from; None: there is none."""
        return self._saved

    def best_model(self) -> Model:
        """The meta-parameters that validated best, as a model for the device; raises ConfigError as `to_model` does."""
        return to_model(self._learner.graph, self._best["meta"], self.config, self._encoding, self._provenance())

    def save_best(self, path: Path) -> None:
        """Write the meta-parameters that validated best to a file for evaluation alone."""
        graph = self._learner.graph
        save_parameters(path, self.config, graph.input_shape, self._encoding, self._best["meta"], self._provenance())

    def _provenance(self) -> dict[str, Any]:
        """How the best meta-parameters came about."""
        best = self._best
        return {
            "config": self.config.as_dict(),
            "seed": self.config.training.seed,
            "iterations": self.config.training.iterations,
            "selected_iteration": best["iteration"],
            "validation_accuracy": best["accuracy"],
            "validation_interval": best["interval"],
            "validation_tasks": self.config.training.validation_tasks,
            "data_sha256": self._data_hashes["train"],
            "device": "CUDA GPU" if self.device.type == "cuda" else "CPU",
            "versions": versions(),
        }


def _resolved(stored: Any, where: str) -> dict[str, Any] | None:
    """A stored configuration as this version reads it: keys that are new since then have their defaults."""
    try:
        return config_from_dict(stored, where).as_dict()
    except (ConfigError, AttributeError, TypeError):
        return None


def _check_alike(train: ClassSamples, validation: ClassSamples, name: str) -> None:
    """Raises DataError where validation samples cannot be what the network is trained for."""
    kinds = [f"{data.samples.dtype} {data.shape}" for data in (train, validation)]
    if kinds[0] != kinds[1]:
        what = f"has training samples of {kinds[0]}, but validation samples of {kinds[1]}"
        raise DataError(what, f"data set '{name}'", "store both in the same form")


def versions() -> dict[str, str]:
    """Of what a result depends on."""
    return {"pmeta": _own_version(), "python": platform.python_version(), "torch": str(torch.__version__)}


def _position(content: dict[str, Any], iterations: int) -> tuple[int, dict[str, Any]]:
    """(finished iterations, the best so far) of a checkpoint; KeyError, TypeError or ValueError where it is damaged."""
    iteration, best = content["iteration"], content["best"]
    if not 0 <= iteration <= iterations:
        raise ValueError(f"iteration {iteration} of {iterations}")
    known = {"accuracy", "interval", "iteration", "meta"} if best["accuracy"] >= 0 else {"accuracy"}
    if best.keys() != known or (iteration == iterations and "meta" not in known):
        raise ValueError("no best model")
    return iteration, best


def _curve_point(report: StepReport) -> dict[str, float]:
    return {
        "train/query_loss": report.loss,
        "train/query_accuracy": report.accuracy,
        "alpha/zeros": report.zeros,
        "alpha/reentries": report.reentries,
    }


@contextmanager
def explained_memory_errors() -> Iterator[None]:
    """Too little memory for a training is a ConfigError that says what to change."""
    try:
        yield
    except (torch.OutOfMemoryError, RuntimeError) as error:
        if not isinstance(error, torch.OutOfMemoryError) and "allocate memory" not in str(error):
            raise
        todo = "lower training.tasks_per_batch, network.width or method.steps"
        raise ConfigError("needs more memory than there is", "training", todo) from error


def _own_version() -> str:
    try:
        return version("pmeta-toolchain")
    except PackageNotFoundError:  # run from a source tree
        return "source tree"


def _diverged(iteration: int) -> ConfigError:
    return ConfigError(
        "the query loss is no longer finite", f"iteration {iteration + 1}",
        "lower training.learning_rate or method.alpha; bring float samples to about -1 to 1",
    )  # fmt: skip
