"""pmeta-gen: the same bytes every time, nothing half-written, and refusals that say what to do."""

from __future__ import annotations

import errno
import json
import os
import platform
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from typer.testing import CliRunner

import pmeta.codegen.project.generate as generate_module
from pmeta.codegen.adaptation import Model
from pmeta.codegen.boards import COMPILE_FLAGS
from pmeta.codegen.cli import app
from pmeta.codegen.errors import ConfigError, DataError, FitError, ModelError
from pmeta.codegen.graph import Graph
from pmeta.codegen.manifest import Manifest, firmware_id
from pmeta.codegen.modelfile import save_model
from pmeta.codegen.project import constants, fit, golden
from pmeta.codegen.project.generate import generate, write_project
from pmeta.codegen.project.resources import firmware_templates
from pmeta.codegen.report.macs import program_macs
from tests.compiled import compiler
from tests.models import random_4conv

pytestmark = pytest.mark.unit


def alpha_from(layer: int) -> np.ndarray:
    """Step sizes that update the layers from number `layer` on."""
    alpha = np.zeros((9, 3), np.float32)
    alpha[layer:] = 0.05
    return alpha


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.onnx"
    save_model(random_4conv(1, width=4, alpha=alpha_from(5)), path)
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_regenerating_gives_the_same_bytes(model_path: Path, tmp_path: Path) -> None:
    """In another process, where sets have another order, over what is there, with the boards in another order."""

    def pmeta_gen(hash_seed: str, out: str, *boards: str) -> None:
        arguments = [str(model_path), "--out", str(tmp_path / out), *(f"--board={board}" for board in boards)]
        program = "from pmeta.codegen.cli import main; main()"
        environment = os.environ | {"PYTHONHASHSEED": hash_seed}
        subprocess.run([sys.executable, "-c", program, *arguments], env=environment, check=True, capture_output=True)

    pmeta_gen("1", "a", "netduinoplus2", "native")
    pmeta_gen("2", "b", "native", "netduinoplus2", "native")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    pmeta_gen("3", "b", "netduinoplus2", "native")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_regenerating_replaces_what_was_generated_and_keeps_everything_else(model_path: Path, tmp_path: Path) -> None:
    own = (
        ".pmeta/native.json",
        ".git/config",
        "src/sensor.c",
        "lib/filter/filter.c",
        "test/test_filter/t.c",
        "notes.txt",
    )
    stale = ("lib/pmeta_model/src/pmeta_old_kernel.c", "src/boards/old/board.c")
    out = tmp_path / "p"
    write_project(generate(model_path, ["native", "netduinoplus2"]), out)
    for name in (*own, *stale):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text("mine")
    write_project(generate(model_path, ["native"]), out)
    write_project(generate(model_path, ["native"]), tmp_path / "fresh")
    kept = dict.fromkeys(own, b"mine")
    assert contents(out) == contents(tmp_path / "fresh") | kept


