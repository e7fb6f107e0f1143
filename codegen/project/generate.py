"""model.onnx -> PlatformIO project. Everything is computed before the first byte is written."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pmeta.codegen.boards import Board, find_board
from pmeta.codegen.bring_your_own import OwnAdaptation, own_model
from pmeta.codegen.errors import ConfigError
from pmeta.codegen.manifest import LearnedTensor, Manifest, firmware_id
from pmeta.codegen.modelfile import load_model, load_network, model_bytes
from pmeta.codegen.plan.plan import Plan, make_plan
from pmeta.codegen.progress import OnProgress, nobody_watches
from pmeta.codegen.project.budget import Fitted, Limit, fitted
from pmeta.codegen.project.c_source import Title, library_code, sample_bytes
from pmeta.codegen.project.c_text import comment_text
from pmeta.codegen.project.constants import constant_files
from pmeta.codegen.project.fit import check_fit, statics
from pmeta.codegen.project.golden import find_reference, golden_samples, golden_values
from pmeta.codegen.project.link_size import LINK_MAX_PAYLOAD, link_state_bytes
from pmeta.codegen.project.memory_options import MemoryOptions
from pmeta.codegen.project.platformio import platformio_files
from pmeta.codegen.project.regions import divided
from pmeta.codegen.project.templates import files_in, render, template_text
from pmeta.codegen.report.html import report_html
from pmeta.codegen.support import Support, SupportOptions

STAGING = ".pmeta-gen-"  # folder that holds the files while they are written


@dataclass(frozen=True)
class Project:
    """A generated project, before it is written: file contents by path."""

    plan: Plan
    manifest: Manifest
    boards: tuple[Board, ...]
    files: dict[str, str | bytes]
    fitted: Fitted  # what was given up for less RAM


def generate(
    model_path: Path,
    board_names: Sequence[str],
    own: OwnAdaptation | None = None,
    on_progress: OnProgress = nobody_watches,
    memory: MemoryOptions | None = None,
    support_options: SupportOptions | None = None,
) -> Project:
    """Generate the project in memory; `own` says how a network without a record adapts. Raises PmetaError."""
    memory = memory or MemoryOptions()
    recorded = load_model(model_path) if own is None else own_model(load_network(model_path), own)
    boards = tuple(find_board(name) for name in sorted(set(board_names)))
    support = (support_options or SupportOptions()).resolved(recorded)
    first_plan = make_plan(memory.applied_to(recorded), on_progress=on_progress)
    check_fit(first_plan, boards, support)
    found = fitted(first_plan, Limit.of(boards, memory.ram, support), memory.allow, on_progress)
    plan, model = divided(found.plan, boards, support), found.plan.model
    model_file = model_path.read_bytes() if own is None and model is recorded else model_bytes(model)
    options = (*(f"--board {board.name}" for board in boards), *(own.arguments if own else ()), *memory.arguments)
    command = " ".join(["pmeta-gen model.onnx", *options, *support.arguments])
    on_progress("writing", 0, 3)
    model_sha256 = hashlib.sha256(model_file).hexdigest()
    constants = constant_files(plan, comment_text(model.graph.name), model_sha256)
    manifest = _manifest(plan, constants, model_sha256, command, boards, support)
    title = Title(comment_text(model.graph.name), manifest.command, manifest.model_sha256, manifest.firmware_id)
    files: dict[str, str | bytes] = {**platformio_files([board.name for board in boards])}
    library = {**library_code(plan, title, support), **constants}
    files.update({f"lib/pmeta_model/src/{name}": content for name, content in library.items()})
    files["lib/pmeta_model/library.json"] = render("project/library.json.j2", title=title.title)
    files.update(_link_files(plan))
    on_progress("writing", 1, 3)
    files.update(_golden_files(plan, title, boards))
    on_progress("writing", 2, 3)
    files["README.md"] = render(
        "project/README.md.j2",
        title=title.title,
        command=title.command,
        model_sha256=title.model_sha256,
        first_board=boards[0].name,
    )
    files["manifest.json"] = manifest.to_json()
    files["report.html"] = report_html(plan, manifest, boards)
    files["model.onnx"] = model_file
    on_progress("writing", 3, 3)
    return Project(plan, manifest, boards, files, found)


def write_project(project: Project, out: Path) -> None:
    """Write the files to `out`: a new folder, or one that pmeta-gen made before.

    There, what was generated is replaced and everything else stays: sources and libraries added by hand, version
    control, build products, running boards. If anything fails, the folder is as it was.
    """
    try:
        _check_free(out)
        is_new = not out.exists()
        out.mkdir(parents=True, exist_ok=True)
        try:
            _write_files(project.files, out)
        except BaseException:
            if is_new:
                shutil.rmtree(out, ignore_errors=True)
            raise
    except OSError as error:
        raise ConfigError(f"cannot be written ({error.strerror})", str(out), "choose a writable place") from error


def _check_free(out: Path) -> None:
    """ConfigError if `out` holds anything that pmeta-gen did not begin."""
    if out.exists() and not out.is_dir():
        raise ConfigError("is a file", str(out), "choose a folder")
    if not out.exists() or all(path.name.startswith(STAGING) for path in out.iterdir()):
        return
    try:
        manifest = json.loads((out / "manifest.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        manifest = None
    # Other kinds of projects have a manifest.json, too.
    if not isinstance(manifest, dict) or not {"firmware_id", "model_sha256"} <= manifest.keys():
        raise ConfigError("is not empty and was not made by pmeta-gen", str(out), "choose another folder")


def _write_files(files: Mapping[str, str | bytes], out: Path) -> None:
    """Replace files and folders in `out`, after all of them were written beside; put back what was there on errors.

    One unit is replaced as a whole: a file at the top, and what lies in a folder at the top (lib/pmeta_model,
    src/link.c), so that nothing of an earlier generation stays in it.
    """
    with tempfile.TemporaryDirectory(prefix=STAGING, dir=out, ignore_cleanup_errors=True) as staging:
        new, old = Path(staging) / "new", Path(staging) / "old"
        for name, content in files.items():
            path = new / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        moves: list[tuple[Path, Path]] = []
        try:
            for unit in dict.fromkeys(Path(*Path(name).parts[:2]) for name in files):
                if os.path.lexists(out / unit):
                    _move(out / unit, old / unit, moves)
                _move(new / unit, out / unit, moves)
        except BaseException:
            for source, target in reversed(moves):
                target.rename(source)
            raise


def _move(source: Path, target: Path, moves: list[tuple[Path, Path]]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    source.rename(target)
    moves.append((source, target))


def _manifest(
    plan: Plan,
    constants: Mapping[str, str | bytes],
    model_sha256: str,
    command: str,
    boards: Sequence[Board],
    support: Support,
) -> Manifest:
    adaptation = plan.model.adaptation
    # The id stands in the sources and follows from them: as they are without it, and without the boards.
    anonymous = Title(comment_text(plan.model.graph.name), command="", model_sha256=model_sha256, firmware_id="00" * 16)
    return Manifest(
        firmware_id=firmware_id({**library_code(plan, anonymous, support), **constants}),
        model_sha256=model_sha256,
        command=command,
        numerics=tuple(board.numerics for board in boards),
        input_shape=plan.graph.input_shape,
        sample_bytes=sample_bytes(plan),
        ways=adaptation.ways,
        steps=adaptation.steps,
        boards=tuple(board.name for board in boards),
        tensors=tuple(LearnedTensor(w.name, w.layer, w.weight.shape, w.steps) for w in plan.learned),
        statics=statics(plan, support),
        loss=adaptation.loss,
        support=support.place,
        support_samples=support.samples,
        support_sha256=support.sha256,
    )


def _link_files(plan: Plan) -> dict[str, str]:
    """The link's loop for src/."""
    adaptation = plan.model.adaptation
    size = link_state_bytes(sample_bytes(plan), adaptation.ways, adaptation.regression)
    config = render("link/link_config.h.j2", link_max_payload=LINK_MAX_PAYLOAD, link_state_bytes=size)
    return {"src/link_config.h": config, **{f"src/{n}": text for n, text in files_in("link", (".c", ".h")).items()}}


def _golden_files(plan: Plan, title: Title, boards: Sequence[Board]) -> dict[str, str]:
    tensors = tuple(weight.name for weight in plan.learned)
    values = golden_values(plan.model, tensors, find_reference(), golden_samples(plan), {b.numerics for b in boards})
    header = render("project/golden.h.j2", title=title.title, model_sha256=title.model_sha256, **values)
    return {"test/test_golden/golden.h": header, "test/test_golden/test_main.c": template_text("project/test_main.c")}
