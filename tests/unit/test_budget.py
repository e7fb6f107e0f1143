"""A RAM budget: what is given up, in which order, and that the advice is true."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from typer.testing import CliRunner

from pmeta.codegen.adaptation import Model
from pmeta.codegen.boards import find_board
from pmeta.codegen.cli import app
from pmeta.codegen.errors import ConfigError, FitError
from pmeta.codegen.modelfile import load_model, save_model
from pmeta.codegen.plan.plan import make_plan
from pmeta.codegen.project.budget import Fitted, Limit, fitted
from pmeta.codegen.project.c_source import ram_model
from pmeta.codegen.project.fit import firmware_ram
from pmeta.codegen.project.generate import generate
from pmeta.codegen.project.memory_options import LOSSES, Loss, MemoryOptions, size_in_bytes
from pmeta.codegen.storage import Storage
from tests.models import random_4conv, with_storage

pytestmark = pytest.mark.unit


def model(attention: bool = False) -> Model:
    """From conv2 on all layers learn, in two steps."""
    return random_4conv(1, width=8, steps=2, attention=attention, alpha=learning_from(2))


def learning_from(first: int) -> npt.NDArray[np.float32]:
    alpha = np.full((9, 2), 0.05, np.float32)
    alpha[:first] = 0
    return alpha


def within(model: Model, ram: int, *allow: Loss) -> Fitted:
    return fitted(make_plan(model), Limit.of((), ram), frozenset(allow))


def library_ram(model: Model) -> int:
    return ram_model(make_plan(model))


def test_what_fits_stays_as_it_is() -> None:
    found = within(model(), library_ram(model()), *LOSSES)
    assert (found.given_up, found.saved) == ((), 0)
    assert found.plan.model.adaptation.storage == Storage()


def test_the_limit_is_kept_to_the_byte() -> None:
    need = library_ram(model())
    with pytest.raises(FitError, match=rf"--ram: needs {need:,} bytes of RAM, 1 more than the {need - 1:,} there are"):
        within(model(), need - 1)
    found = within(model(), need - 1, "store")
    assert ram_model(found.plan) <= need - 1
    assert found.saved == need - ram_model(found.plan)


def test_bits_are_given_up_before_layers() -> None:
    coarse = min(library_ram(with_storage(model(), Storage(kept, "float16"))) for kept in ("float16", "int8"))
    by_bits = within(model(), coarse, *LOSSES)
    assert by_bits.plan.model.adaptation.alpha[2:].all()
    assert by_bits.given_up and all("--store" in text or "--maps" in text for text in by_bits.given_up)
    by_layers = within(model(), coarse - 1, *LOSSES)
    assert by_layers.given_up[-1] == "conv2 no longer learns"


def test_no_more_layers_than_needed_stop_to_learn() -> None:
    found = within(model(), 20_000, "layers")
    first = int((found.plan.model.adaptation.alpha[:, 0] == 0).sum())
    assert first > 2 and ram_model(found.plan) <= 20_000
    assert library_ram(random_4conv(1, width=8, steps=2, attention=False, alpha=learning_from(first - 1))) > 20_000


def test_time_is_given_up_before_anything_else() -> None:
    """Attention first, gradients then: the same bits in less RAM."""
    attended = random_4conv(1, width=8, steps=2)
    need = library_ram(attended)
    found = within(attended, need - 1)
    assert found.plan.model is attended
    assert len(found.given_up) == 1 and found.given_up[0].startswith("time, but no bit: ")
    assert ram_model(found.plan) < 0.6 * need
    assert found.saved == need - ram_model(found.plan)
    less = within(attended, ram_model(found.plan) - 1, *LOSSES)
    assert less.given_up[0].startswith("time") and len(less.given_up) > 1


def test_attention_drops_more_channels_where_that_is_allowed() -> None:
    attended, need = model(attention=True), library_ram(model(attention=True))
    found = within(attended, need - 1, "rho")
    assert found.plan.model.adaptation.rho_fw == 400
    assert found.given_up == ("the clip ratio of forward attention is 0.4, not 0.3",)
    with pytest.raises(FitError):
        within(model(attention=False), library_ram(model()) - 1, "rho")  # there is no attention


@pytest.mark.parametrize("ram", [30_000, 25_000, 20_000, 12_000])
def test_the_advice_is_true(ram: int) -> None:
    with pytest.raises(FitError) as caught:
        within(model(), ram)
    advice = re.search(r"with --allow ([a-z,]+) ([\d,]+) bytes would do: ", str(caught.value))
    assert advice is not None
    allow, need = advice.groups()
    found = within(model(), ram, *allow.split(","))
    assert ram_model(found.plan) == int(need.replace(",", "")) <= ram
    assert str(caught.value).endswith("; ".join(found.given_up))


def test_nothing_helps_a_hopeless_case() -> None:
    with pytest.raises(FitError, match="even with the last layer alone it is too large"):
        within(model(), 100, *LOSSES)


def test_on_boards_the_whole_firmware_counts() -> None:
    limit = Limit.of([find_board("native"), find_board("netduinoplus2")], None)
    assert limit is not None
    assert (limit.bytes, limit.where, limit.count) == (128 << 10, "board 'netduinoplus2'", firmware_ram)
    smaller = Limit.of([find_board("netduinoplus2")], 1000)
    assert smaller is not None and (smaller.bytes, smaller.where, smaller.count) == (1000, "--ram", firmware_ram)
    assert Limit.of([find_board("native")], None) is None


def test_the_project_holds_the_model_as_it_runs(tmp_path: Path) -> None:
    """The host tool reads model.onnx: what was given up is in it, and the command repeats it."""
    path = tmp_path / "model.onnx"
    save_model(model(), path)
    options = MemoryOptions(ram=library_ram(model()) - 1, allow=frozenset(LOSSES))
    project = generate(path, ["native"], memory=options)
    (tmp_path / "deployed.onnx").write_bytes(bytes(project.files["model.onnx"]))  # type: ignore[arg-type]
    deployed = load_model(tmp_path / "deployed.onnx").adaptation
    assert deployed.storage == project.plan.model.adaptation.storage != Storage()
    assert project.manifest.command.endswith(f"--allow store,rho,layers --ram {options.ram}")
    again = generate(tmp_path / "deployed.onnx", ["native"])
    assert again.plan.arena_bytes == project.plan.arena_bytes


def test_storage_from_the_command_line(tmp_path: Path) -> None:
    save_model(model(), tmp_path / "model.onnx")
    arguments = [str(tmp_path / "model.onnx"), "--board", "native", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, [*arguments, "--store", "int8", "--maps", "float16", "--json"])
    answer = json.loads(done.stdout)
    assert answer["manifest"]["command"] == "pmeta-gen model.onnx --board native --maps float16 --store int8"
    assert (answer["given_up"], answer["saved_bytes"]) == ([], 0)
    assert load_model(tmp_path / "out" / "model.onnx").adaptation.storage == Storage("int8", "float16")
    done = CliRunner().invoke(app, [*arguments, "--ram", "30K", "--allow", "store,layers"])
    assert re.search(r"Given up  .*;\s+that\s+saves\s+[\d,]+\s+B", done.stdout, re.DOTALL)


@pytest.mark.parametrize(
    ("text", "size"), [("65536", 65536), ("64K", 65536), ("64kb", 65536), ("64KiB", 65536), ("1M", 1 << 20)]
)
def test_sizes(text: str, size: int) -> None:
    assert size_in_bytes(text) == size


@pytest.mark.parametrize("text", ["", "K", "-1", "1.5K", "1G", "64 K", "٣", "9" * 12])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ConfigError, match="is no size; pass one such as 65536, 64K or 1M"):
        size_in_bytes(text)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"ram": 0}, "--ram: 0 bytes; pass a size"),
        ({"store": "float8"}, "--store: there is no 'float8'; choose from: float32, float16, int8"),
        ({"maps": "int8"}, "--maps: there is no 'int8'; choose from: float32, float16"),
        ({"allow": frozenset({"", "store"})}, "--allow: there is no ''; choose from: store, rho, layers"),
    ],
)
def test_wrong_options(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MemoryOptions(**fields)  # type: ignore[arg-type]


def test_what_more_time_would_save_is_said() -> None:
    attended = random_4conv(1, width=8, steps=2)
    need = library_ram(attended)
    there = within(attended, need)
    least = ram_model(within(attended, need - 1).plan)
    assert (there.given_up, there.slower) == ((), least)
    assert within(attended, least).slower is None and within(model(), library_ram(model())).slower is None
    with pytest.raises(FitError, match=rf"needs {least:,} bytes of RAM, 1 more than the {least - 1:,} there are"):
        within(attended, least - 1)
