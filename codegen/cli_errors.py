"""How every command ends: an error a user can act on is one line and an exit code, never a traceback."""

from __future__ import annotations

import contextlib
import io
import sys
from typing import NoReturn

import typer

from pmeta.codegen.errors import DataError, PmetaError

INTERRUPTED = 130  # 128 + SIGINT, as shells expect
OUTPUT_CLOSED = 1  # as Typer has it: `| head` has seen enough


def run(app: typer.Typer) -> NoReturn:
    """Run a Typer application and exit with the code that `pmeta.codegen.errors` documents."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that has no ü shows \xfc
    try:
        try:
            app()
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except PmetaError as known:
        _end(f"error: {known}", known.exit_code)
    except KeyboardInterrupt:
        _end("interrupted", INTERRUPTED)
    except BrokenPipeError:
        _give_up_output()
        _end("", OUTPUT_CLOSED)
    except MemoryError:
        _end(
            f"error: {DataError('needs more memory than there is', 'input', 'use a smaller one')}", DataError.exit_code
        )
    except OSError as problem:
        _give_up_output()
        error = DataError(str(problem.strerror), str(problem.filename or "output"), "choose another place")
        _end(f"error: {error}", error.exit_code)
    sys.exit(0)


def _give_up_output() -> None:
    """Else the interpreter tries once more, at its end, to write what is left, and reports that it cannot."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stdout.close()


def _end(message: str, exit_code: int) -> NoReturn:
    if message:
        print(message, file=sys.stderr)
    sys.exit(exit_code)
