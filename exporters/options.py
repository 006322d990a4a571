"""Shared options of commands, and a command group that imports each command when it runs."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from platformdirs import user_cache_path
from typer.core import TyperCommand, TyperGroup

DEFAULT_CATALOG = "starter"
DEFAULT_CACHE = user_cache_path("punctual")

CatalogOption = Annotated[str, typer.Option("--catalog", help="starter, hub or a file")]
CacheOption = Annotated[Path, typer.Option("--cache", envvar="PUNCTUAL_CACHE", help="the folder of variants")]
FloorOption = Annotated[
    float | None,
    typer.Option(
        "--floor",
        help="the least agreement of a variant with its source, 0 to 1; lower it for random weights "
        "(default: its kind's own)",
    ),
]


class LazyCommand(TyperCommand):
    """A placeholder for a command until it runs. `target` is `package.module:name`, a function or a `typer.Typer`."""

    def __init__(self, name: str, target: str, about: str) -> None:
        super().__init__(name, help=about, short_help=about)
        self._target = target

    def make_context(self, *arguments: Any, **more: Any) -> Any:
        """Imports the real command and returns its context."""
        module, _, name = self._target.partition(":")
        found = getattr(import_module(module), name)
        if not isinstance(found, typer.Typer):
            app = typer.Typer(add_completion=False, rich_markup_mode=None)
            app.command(self.name)(found)
            found = app
        return typer.main.get_command(found).make_context(*arguments, **more)


def lazy_group(table: Mapping[str, tuple[str, str]]) -> type[TyperGroup]:
    """A class for `typer.Typer(cls=...)`. `table` maps each command's name to its target and help."""

    class LazyGroup(TyperGroup):
        def __init__(self, *arguments: Any, **more: Any) -> None:
            super().__init__(*arguments, **more)
            for name, (target, about) in table.items():
                self.add_command(LazyCommand(name, target, about))

    return LazyGroup
