"""How every command ends: an error a user can act on is one line and an exit code, never a traceback."""

from __future__ import annotations

import sys
from typing import NoReturn

import typer

from pmeta.codegen.errors import PmetaError

INTERRUPTED = 130  # 128 + SIGINT, as shells expect


def run(app: typer.Typer) -> NoReturn:
    """Run a Typer application and exit with the code that `pmeta.codegen.errors` documents."""
    try:
        app()
    except PmetaError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
    sys.exit(0)
