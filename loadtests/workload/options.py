"""The options by which a command names a scenario and changes its numbers, such as `--loads 0.5 2 --seeds 1 2 3`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

import typer
from typer.core import TyperCommand

SEVERAL = ("--loads", "--cvs", "--seeds")
"""Options that take several values at once."""


def positive(text: str) -> float:
    """Reads a positive, finite number. Raises BadParameter."""
    value = float(text) if _is_number(text) else 0.0
    if not 0 < value < float("inf"):
        raise typer.BadParameter("must be a positive number")
    return value


def writable(text: str) -> Path:
    """A file that can be written, by its folder: said before an hour of runs, not after. Raises BadParameter."""
    path = Path(text)
    if not path.parent.is_dir() or path.is_dir():
        raise typer.BadParameter(f"{path} cannot be written there")
    return path


_OWN = "(default: the scenario's)"
ScenarioArgument = Annotated[str, typer.Argument(help="a shipped scenario's name, or a file")]
LoadsOption = Annotated[list[float] | None, typer.Option(parser=positive, metavar="LOAD...", help=_OWN)]
CvsOption = Annotated[list[float] | None, typer.Option(parser=positive, metavar="CV...", help=_OWN)]
SeedsOption = Annotated[list[int] | None, typer.Option(metavar="SEED...", help=_OWN)]
SecondsOption = Annotated[
    float | None, typer.Option(parser=positive, metavar="S", help=f"of each run, beside the warm-up {_OWN}")
]
JsonOption = Annotated[
    Path | None,
    typer.Option(parser=writable, metavar="FILE", help="write every run there; JSON Lines where it ends in .jsonl"),
]
HtmlOption = Annotated[
    Path | None, typer.Option(parser=writable, metavar="FILE", help="write a page of plots and tables there")
]


class ScenarioCommand(TyperCommand):
    """A command whose options for a scenario's numbers take several values at once, as `--loads 0.5 1 2` does."""

    alone: ClassVar[Mapping[str, str]] = {}
    """What an option means where no number follows it."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Gives click the words as it knows them."""
        return super().parse_args(ctx, list(spread(args, self.alone)))


def spread(words: Sequence[str], alone: Mapping[str, str]) -> Iterator[str]:
    """Writes `--loads 1 2` as `--loads 1 --loads 2`, and gives an option of `alone` its number where it has none."""
    option = ""
    for word, following in zip(words, (*words[1:], ""), strict=True):
        if option and _is_number(word):
            yield from (option, word)
            continue
        option = word if word in SEVERAL and _is_number(following) else ""
        if not option:
            yield word
        if word in alone and not _is_number(following):
            yield alone[word]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
