"""Options that name a scenario and override its numbers, such as `--loads 0.5 2 --seeds 1 2 3`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, ClassVar

import typer
from typer.core import TyperCommand

from loadtests.options import positive

SEVERAL = ("--loads", "--cvs", "--seeds")
"""Options that take several values at once."""


def writable(text: str) -> Path:
    """Checks that a file's folder exists, before an hour of runs. Raises BadParameter."""
    path = Path(text)
    if not path.parent.is_dir() or path.is_dir():
        raise typer.BadParameter(f"{path} cannot be written there")
    return path


_OWN = "(default: the scenario's)"
ScenarioArgument = Annotated[str, typer.Argument(help="the name of a shipped scenario, or a file")]
LoadsOption = Annotated[
    list[float] | None, typer.Option(parser=positive, metavar="LOAD...", help=f"multiples of the capacity {_OWN}")
]
CvsOption = Annotated[
    list[float] | None, typer.Option(parser=positive, metavar="CV...", help=f"of the interarrival times {_OWN}")
]
SeedsOption = Annotated[list[int] | None, typer.Option(metavar="SEED...", help=_OWN)]
SecondsOption = Annotated[
    float | None, typer.Option(parser=positive, metavar="S", help=f"of each run, without the warm-up {_OWN}")
]
JsonOption = Annotated[
    Path | None,
    typer.Option(parser=writable, metavar="FILE", help="write every run there; JSON Lines where it ends in .jsonl"),
]
MarkdownOption = Annotated[
    Path | None, typer.Option(parser=writable, metavar="FILE", help="write the tables there, in Markdown")
]
JobsOption = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="processes; does not change results (default: the number of cores)"),
]
HtmlOption = Annotated[
    Path | None, typer.Option(parser=writable, metavar="FILE", help="write a page of plots and tables there")
]


class ScenarioCommand(TyperCommand):
    """A command whose scenario options take several values, as in `--loads 0.5 1 2`."""

    alone: ClassVar[Mapping[str, str]] = {}
    """The value of an option without a number."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Rewrites the arguments for click."""
        return super().parse_args(ctx, list(spread(args, self.alone)))


def spread(words: Sequence[str], alone: Mapping[str, str]) -> Iterator[str]:
    """Rewrites `--loads 1 2` as `--loads 1 --loads 2`, and adds the number to an option in `alone` that lacks it."""
    option = ""
    for word, following in pairwise((*words, "")):
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
