"""pmeta-train: data sets and configurations in, model.onnx out. Each command is a file of `pmeta.trainer.commands`."""

from __future__ import annotations

from typing import NoReturn

import typer

from pmeta.codegen import cli_errors
from pmeta.codegen.errors import EXIT_CODES
from pmeta.trainer.commands.attention import attention
from pmeta.trainer.commands.compare import compare
from pmeta.trainer.commands.datasets import datasets
from pmeta.trainer.commands.episode import episode
from pmeta.trainer.commands.evaluate import evaluate
from pmeta.trainer.commands.tasks import tasks
from pmeta.trainer.commands.train import train

app = typer.Typer(
    help="Meta-train networks that learn on microcontrollers.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command(epilog="Example: pmeta-train train icons-quick.toml --out model.onnx")(train)
app.command(epilog="Example: pmeta-train evaluate model.onnx --tasks 600")(evaluate)
app.command(epilog="Example: pmeta-train attention model.onnx --out attention.png")(attention)
app.command(epilog="Example: pmeta-train compare icons/5way-1shot icons/5way-5shot --out comparison")(compare)
app.command(epilog="Example: pmeta-train tasks --data icons --count 20 --out tasks.npz")(tasks)
app.command(epilog="Example: pmeta-train episode --data omniglot --out episode.png")(episode)
app.command(epilog="Example: pmeta-train datasets")(datasets)


def main() -> NoReturn:
    """The console script."""
    cli_errors.run(app)


if __name__ == "__main__":
    main()
