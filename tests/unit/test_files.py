"""Files in and out: nothing endless is read, nothing but files is replaced, nothing half-written stays."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pmeta.codegen.files import read_file, replacement

pytestmark = pytest.mark.unit


def test_reading(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    os.mkfifo(tmp_path / "pipe")
    assert read_file(tmp_path / "link", 7) == b"content"
    for name, limit, reason in (
        ("file", 6, "larger than 0 MiB"),
        ("pipe", 9, "not a regular file"),
        ("/dev/zero", 9, "not a regular file"),
        (".", 9, "Is a directory"),
        ("nothing", 9, "No such file"),
    ):
        with pytest.raises(OSError, match=reason):
            read_file(tmp_path / name, limit)


def test_replacing_a_file(tmp_path: Path) -> None:
    for content in (b"first", b"second"):
        with replacement(tmp_path / "file") as temporary:
            temporary.write_bytes(content)
        assert [path.name for path in tmp_path.iterdir()] == ["file"]
        assert (tmp_path / "file").read_bytes() == content


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_failure_leaves_the_old_file_alone(error: type[BaseException], tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    with pytest.raises(error), replacement(tmp_path / "file") as temporary:
        temporary.write_bytes(b"half of the n")
        raise error
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == b"old"


def test_devices_are_not_replaced(tmp_path: Path) -> None:
    """For root, `--out /dev/null` would otherwise turn it into a file."""
    os.mkfifo(tmp_path / "device")
    with pytest.raises(OSError, match="not a regular file"), replacement(tmp_path / "device"):
        pass
    assert (tmp_path / "device").is_fifo()
