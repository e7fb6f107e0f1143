"""pmeta-train compare: the paper's Table 2 for any data, and accuracy against memory as a picture."""

from __future__ import annotations

import importlib.util
import json
import shlex
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress, TaskID

from pmeta.codegen.errors import BuildError, ConfigError, DataError, PmetaError
from pmeta.codegen.files import replacement
from pmeta.codegen.report.text import count_text
from pmeta.trainer.commands.common import TEST_SEED, Device, DeviceOption, console, data_set, progress_bar
from pmeta.trainer.comparison.entries import entries_of
from pmeta.trainer.comparison.labels import data_labels, same_place
from pmeta.trainer.comparison.measurement import Figures, Job, Protocol, Target, finished, test_split
from pmeta.trainer.comparison.picture import save_picture, with_costs
from pmeta.trainer.comparison.running import Event, Workers
from pmeta.trainer.comparison.store import Store
from pmeta.trainer.comparison.table import Comparison, comparison
from pmeta.trainer.comparison.text import csv_text, json_value, markdown
from pmeta.trainer.datasets.base import Dataset
from pmeta.trainer.datasets.registry import DATASETS
from pmeta.trainer.interrupt import sigterm_interrupts
from pmeta.trainer.parallel import all_cores

OTHER_DOMAINS = ("fashion-mnist", "animal-mnist", "emoji", "omniglot")  # tested on if they are at hand
NONE = "none"
STORE = "figures"  # in the folder of the runs


def compare(
    configurations: Annotated[
        list[Path], typer.Argument(help="TOML files, folders of them, names of shipped ones, or finished models.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for table.md, table.csv, figure.png and results.json.")] = Path(
        "comparison"
    ),
    path: Annotated[
        Path | None,
        typer.Option(
            help="File or folder of the data that finished models were trained on; default: see pmeta-train datasets."
        ),
    ] = None,
    cross: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[=PATH]",
            help="Another data set to test on; repeatable. Default: "
            f"those of {', '.join(OTHER_DOMAINS)} that are at hand; '{NONE}': no other.",
        ),
    ] = None,
    tasks: Annotated[int, typer.Option(min=2, help="Test tasks of each data set.")] = 1000,
    queries: Annotated[int, typer.Option(min=1, help="Query samples per class, where there are so many.")] = 15,
    test_seed: Annotated[int, typer.Option(min=0, help="Which test tasks.")] = TEST_SEED,
    iterations: Annotated[int | None, typer.Option(min=1, help="Instead of the configurations'.")] = None,
    seeds: Annotated[
        str | None, typer.Option(help="Train each with these seeds, with commas between; default: its own.")
    ] = None,
    runs: Annotated[Path, typer.Option(help="Folder of the run directories and of measured figures.")] = Path("runs"),
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Trainings side by side, one thread each; default: one per core.")
    ] = None,
    device: DeviceOption = Device.AUTO,
    as_json: Annotated[bool, typer.Option("--json", help="Print the content of results.json.")] = False,
) -> None:
    """Train what is not trained yet, test all on the same tasks, and compare accuracy, computation and memory.

    Everything can be interrupted: the same command goes on. What is trained and measured is kept in --runs.
    """
    for package in ("torch", "matplotlib"):
        if importlib.util.find_spec(package) is None:
            raise BuildError(f"{package} is not installed", "pmeta-train", f"run: pip install {package}")
    _check_folder(out, "--out")
    _check_folder(runs, "--runs")
    entries = entries_of(configurations, runs, _seeds(seeds), iterations, path)
    trained_on = [entry.data for entry in entries]
    targets = _targets(trained_on, _other_domains(cross, trained_on))
    protocol, store = Protocol(tasks, queries, test_seed), Store(runs / STORE)
    all_jobs = [Job(entry, own, protocol, store, device.value) for entry, own in zip(entries, targets, strict=True)]
    failed = _work([job for job in all_jobs if _figures(job) is None], jobs)
    found = [(job.entry, figures) for job in all_jobs if (figures := _figures(job)) is not None]
    if found:
        _write(comparison(found, protocol, shlex.join(["pmeta-train", *sys.argv[1:]])), out, as_json)
    if failed:
        raise failed[0]


def _check_folder(folder: Path, option: str) -> None:
    """Raises ConfigError where something else than a folder is in the way: before hours of training, not after."""
    there = next((place for place in (folder, *folder.parents) if place.exists()), None)
    if there is not None and not there.is_dir():
        raise ConfigError("is no folder", str(there), f"choose another {option}")