@pytest.mark.parametrize("name", ["thesis.tex", "manifest.json"])
def test_a_folder_of_somebody_else_is_left_alone(name: str, model_path: Path, tmp_path: Path) -> None:
    """A web application has a manifest.json as well."""
    (tmp_path / name).write_text('{"name": "my web application"}')
    with pytest.raises(ConfigError, match="was not made by pmeta-gen"):
        write_project(generate(model_path, ["native"]), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_the_folder_may_be_a_link_or_the_current_one(
    model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = generate(model_path, ["native"])
    for name in ("target", "here"):
        (tmp_path / name).mkdir()
    (tmp_path / "link").symlink_to("target")
    monkeypatch.chdir(tmp_path / "here")
    for _ in range(2):
        write_project(project, tmp_path / "link")
        write_project(project, Path())
    assert (tmp_path / "link").is_symlink()
    assert contents(tmp_path / "target") == contents(tmp_path / "here") == contents(Path())


@pytest.mark.parametrize("failing", [1, 6, 11])
def test_a_failure_leaves_the_folder_as_it_was(
    failing: int, model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_project(generate(model_path, ["native", "netduinoplus2"]), tmp_path / "p")
    before, calls, move = contents(tmp_path / "p"), [], generate_module._move

    def fails_once(source: Path, target: Path, moves: list[tuple[Path, Path]]) -> None:
        calls.append(source)
        if len(calls) == failing:
            raise OSError(errno.ENOSPC, "No space left on device")
        move(source, target, moves)

    monkeypatch.setattr(generate_module, "_move", fails_once)
    for name in ("p", "new"):
        calls.clear()
        with pytest.raises(ConfigError, match="No space left"):
            write_project(generate(model_path, ["native"]), tmp_path / name)
    assert contents(tmp_path / "p") == before
    assert [path.name for path in tmp_path.iterdir()] == ["p"]


def test_the_manifest_round_trips_and_refuses_damage(model_path: Path) -> None:
    manifest = generate(model_path, ["native"]).manifest
    text = manifest.to_json()
    assert Manifest.from_json(text, "manifest.json") == manifest
    for broken in ("", "[]", "{}", text.replace('"schema": 3', '"schema": 2'), text.replace('"steps"', '"stops"')):
        with pytest.raises(DataError):
            Manifest.from_json(broken, "manifest.json")


def test_a_manifest_edited_by_hand_is_damaged_or_still_one(model_path: Path) -> None:
    """Whatever stands in a field: no other error, and nothing of another type comes through."""
    fields = json.loads(generate(model_path, ["native"]).manifest.to_json())
    values = (None, -1, 10**30, 1.5, float("nan"), [], {}, [[]], [None], {"a": 1}, "x")
    places = [fields, fields["tensors"][0], fields["statics"][0]]
    for place in places:
        for key, value in [(key, value) for key in place for value in values]:
            good = place[key]
            place[key] = value
            try:
                manifest = Manifest.from_json(json.dumps(fields), "manifest.json")
            except DataError as error:
                assert str(error).startswith("manifest.json: ")
            else:
                assert type(value) is type(good)
                assert json.loads(manifest.to_json()) == fields
            place[key] = good
    with pytest.raises(DataError):
        Manifest.from_json("[" * 100_000, "manifest.json")


def test_too_large_says_by_how_much_and_what_would_fit(tmp_path: Path) -> None:
    save_model(random_4conv(1, width=32, alpha=alpha_from(0)), tmp_path / "wide.onnx")
    with pytest.raises(FitError) as caught:
        generate(tmp_path / "wide.onnx", ["native", "netduinoplus2"])
    assert "board 'netduinoplus2': needs " in str(caught.value)
    assert " more than the 131,072 there are; " in str(caught.value)


def test_weights_that_no_microcontroller_holds_are_refused(model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On this computer as well."""
    monkeypatch.setattr(fit, "MAX_CONSTANT_BYTES", 1000)
    with pytest.raises(FitError, match=r"the weights take [\d,]+ bytes, at most 1,000 can be generated; use a smaller"):
        generate(model_path, ["native"])


def test_an_arena_that_no_offset_reaches_is_refused(model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "MAX_ARENA_BYTES", 1000)
    with pytest.raises(FitError, match=r"needs an arena of [\d,]+ bytes, at most 1,000 are possible; let fewer layers"):
        generate(model_path, ["native"])


def test_many_constants_lie_in_a_file_of_their_own(model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same bytes every time; what the firmware computes has another name where they differ."""
    as_text = generate(model_path, ["native"])
    monkeypatch.setattr(constants, "TEXT_LIMIT", 0)
    first, again = generate(model_path, ["native"]), generate(model_path, ["native"])
    assert first.files == again.files
    source = "lib/pmeta_model/src/pmeta_weights"
    assert {f"{source}.S", f"{source}.bin"} == first.files.keys() - as_text.files.keys()
    assert {f"{source}.c"} == as_text.files.keys() - first.files.keys()
    data = first.files[f"{source}.bin"]
    assert isinstance(data, bytes)
    assert len(data) == constants.constant_bytes(first.plan)
    library = {"pmeta_weights.bin": data}
    assert firmware_id(library) != firmware_id({"pmeta_weights.bin": data[:-1] + bytes([data[-1] ^ 1])})


def test_golden_vectors_of_a_large_network_are_few(model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many support samples as a second allows; without any, the query alone."""
    macs = sum(program_macs(plan := generate(model_path, ["native"]).plan, plan.program(k)) for k in (1, 2, 3))
    for limit, samples in ((3 * macs, 3), (3 * macs - 1, 2), (macs - 1, 0)):
        monkeypatch.setattr(golden, "MAX_MACS", limit)
        header = str(generate(model_path, ["native"]).files["test/test_golden/golden.h"])
        assert f"#define GOLDEN_SAMPLES {samples}u" in header
        assert ("golden_support" in header) == (samples > 0)
        assert "golden_query" in header


def renamed(model: Model, names: dict[str, str]) -> Model:
    """The model with other node and weight names."""
    graph, adaptation = model.graph, model.adaptation
    nodes = []
    for node in graph.nodes:
        new = replace(node, name=names.get(node.name, node.name))
        for field in ("weight", "bias", "scale", "shift"):
            if isinstance(getattr(node, field, None), str):
                new = replace(new, **{field: names.get(getattr(node, field), getattr(node, field))})
        nodes.append(new)
    weights = {names.get(name, name): array for name, array in graph.weights.items()}
    attention = {names.get(name, name): value for name, value in adaptation.attention.items()}
    new_graph = Graph(names.get("", graph.name), graph.input, graph.input_shape, tuple(nodes), weights)
    return Model(new_graph, replace(adaptation, attention=attention))


HOSTILE = {
    "": 'x */ #error "title"\n{{ 7 * 7 }}',
    "conv1": "*/ int injected; /*",
    "norm1": "norm-1",
    "relu1": "norm_1",  # the same identifier as norm-1
    "conv4": "4 ünïcode \n\\",
    "fc1.weight": '"); system("x',
    "conv2.weight": "weight",  # as in pmeta_weight(), pmeta_step(), ...
    "conv3.weight": "step",
    "norm2.weight": "predict",
    "norm2.bias": "arena",
    "norm3.weight": "firmware_id",
    "fc1.bias": "",
}


def test_hostile_names_stay_names(tmp_path: Path) -> None:
    """Whatever the model calls its nodes and weights, the C compiles and says nothing of it."""
    model = random_4conv(1, width=4, alpha=alpha_from(0))
    save_model(renamed(model, {k: v for k, v in HOSTILE.items() if v}), tmp_path / "hostile.onnx")
    write_project(generate(tmp_path / "hostile.onnx", ["native"]), tmp_path / "p")
    for source in sorted((tmp_path / "p" / "lib" / "pmeta_model" / "src").glob("pmeta_[pw]*.c")):
        subprocess.run([compiler(), *COMPILE_FLAGS, "-c", str(source), "-o", "/dev/null"], check=True)
    assert "49" not in (tmp_path / "p" / "README.md").read_text().splitlines()[0]


def test_the_firmware_id_names_what_is_computed(model_path: Path, tmp_path: Path) -> None:
    """Not the boards it is generated for: a saved state moves between them. But every change of the code."""

    def identity(path: Path, *boards: str) -> str:
        return generate(path, boards).manifest.firmware_id

    first = identity(model_path, "native")
    assert identity(model_path, "native", "netduinoplus2") == first
    other = tmp_path / "other.onnx"
    save_model(random_4conv(2, width=4, alpha=alpha_from(0)), other)
    assert identity(other, "native") != first
    with mock.patch("pmeta.codegen.project.c_source.template_text", return_value="/* a later generator */"):
        assert identity(model_path, "native") != first


@pytest.mark.parametrize("flags", [["-ffast-math"], ["-std=gnu99", "-mfma"]])
def test_a_compiler_that_would_change_bits_is_refused(flags: list[str]) -> None:
    """Where the library is built without its own flags."""
    if "-mfma" in flags and not (platform.machine() == "x86_64" and "gcc" in compiler()):
        pytest.skip("for GCC on x86-64; clang keeps to a pragma")
    kernel = firmware_templates() / "kernels" / "pmeta_gemm.c"
    command = [compiler(), *flags, "-O2", "-c", str(kernel), "-o", "/dev/null"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode != 0
    assert "pmeta needs" in done.stderr
    accepted = ["-ffp-contract=off", "-DPMETA_FP_CONTRACT_OFF"] if "-mfma" in flags else ["-fno-fast-math"]
    subprocess.run([*command, *accepted], check=True)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["missing.onnx", "--board", "native"], ModelError.exit_code, "missing.onnx: cannot be read"),
        (["MODEL", "--board", "netduino"], ConfigError.exit_code, "did you mean netduinoplus2?"),
        (
            ["MODEL", "--board", "native", "--out", "/proc/pmeta"],
            ConfigError.exit_code,
            "/proc/pmeta: cannot be written",
        ),
        (
            ["MODEL", "--board", "native", "--out", "MODEL"],
            ConfigError.exit_code,
            "model.onnx: is a file; choose a folder",
        ),
        (
            ["MODEL", "--board", "native", "--out", "a" * 300],
            ConfigError.exit_code,
            "cannot be written (File name too long)",
        ),
    ],
)
def test_wrong_input_is_one_line(
    arguments: list[str], code: int, message: str, model_path: Path, tmp_path: Path
) -> None:
    filled = [str(model_path) if a == "MODEL" else a for a in arguments]
    if "--out" not in filled:
        filled += ["--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, filled)
    assert result.exception is not None
    assert getattr(result.exception, "exit_code", None) == code
    assert message in str(result.exception)
    assert "\n" not in str(result.exception)
    assert not (tmp_path / "out").exists()
