"""What every child process of a measurement needs to import this project. Light: it brings no server along."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).parents[1]


def child_environment() -> dict[str, str]:
    """The environment of a child that imports this project's packages; no pool sizes itself by the whole machine."""
    search = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return os.environ | {"PYTHONPATH": search, "TOKENIZERS_PARALLELISM": "false"}
