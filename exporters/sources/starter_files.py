"""Finds the starter checkpoints on this machine and checks their files against the published digests.

An installed package holds no weights. They are beside this package in a checkout, or in the folder named by
PUNCTUAL_STARTER: the `exporters/starter/checkpoints` of a clone. Digests are in `starter/checkpoints.sha256` (in the
format of `sha256sum`), which is part of the package.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from exporters.errors import SourceAbsent, SourceRefused

STARTER = "starter:"
VARIABLE = "PUNCTUAL_STARTER"
HERE = Path(__file__).parents[1] / "starter"
DIGESTS = HERE / "checkpoints.sha256"


def starter_root() -> Path:
    """The folder of all starter checkpoints: $PUNCTUAL_STARTER, else the one beside this package."""
    given = os.environ.get(VARIABLE)
    return Path(given) if given else HERE / "checkpoints"


def starter_folder(location: str) -> Path:
    """The folder of `starter:NAME`. Raises SourceRefused for an unknown name, SourceAbsent if it is missing."""
    name, root = location.removeprefix(STARTER), starter_root()
    if name not in published():
        raise SourceRefused(f"{location}: no such starter checkpoint; there are {', '.join(published())}")
    if not (root / name).is_dir():
        raise SourceAbsent(
            f"{location}: its weights are not in {root}, and no installed package carries them; clone the repository "
            f"of Punctual at version {_version()} and set {VARIABLE} to its folder exporters/starter/checkpoints"
        )
    return root / name


def check_published(folder: Path, digests: Mapping[str, str]) -> None:
    """Compares the digests of a starter checkpoint's files with the published ones; ignores other folders.

    Raises SourceRefused, which names the first file that differs, is missing or was added.
    """
    if folder.parent != starter_root():
        return
    expected = published().get(folder.name, {})
    for name in sorted({*digests, *expected}):
        if digests.get(name) != expected.get(name):
            raise SourceRefused(
                f"{STARTER}{folder.name}: {folder / name} is not the published file: expected sha256 "
                f"{expected.get(name, 'none')}, got {digests.get(name, 'none')}; a checkpoint of your own is served by "
                "its folder's name as the source"
            )


@cache
def published() -> Mapping[str, Mapping[str, str]]:
    """The sha256 of every file of the starter checkpoints, by checkpoint and file name."""
    found: dict[str, dict[str, str]] = {}
    for line in DIGESTS.read_text(encoding="utf-8").splitlines():
        digest, _, path = line.partition("  ")
        checkpoint, _, name = path.partition("/")
        found.setdefault(checkpoint, {})[name] = digest
    return found


def _version() -> str:
    try:
        return version("punctual")
    except PackageNotFoundError:
        return "of this code"
