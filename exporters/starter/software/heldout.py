"""The held-out texts as they travel with the code: one text and its summary a line, readable without any library."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

HELDOUT = Path(__file__).parents[1] / "software-heldout.jsonl"
COUNT = 300


@dataclass(frozen=True)
class Summarised:
    """A text and the summary that people gave it."""

    text: str
    summary: str


def write_heldout(texts: Iterable[tuple[str, str]], path: Path = HELDOUT) -> None:
    """Write (text, summary) rows one JSON object a line, keys and order stable, so equal rows give equal bytes."""
    lines = (json.dumps({"text": text, "summary": summary}, ensure_ascii=False) for text, summary in texts)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def read_heldout(path: Path = HELDOUT) -> list[Summarised]:
    """The held-out texts as shipped. Raises `ValueError` or `TypeError` where a line is anything else."""
    return [Summarised(**json.loads(line)) for line in path.read_text(encoding="utf-8").split("\n") if line]