def _seeds(text: str | None) -> tuple[int, ...]:
    try:
        found = tuple(int(part) for part in text.split(",")) if text is not None else ()
    except ValueError as error:
        raise ConfigError(f"{text!r} is no list of numbers", "--seeds", "write 1,2,3") from error
    if len(set(found)) < len(found):
        raise ConfigError("names a seed twice", "--seeds", "write each once")
    return found


def _other_domains(names: Sequence[str] | None, trained_on: Sequence[Dataset]) -> tuple[Dataset, ...]:
    """The data sets of --cross; by default those that are at hand. Their test splits load: no training is in vain."""
    if names is None:
        known = [DATASETS[name]() for name in OTHER_DOMAINS if name in DATASETS]
        return tuple(data for data in known if data.find() and _is_other(data, trained_on) and _loads(data))
    found: list[Dataset] = []
    for text in names:
        name, _, path = text.partition("=")
        if name != NONE:
            data = data_set(name, Path(path) if path else None, None)
            data.located()
            if not any(same_place(data, earlier) for earlier in found):
                found.append(data)
    for data in found:
        if _is_other(data, trained_on):
            test_split(data)
    return tuple(found)


def _is_other(data: Dataset, trained_on: Sequence[Dataset]) -> bool:
    """Whether `data` is another data set than one of those. Without a path it is the published one of its name."""
    return any(data.name != own.name or (data.path and not same_place(data, own)) for own in trained_on)


def _loads(data: Dataset) -> bool:
    """Whether there is a test split; says so if not."""
    try:
        test_split(data)
    except DataError as error:
        console.print(f"not tested on {data.name}: {error}", markup=False, soft_wrap=True)
        return False
    return True


def _targets(trained_on: Sequence[Dataset], others: Sequence[Dataset]) -> list[tuple[Target, ...]]:
    """What each entry is tested on: its own data, then the others."""
    all_sets = [(own, *(other for other in others if _is_other(other, [own]))) for own in trained_on]
    labels = data_labels(data for sets in all_sets for data in sets)
    return [tuple(Target(labels[data], data) for data in sets) for sets in all_sets]


def _figures(job: Job) -> Figures | None:
    """What is known of the job; None if something is missing."""
    done = finished(job)
    return None if done is None else done.figures


def _work(jobs: Sequence[Job], limit: int | None) -> list[PmetaError]:
    """Run the jobs under progress bars; the errors of those that failed."""
    if not jobs:
        return []
    at_once = min(limit or all_cores(), len(jobs))
    with progress_bar() as progress, sigterm_interrupts():
        bars = Bars(progress, len(jobs))
        try:
            return Workers(at_once, bars.show).run(jobs)
        except KeyboardInterrupt:
            progress.stop()
            console.print("stopped; what is done is saved: run the same command to continue")
            raise


class Bars:
    """One bar for all jobs, and one for each that runs."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress, self._lock = progress, threading.Lock()
        self._all = progress.add_task("all", total=total, note="")
        self._bars: dict[Job, tuple[TaskID, str]] = {}

    def show(self, job: Job, event: Event) -> None:
        """A stage has a bar of its own, whose time left is that of the stage."""
        with self._lock:
            bar, stage = self._bars.get(job, (None, ""))
            if bar is not None and (event.ended or stage != event.stage):
                self._progress.remove_task(bar)
                bar = None
            if event.ended:
                self._progress.advance(self._all)
                return
            if bar is None:
                bar = self._progress.add_task(f"{job.entry.title}: {event.stage}", total=event.total, note="")
                self._bars[job] = bar, event.stage
            self._progress.update(bar, completed=event.done, note=event.note)


def _write(made: Comparison, out: Path, as_json: bool) -> None:
    text, value = markdown(made), json.dumps(json_value(made), indent=1)
    out.mkdir(parents=True, exist_ok=True)
    for name, content in (("table.md", text), ("table.csv", csv_text(made)), ("results.json", value + "\n")):
        with replacement(out / name) as temporary:
            temporary.write_text(content, encoding="utf-8")
    files = ["table.md", "table.csv", "results.json"]
    if with_costs(made):
        save_picture(made, out / "figure.png")
        files.append("figure.png")
    print(value if as_json else text, end="\n" if as_json else "")
    console.print(
        f"{out}: {', '.join(files)}; {count_text(len(made.rows), 'configuration')}", markup=False, soft_wrap=True
    )
