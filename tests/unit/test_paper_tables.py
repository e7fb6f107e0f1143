"""`pmeta-gen tables`: what is printed in the paper beside what its accounting gives; and a program of two commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pmeta.codegen.cli import app
from pmeta.codegen.report.paper_tables import PLANS, Cell, PaperTable, paper_tables

pytestmark = pytest.mark.unit


def run(*arguments: str, **environment: str) -> Any:
    return CliRunner().invoke(app, arguments, prog_name="pmeta-gen", env={"COLUMNS": "80", **environment})


@pytest.fixture(scope="module")
def tables() -> tuple[PaperTable, ...]:
    seen: list[tuple[str, int, int]] = []
    found = paper_tables(lambda *stage: seen.append(stage))
    assert seen == [("plans", done, PLANS) for done in range(1, PLANS + 1)]
    return found


def test_all_printed_figures_but_three_are_reproduced(tables: tuple[PaperTable, ...]) -> None:
    cells = [(t.number, row.group, row.name, cell) for t in tables for row in t.rows for cell in row.cells]
    different = [(*where, cell.printed, round(cell.computed or 0, 2)) for *where, cell in cells if not cell.agrees]
    boil = (2, "ResNet12", "BOIL", "54.69", 54.68)
    assert different == [(1, "", "ResNet12", "370.44", 567.29), boil, boil]  # in 1-shot and in 5-shot
    assert all(bool(cell.why) != cell.agrees for *_, cell in cells)
    assert sum(cell.printed is not None and cell.computed is not None for *_, cell in cells) == 20 + 32 + 16


def test_rows_of_p_meta_are_printed_but_not_computed(tables: tuple[PaperTable, ...]) -> None:
    rows = [row for table in tables for row in table.rows if row.name.startswith("p-Meta")]
    assert len(rows) == 8
    assert all(cell.computed is None for row in rows for cell in row.cells)


@pytest.mark.parametrize(
    ("printed", "computed", "agrees"),
    [("0.90", 0.903168, True), ("0.90", 0.9051, False), ("32.0", 31.997, True), ("0.00008", 8e-5, True)],
)
def test_figures_agree_as_far_as_they_are_printed(printed: str, computed: float, agrees: bool) -> None:
    assert Cell(printed, computed).agrees is agrees


def test_terminal(tables: tuple[PaperTable, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pmeta.codegen.cli.paper_tables", lambda _: tables)
    done = run("tables")
    assert done.exit_code == 0 and "…" not in done.stdout  # nothing is cut off at 80 columns
    lines = done.stdout.splitlines()
    maml = next(n for n, line in enumerate(lines) if line.startswith("MAML "))
    assert lines[maml].split() == ["MAML", "0.39", "2.06", "1.96", "2.06"]
    assert lines[maml + 1].split()[:5] == ["computed", "0.392", "2.064", "1.962", "2.064"]
    assert "567.293¹" in done.stdout and done.stdout.count("54.679²") == 2


def test_json() -> None:
    found = json.loads(run("tables", "--json").stdout)
    assert [table["table"] for table in found] == [1, 2, 3]
    figures = found[0]["rows"][1]["figures"]
    assert figures["adaptation MB"]["computed"] == 567.2928 and "block 4" in figures["adaptation MB"]["why"]
    assert figures["model MB"] == {"printed": "32.0", "computed": 31.99746, "agrees": True}


# --- a program with a default command ------------------------------------------------------------------------


def test_the_generator_needs_no_name(tmp_path: Path) -> None:
    done = run("models/none.onnx", "--board", "native", "--out", str(tmp_path / "out"))
    assert "none.onnx" in str(done.exception)
    assert "none.onnx" in str(run("--board", "native", "--out", "out", "models/none.onnx").exception)


@pytest.mark.parametrize("command", ["tables", "gen"])
def test_a_file_with_the_name_of_a_command(command: str, tmp_path: Path) -> None:
    done = run(f"./{command}", "--board", "native", "--out", str(tmp_path / "out"))
    assert command in str(done.exception)


def test_help_explains_both() -> None:
    shown = run("--help").stdout
    assert "Usage: pmeta-gen [OPTIONS]" in shown and "--board" in shown and "--install-completion" in shown
    assert "pmeta-gen tables" in shown
    assert "Usage: pmeta-gen tables [OPTIONS]" in run("tables", "--help").stdout


def test_usage_errors_name_the_program() -> None:
    done = run()
    assert done.exit_code == 2 and "Usage: pmeta-gen [OPTIONS]" in done.stderr
    assert "Missing argument" in done.stderr


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["t"], {"tables"}),
        (["--bo"], {"--board"}),
        (["model.onnx", "--o"], {"--out", "--outputs"}),
        (["tables", "--j"], {"--json"}),
        (["models/"], set()),  # the shell completes files then
    ],
)
def test_completion(words: list[str], found: set[str]) -> None:
    environment = {"COMP_WORDS": " ".join(["pmeta-gen", *words]), "COMP_CWORD": str(len(words))}
    done = run(_PMETA_GEN_COMPLETE="complete_bash", **environment)
    completed = set(done.stdout.split())
    assert found <= completed and bool(found) == bool(completed)
