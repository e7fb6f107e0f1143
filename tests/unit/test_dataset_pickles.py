"""The allow-list unpickler: what numpy writes is read alike, everything else is refused before it does anything."""

from __future__ import annotations

import contextlib
import os
import pickle
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pmeta.codegen.errors import DataError
from pmeta.trainer.datasets.pickles import load_pickle, loads_pickle

pytestmark = pytest.mark.unit

ARRAYS = {
    "bytes": np.arange(12, dtype=np.uint8).reshape(3, 4),
    "long": np.arange(5000, dtype=np.uint8).reshape(2, 50, 50),
    "Fortran order": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "big endian": np.arange(1000, dtype=">i4"),
    "empty": np.zeros((0, 3), np.float32),
    "no dimension": np.array(7),
    "truth": np.array([True, False]),
    "text": np.array(["ab", "c"]),
    "byte text": np.array([b"ab", b"c"]),
}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_arrays_come_back(protocol: int) -> None:
    read = loads_pickle(pickle.dumps(ARRAYS, protocol), "test")
    assert list(read) == list(ARRAYS)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(read[name], array, strict=True)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_plain_objects_come_back(protocol: int) -> None:
    plain = {
        "list": [0, -1, 255, 65536, -(2**31), 10**15, 1.5, None, True],
        3: ("t", (), (1, 2, 3, 4)),
        "é": "x" * 1000,
    }
    assert loads_pickle(pickle.dumps(plain, protocol), "test") == plain


@pytest.mark.parametrize("protocol", [2, 4])
def test_arrays_of_arrays_scalars_and_shared_objects(protocol: int) -> None:
    ragged = np.array([np.arange(3), np.arange(2)], dtype=object)
    read, scalar, first, second = loads_pickle(
        pickle.dumps([ragged, np.float32(3.5), ragged[0], ragged[0]], protocol), "test"
    )
    assert [row.tolist() for row in read] == [[0, 1, 2], [0, 1]]
    assert scalar == 3.5 and isinstance(scalar, np.float32)
    assert first is second is read[0]


def python2_string(content: bytes) -> bytes:
    """A `str` of Python 2, as its pickler writes it in protocol 2."""
    if len(content) < 256:
        return b"U" + bytes([len(content)]) + content
    return b"T" + struct.pack("<i", len(content)) + content


def python2_array(array: np.ndarray[Any, Any]) -> bytes:
    """An array as NumPy under Python 2 writes it in protocol 2, byte for byte but for the memo."""
    code = python2_string(array.dtype.str[1:].encode())
    dtype = b"cnumpy\ndtype\n" + code + b"K\x00K\x01\x87R(K\x03" + python2_string(b"|") + b"NNNJ\xff\xff\xff\xff"
    dtype += b"J\xff\xff\xff\xffK\x00tb"
    shape = b"(" + b"".join(b"\x8a\x04" + struct.pack("<i", size) for size in array.shape) + b"t"  # Python-2 longs
    head = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    return head + b"(K\x01" + shape + dtype + b"\x89" + python2_string(array.tobytes()) + b"tb"


@pytest.mark.parametrize("size", [4, 400])  # strings below and above 256 bytes are different opcodes
def test_python_2_pickle_is_read(size: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, size), np.uint8)
    latin = "Löwe".encode("latin-1")
    content = b"\x80\x02}(" + python2_string(b"image_data") + python2_array(images)
    content += python2_string(b"class_dict") + b"}" + python2_string(latin) + b"]" + b"(K\x00K\x01e" + b"s" + b"u."
    expected = pickle.loads(content, encoding="latin1")
    read = loads_pickle(content, "test")
    np.testing.assert_array_equal(read["image_data"], images, strict=True)
    np.testing.assert_array_equal(expected["image_data"], images)
    assert read["class_dict"] == expected["class_dict"] == {"Löwe": [0, 1]}


