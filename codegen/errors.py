"""The one tree of errors a user can meet, and the exit codes of all three commands.

Every message is one line of three parts: what went wrong, where, and what to do. The commands print it and
exit with the class's code; nothing else is shown. A traceback therefore always means a bug in pmeta.

    0  success
    1  the answer is "no": `pmeta-host verify` found a difference
    2  wrong usage of the command line (Typer's own)
    130  Ctrl-C
    PmetaError
    ├── ConfigError   3  a configuration or an option has a wrong key or value
    ├── ModelError    4  the model file is not what it should be
    │   └── UnsupportedError  4  the model is sound, but uses something pmeta cannot generate
    ├── FitError      5  the model does not fit the board
    ├── DataError     6  a data set, task file or other input is missing or damaged, or output has no room
    ├── BuildError    7  a compiler, emulator or other tool is missing or failed
    ├── LinkError     8  the device cannot be reached, or fell silent
    └── DeviceError   9  the device answers, but refuses (another model's firmware, an error code)
"""

from __future__ import annotations

EXIT_CODES = (
    "Exit codes: 0 success, 1 verify found a difference, 2 usage, 3 configuration or option, 4 model damaged or "
    "unsupported, 5 does not fit the board, 6 data, 7 a tool is missing or failed, 8 no link to the device, "
    "9 the device refuses, 130 Ctrl-C."
)  # as all three commands' --help ends
LONGEST = 600  # characters of one part of a message; names in a damaged file may be far longer


def printable(text: str) -> str:
    """`text` as a terminal may show it: file and tensor names can hold line ends and control sequences."""
    if len(text) > LONGEST:
        text = f"{text[: LONGEST // 2]} … {text[-LONGEST // 2 :]}"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class PmetaError(Exception):
    """An error the user can act on: what happened, where, and what to do about it."""

    exit_code = 1

    def __init__(self, what: str, where: str, todo: str) -> None:
        super().__init__("; ".join((printable(f"{where}: {what}"), printable(todo))))
        self.what = what
        self.where = where
        self.todo = todo


class ConfigError(PmetaError):
    """A configuration file or option has a wrong key or value."""

    exit_code = 3


class ModelError(PmetaError):
    """The model file is damaged, or contradicts itself."""

    exit_code = 4


class UnsupportedError(ModelError):
    """The model is valid ONNX, but uses an operator or attribute that pmeta cannot generate."""


class FitError(PmetaError):
    """The planned firmware needs more memory than the board has."""

    exit_code = 5


class DataError(PmetaError):
    """A data set, task file or other input is missing or damaged."""

    exit_code = 6


class BuildError(PmetaError):
    """A compiler, emulator or other tool is missing or failed."""

    exit_code = 7


class LinkError(PmetaError):
    """The device cannot be reached, or no longer answers."""

    exit_code = 8


class DeviceError(PmetaError):
    """The device answers, but refuses what it is asked."""

    exit_code = 9
