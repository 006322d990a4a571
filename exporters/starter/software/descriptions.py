"""Debian's package descriptions: fetched through apt, read, and made into the pairs of text and summary that count.

Touches neither apt's own lists nor any installed package: apt verifies the archive's signatures and writes into a
folder of the build's own.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from exporters.starter.packages import CannotBuild

STANZA = re.compile(r"(?m)^$\n?")
RELEASE = re.compile(r"_dists_([^_]+)_")
MIN_CHARS = 120
MIN_WORDS, MAX_WORDS = 2, 24
KEPT = (
    f"descriptions of at least {MIN_CHARS} characters with a synopsis of {MIN_WORDS} to {MAX_WORDS} words, "
    "no transitional or dummy packages"
)
BULLET = re.compile(r"^(?:[-*+o•·–]|\d{1,2}[.)])\s+")
TRANSITIONAL = re.compile(r"\b(?:transitional|dummy|empty)\b", re.IGNORECASE)
LETTERS = re.compile(r"[^\W\d_]+")


class NoDescriptions(CannotBuild):
    """The descriptions cannot be had here; the message says what is missing."""


@dataclass(frozen=True)
class Package:
    """One binary package: its name, the source it is built from, its one-line synopsis and its long description."""

    name: str
    source: str
    synopsis: str
    description: str


def fetch_lists(folder: Path) -> Path:
    """The folder, with the archive's package indices in it, uncompressed; what is there already is not fetched again.

    Raises `NoDescriptions` where apt is missing, or where it brings no English descriptions.
    """
    if not _indices(folder, "Translation-en"):
        apt = shutil.which("apt-get")
        if apt is None:
            raise NoDescriptions("no apt-get here: the descriptions come from a Debian archive, so build on Debian")
        (folder / "partial").mkdir(parents=True, exist_ok=True)
        options = {
            "Dir::State::Lists": folder.resolve(),
            "Dir::Cache::pkgcache": "",  # apt's own cache is of apt's own lists
            "Dir::Cache::srcpkgcache": "",
            "Acquire::Languages": "en",
            "Acquire::GzipIndexes": "false",
        }
        command = [apt, "update", "--quiet", *(f"-o{name}={value}" for name, value in options.items())]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode or not _indices(folder, "Translation-en"):
            raise NoDescriptions(f"apt brought no English descriptions (exit {done.returncode}): {done.stderr.strip()}")
    return folder


def releases(folder: Path) -> tuple[str, ...]:
    """The names of the releases whose descriptions are in the folder, such as `bookworm`."""
    return tuple(
        sorted({match[1] for path in _indices(folder, "Translation-en") if (match := RELEASE.search(path.name))})
    )


def read_packages(folder: Path) -> list[Package]:
    """Every package described in English, by name; the first description met counts where several releases have one.

    Raises `NoDescriptions` for a folder without indices.
    """
    sources = {name: source for path in _indices(folder, "Packages") for name, source in _sources(path)}
    found: dict[str, Package] = {}
    for path in _indices(folder, "Translation-en"):
        for stanza in _stanzas(path):
            fields = _fields(stanza)
            name, (synopsis, _, rest) = fields["Package"], fields["Description-en"].partition("\n")
            found.setdefault(name, Package(name, sources.get(name, name), synopsis.strip(), rest))
    if not found:
        raise NoDescriptions(f"no package descriptions in {folder}")
    return [found[name] for name in sorted(found)]


def _indices(folder: Path, kind: str) -> list[Path]:
    return sorted(folder.glob(f"*_{kind}"))


def _stanzas(path: Path) -> Iterator[str]:
    for stanza in STANZA.split(path.read_text(encoding="utf-8")):
        if stanza.strip():
            yield stanza


def _sources(path: Path) -> Iterator[tuple[str, str]]:
    """Each package with the name of its source, which is its own where the stanza names none."""
    for stanza in _stanzas(path):
        fields = _fields(stanza)
        yield fields["Package"], fields.get("Source", fields["Package"]).split()[0]


def _fields(stanza: str) -> dict[str, str]:
    """The fields of a stanza; the continuation lines of one keep their leading space, which means something."""
    fields: dict[str, str] = {}
    name = ""
    for line in stanza.splitlines():
        if line.startswith(" "):
            fields[name] += f"\n{line}"
        else:
            name, _, value = line.partition(":")
            fields[name] = value.strip()
    return fields


@dataclass(frozen=True)
class Pair:
    """A text and its summary, as people wrote them, with the package they describe and its source."""

    package: str
    source: str
    text: str
    summary: str


def cleaned(description: str) -> str:
    """A long description as one running text.

    The paragraph marks (` .`), line breaks, indentation and bullets of the control file go; casing and wording stay.
    """
    lines = (line.strip() for line in unicodedata.normalize("NFC", description).splitlines())
    return " ".join(" ".join(BULLET.sub("", line) for line in lines if line != ".").split())


def pairs(packages: Iterable[Package]) -> list[Pair]:
    """What counts of the packages, one pair for each distinct text: the first one's, in the order given."""
    found: dict[str, Pair] = {}
    for package in packages:
        text, summary = cleaned(package.description), " ".join(package.synopsis.split())
        if counts(text, summary):
            found.setdefault(normalised(text), Pair(package.name, package.source, text, summary))
    return list(found.values())


def counts(text: str, summary: str) -> bool:
    """Whether a text is long enough to be worth a summary, and the summary one that the text could lead to."""
    in_range = MIN_WORDS <= len(summary.split()) <= MAX_WORDS
    return len(text) >= MIN_CHARS and in_range and not TRANSITIONAL.search(f"{summary} {text[:200]}")


def normalised(text: str) -> str:
    """The form under which two texts count as the same: their words alone, casefolded; figures and marks do not count.

    So the descriptions of `gcc-11` and `gcc-12` are one.
    """
    return " ".join(LETTERS.findall(unicodedata.normalize("NFKC", text).casefold()))