def test_large_arrays_stay_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "large.pkl"
    path.write_bytes(pickle.dumps(np.zeros(20_000_000, np.uint8), 4))
    tracemalloc.start()
    array = load_pickle(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert array.shape == (20_000_000,) and not array.flags.writeable
    assert peak < 1_000_000


class Calls:
    """Pickled as a call of `function`."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_commands_are_refused_and_not_run(tmp_path: Path, protocol: int) -> None:
    canary = tmp_path / "canary"
    content = pickle.dumps({"image_data": Calls(os.system, f"touch {canary}")}, protocol)
    path = tmp_path / "evil.pkl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"evil\.pkl: (asks for (posix|nt)\.system|holds the pickle opcode)"):
        load_pickle(path)
    assert not canary.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps(Calls(eval, "1"), 4), r"asks for builtins\.eval"),
        (pickle.dumps(Calls(getattr, 1, "real"), 4), r"asks for builtins\.getattr"),
        (pickle.dumps(np.load, 4), r"asks for numpy\.load"),
        (pickle.dumps(np.random.default_rng(0), 4), "asks for numpy.random"),
        (pickle.dumps({1, 2}, 4), "opcode EMPTY_SET"),
        (pickle.dumps(np.zeros(2, [("a", "u1")]), 4), "array of type 'V1'"),
        (pickle.dumps(np.datetime64("2020"), 4), "array of type 'M8'"),
        (pickle.dumps(np.ma.zeros(3), 4), r"asks for numpy\.ma"),
        (b"\x80\x02cnumpy\nndarray\nK\x01\x85R.", "no pickle, or a damaged one"),  # ndarray(1)
        (b"\x80\x02c_codecs\nencode\nU\x01aU\x03zip\x86R.", "asks for the encoding 'zip'"),
        (b"\x80\x02cnumpy\ndtype\n}U\x01aK\x01sb.", "no pickle, or a damaged one"),  # sets an attribute of a function
    ],
)
def test_everything_else_is_refused_by_name(content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        loads_pickle(content, "test")


def array_pickle(shape: tuple[int, ...], code: str, content: bytes) -> bytes:
    """An array with a shape and type of one's own choice."""
    honest = pickle.dumps(np.zeros(1, np.uint8), 4)
    machine_state = pickle.dumps((1, shape, np.dtype(code), False, content), 4)[11:-1]  # without PROTO, FRAME, STOP
    head = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R"
    assert honest.startswith(b"\x80\x04")
    return b"\x80\x04" + head + machine_state + b"b."


@pytest.mark.parametrize(
    "content",
    [
        array_pickle((10**12,), "u1", b"abc"),
        array_pickle((-1,), "u1", b""),
        array_pickle((2,), "f4", b"1234567"),
        array_pickle((10**9, 10**9), "O", b""),
        b"\x80\x02T\xff\xff\xff\x7fabc.",  # 2 GiB of text
        b"\x80\x02T\xff\xff\xff\xffabc.",  # -1 bytes
        b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"abc.",
        b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b"abc.",  # a bytearray of 1 TiB
        b"\x80\x04\x95" + struct.pack("<Q", 2**40) + b"N.",  # a frame of 1 TiB
        b"\x80\x02Nr\xff\xff\xff\xff(t",  # a memo of 2**32 entries, then no end
        b"\x80\x02(" * 3,
        b"\x80\x02}(KaKb.",
        b"\x80\x02}]Nsb.",  # a list as a key
        b"\x80\x02h\x05.",
        b"\x80\x02e.",
        b"\x80\x02\x87.",
        b"\x80\x02.",
        b"\x80\x02NN.",
        b"\x80\x09N.",
        b"\x80\x02c" + b"a" * 10_000,
        b"\x80",
        b"",
    ],
)
def test_damaged_and_lying_pickles_take_no_memory(content: bytes) -> None:
    tracemalloc.start()
    with pytest.raises(DataError, match="no pickle, or a damaged one"):
        loads_pickle(content, "test")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000


def test_every_shortened_pickle_is_refused() -> None:
    content = pickle.dumps(ARRAYS, 4)
    for end in range(0, len(content), 7):
        with pytest.raises(DataError):
            loads_pickle(content[:end], "test")


@pytest.mark.parametrize("seed", range(20))
def test_flipped_bits_never_get_past_the_reader(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(50):
        content = bytearray(pickle.dumps(ARRAYS, int(rng.integers(2, 6))))
        for position in rng.integers(0, len(content), 3):
            content[position] ^= 1 << int(rng.integers(8))
        with contextlib.suppress(DataError):
            loads_pickle(bytes(content), "test")


def test_missing_empty_and_special_files(tmp_path: Path) -> None:
    empty = tmp_path / "empty.pkl"
    empty.touch()
    for path in (tmp_path / "missing.pkl", empty, tmp_path):
        with pytest.raises(DataError, match="cannot be read"):
            load_pickle(path)
