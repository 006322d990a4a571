"""Where the starter checkpoints lie on this machine, and whether their files are the published ones.

An installed package carries no weights. They are found in a checkout, beside this package, or in the folder that
PUNCTUAL_STARTER names: the `exporters/starter/checkpoints` of a clone. Every file that an export reads is held to its
digest in `starter/checkpoints.sha256`, which travels with the code (in the format of `sha256sum`).
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
HERE = Path(__file__).parent / "starter"
DIGESTS = HERE / "checkpoints.sha256"


def starter_root() -> Path:
    """The folder of all starter checkpoints: $PUNCTUAL_STARTER, else the one beside this package."""
    given = os.environ.get(VARIABLE)
    return Path(given) if given else HERE / "checkpoints"


def starter_folder(location: str) -> Path:
    """The folder of `starter:NAME`. Raises SourceRefused for no starter's name, SourceAbsent where it is not here."""
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
    """Holds the digests of the files that an export reads in a folder to the published ones, if it is a starter's.

    Raises SourceRefused, which names the first file that is another, is missing or was added.
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
