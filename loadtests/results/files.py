"""Results as files: a JSON array with one object a run on a line of its own, or JSON Lines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from loadtests.results.run import RunResult

LINES = ".jsonl"


def write_json(runs: Sequence[RunResult], path: Path) -> None:
    """Writes the runs in the order given; JSON Lines where the path ends in `.jsonl`."""
    lines = [msgspec.json.encode(run) for run in runs]
    if path.suffix == LINES:
        path.write_bytes(b"".join(line + b"\n" for line in lines))
    else:
        path.write_bytes(b"[\n" + b",\n".join(lines) + b"\n]\n" if lines else b"[]\n")


def read_json(path: Path) -> tuple[RunResult, ...]:
    """What `write_json` wrote. Raises msgspec.DecodeError where the file is something else."""
    if path.suffix == LINES:
        return tuple(msgspec.json.Decoder(RunResult).decode_lines(path.read_bytes()))
    return msgspec.json.decode(path.read_bytes(), type=tuple[RunResult, ...])
