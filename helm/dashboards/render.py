"""Writes the dashboards as the JSON that the chart ships: `python -m helm.dashboards.render`.

Equal code gives equal bytes, so a test compares the files with the code.
"""

from __future__ import annotations

import json
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from helm.dashboards.board import Board
from helm.dashboards.decisions import decisions
from helm.dashboards.overview import overview
from helm.dashboards.replicas import replicas
from helm.dashboards.tiers import tiers

FOLDER = Path(__file__).resolve().parents[1] / "punctual" / "dashboards"


def boards() -> tuple[Board, ...]:
    """Lists the dashboards in reading order."""
    return overview(), tiers(), decisions(), replicas()


def rendered(board: Board) -> str:
    """Renders one dashboard as JSON."""
    return json.dumps(board.model(), cls=JSONEncoder, indent=2, sort_keys=True) + "\n"


def write(folder: Path = FOLDER) -> None:
    """Writes one file for each dashboard, and removes other JSON files."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.json"):
        old.unlink()
    for board in boards():
        (folder / f"{board.uid}.json").write_text(rendered(board), encoding="utf-8")


if __name__ == "__main__":
    write()
