"""A command line with a default command: `pmeta-gen MODEL ...` generates, `pmeta-gen tables` does something else."""

from __future__ import annotations

import copy
from typing import Any

import typer.core


class DefaultCommandGroup(typer.core.TyperGroup):
    """Is its first command, unless the arguments begin with the name of another one.

    Help, messages and completion are then the first command's, under the name of the program; completion offers the
    names of the other commands, too. A file with the name of a command is reached as ./NAME.
    """

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        completing_first_word = not args and extra.get("resilient_parsing", False)
        if completing_first_word or (args and args[0] in self._others):
            return super().make_context(info_name, args, parent, **extra)
        return self._default.make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: Any) -> Any:
        return super().invoke(ctx) if ctx.command is self else ctx.command.invoke(ctx)

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        others = [item for item in super().shell_complete(ctx, incomplete) if item.value in self._others]
        with self._default.make_context(ctx.info_name, [], resilient_parsing=True) as own:
            return [*others, *self._default.shell_complete(own, incomplete)]

    @property
    def _default(self) -> Any:
        """The first command, with the options of the program that install completion."""
        command: Any = copy.copy(next(iter(self.commands.values())))
        command.params = [*command.params, *self.params]
        return command

    @property
    def _others(self) -> list[str]:
        return list(self.commands)[1:]
