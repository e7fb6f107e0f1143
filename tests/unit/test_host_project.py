"""Opening a generated project: everything that can be wrong with it is one line."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest

from pmeta.codegen.errors import ConfigError, DataError, LinkError
from pmeta.codegen.modelfile import sha256_of
from pmeta.codegen.support import support_sha256
from pmeta.host.project import Project, open_project
from tests.link_support.fake_library import fake_manifest, fake_task

pytestmark = pytest.mark.unit


@pytest.fixture
def project(tmp_path: Path) -> Project:
    model = tmp_path / "model.onnx"
    model.write_bytes(b"model")
    manifest = dataclasses.replace(fake_manifest(), model_sha256=sha256_of(model))
    (tmp_path / "manifest.json").write_text(manifest.to_json(), encoding="utf-8")
    return open_project(tmp_path)


def note_port(project: Project, text: str) -> None:
    (project.folder / ".pmeta").mkdir(exist_ok=True)
    (project.folder / ".pmeta" / "native.json").write_text(text, encoding="utf-8")


def test_port_of_a_running_board(project: Project) -> None:
    note_port(project, json.dumps({"port": "socket://127.0.0.1:5000", "pid": os.getpid()}))
    assert project.port("native") == "socket://127.0.0.1:5000"


def test_a_board_that_was_not_started_or_has_ended(project: Project) -> None:
    with pytest.raises(LinkError, match=r"board 'native' is not running; start it with `pio run -t upload -e native`"):
        project.port("native")
    child = os.posix_spawn("/bin/true", ["true"], {})
    os.waitpid(child, 0)
    for pid in (child, -1, 2**31, 10**30):
        note_port(project, json.dumps({"port": "/dev/pts/99", "pid": pid}))
        with pytest.raises(LinkError, match="is no longer running"):
            project.port("native")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"port": "x"}', "\x00", '{"port": 1, "pid": "x"}'])
def test_a_damaged_note(project: Project, text: str) -> None:
    note_port(project, text)
    with pytest.raises((DataError, LinkError), match="pio run -t upload"):
        project.port("native")


def test_a_board_it_was_not_generated_for(project: Project) -> None:
    with pytest.raises(ConfigError, match="choose one of: native"):
        project.port("../../etc")


def test_the_model_must_be_the_firmwares(project: Project) -> None:
    assert project.checked_model_path() == project.model_path
    project.model_path.write_bytes(b"another")
    with pytest.raises(DataError, match=r"is not the model of manifest\.json"):
        project.checked_model_path()
    project.model_path.unlink()
    with pytest.raises(DataError, match="is missing"):
        project.checked_model_path()


def test_no_project(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="pass the folder pmeta-gen wrote"):
        open_project(tmp_path)


def test_tasks_must_fit_the_model(project: Project) -> None:
    task = fake_task()
    assert np.array_equal(project.fitting(task).support_x, task.support_x)
    smaller = dataclasses.replace(task, support_x=task.support_x[:, :, :5], query_x=task.query_x[:, :, :5])
    with pytest.raises(DataError, match=r"samples of shape \(1, 5, 25\), the model 5 and \(1, 28, 25\)"):
        project.fitting(smaller)
    with pytest.raises(DataError, match="has 6 classes"):
        project.fitting(dataclasses.replace(task, class_names=tuple("abcdef")))
    floats = dataclasses.replace(project.manifest, sample_bytes=4 * int(np.prod(task.support_x.shape[1:])))
    with pytest.raises(DataError, match="has samples of uint8, the model takes float32"):
        Project(project.folder, floats).fitting(task)
    with pytest.raises(DataError, match=r"teaches numbers, the model learns classes \(loss: softmax_cross_entropy\)"):
        project.fitting(fake_task(regression=True))


def test_a_support_set_must_fit_where_it_lies(project: Project) -> None:
    def kept(place: str, samples: int, sha256: str = "") -> Project:
        fields = {"support": place, "support_samples": samples, "support_sha256": sha256}
        return Project(project.folder, dataclasses.replace(project.manifest, **fields))  # type: ignore[arg-type]

    task, other = fake_task(), fake_task(seed=1)
    assert kept("ram", 5).fitting(task).name == task.name
    with pytest.raises(DataError, match="has 5 support samples, the device keeps 4 at most"):
        kept("ram", 4).fitting(task)
    in_flash = kept("flash", 5, support_sha256(task))
    assert in_flash.fitting(task).name == task.name
    with pytest.raises(DataError, match="has another support set than lies in flash"):
        in_flash.fitting(other)


def test_samples_of_one_row_come_without_it(project: Project) -> None:
    """(C, L) for a model of (C, 1, L), but for no other model."""
    task = fake_task()
    rows = dataclasses.replace(
        task, support_x=task.support_x.reshape(-1, 4, 175), query_x=task.query_x.reshape(-1, 4, 175)
    )
    one_row = dataclasses.replace(project.manifest, input_shape=(4, 1, 175))
    fitted = Project(project.folder, one_row).fitting(rows)
    assert fitted.support_x.shape == (5, 4, 1, 175)
    assert fitted.support_x.tobytes() == rows.support_x.tobytes()
    for shape in ((4, 175, 1), (1, 4, 175), (4, 5, 35)):
        with pytest.raises(DataError, match=r"samples of shape \(4, 175\)"):
            Project(project.folder, dataclasses.replace(project.manifest, input_shape=shape)).fitting(rows)
