"""Debian's package descriptions: fetched through apt, parsed, and filtered into pairs of text and summary.

Changes neither apt's own lists nor any installed package: apt verifies the archive's signatures and writes into the
build's own folder.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
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
    """The descriptions are not available; the message says what is missing."""


@dataclass(frozen=True)
class Package:
    """One binary package: its name, its source package, its one-line synopsis and its long description."""

    name: str
    source: str
    synopsis: str
    description: str


def fetch_lists(folder: Path, languages: Sequence[str] = ("en",)) -> Path:
    """Fetches the archive's package indices into the folder, uncompressed, unless they are there; returns the folder.

    Raises `NoDescriptions` if apt is missing or finds no descriptions in one of the languages.
    """
    if not all(_indices(folder, f"Translation-{language}") for language in languages):
        apt = shutil.which("apt-get")
        if apt is None:
            raise NoDescriptions("no apt-get here: the descriptions come from a Debian archive, so build on Debian")
        (folder / "partial").mkdir(parents=True, exist_ok=True)
        options = {
            "Dir::State::Lists": folder.resolve(),
            "Dir::Cache::pkgcache": "",  # do not use the cache of apt's own lists
            "Dir::Cache::srcpkgcache": "",
            "Acquire::Languages": ",".join(languages),
            "Acquire::GzipIndexes": "false",
        }
        command = [apt, "update", "--quiet", *(f"-o{name}={value}" for name, value in options.items())]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        missing = [language for language in languages if not _indices(folder, f"Translation-{language}")]
        if done.returncode or missing:
            which = ", ".join(missing or languages)
            raise NoDescriptions(
                f"apt brought no descriptions in {which} (exit {done.returncode}): {done.stderr.strip()}"
            )
    return folder


def releases(folder: Path) -> tuple[str, ...]:
    """The releases with descriptions in the folder, such as `bookworm`."""
    return tuple(
        sorted({match[1] for path in _indices(folder, "Translation-en") if (match := RELEASE.search(path.name))})
    )


def read_packages(folder: Path) -> list[Package]:
    """Every package with an English description, by name; of several releases the first counts.

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


@dataclass(frozen=True)
class Described:
    """A package's synopsis and description in one language, as in the file, and the digest of the English ones."""

    package: str
    source: str
    digest: str
    text: str


def described(folder: Path, language: str) -> list[Described]:
    """Every description in a language, by package and in the order of the releases' names."""
    sources = {name: source for path in _indices(folder, "Packages") for name, source in _sources(path)}
    found: dict[tuple[str, str], Described] = {}
    for path in _indices(folder, f"Translation-{language}"):
        for stanza in _stanzas(path):
            fields = _fields(stanza)
            name, digest = fields["Package"], fields["Description-md5"]
            text = fields[f"Description-{language}"]
            found.setdefault((name, digest), Described(name, sources.get(name, name), digest, text))
    return [found[key] for key in sorted(found)]


def read_sections(folder: Path) -> dict[str, str]:
    """The section of each package, such as `games`, by the package's name."""
    stanzas = (_fields(stanza) for path in _indices(folder, "Packages") for stanza in _stanzas(path))
    return {fields["Package"]: fields.get("Section", "") for fields in stanzas}


def _indices(folder: Path, kind: str) -> list[Path]:
    return sorted(folder.glob(f"*_{kind}"))


def _stanzas(path: Path) -> Iterator[str]:
    for stanza in STANZA.split(path.read_text(encoding="utf-8")):
        if stanza.strip():
            yield stanza


def _sources(path: Path) -> Iterator[tuple[str, str]]:
    """Each package with its source package, by default of the same name."""
    for stanza in _stanzas(path):
        fields = _fields(stanza)
        yield fields["Package"], fields.get("Source", fields["Package"]).split()[0]


def _fields(stanza: str) -> dict[str, str]:
    """The fields of a stanza; continuation lines keep their leading space, which is significant."""
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
    """A text and its human summary, with the package that they describe and its source."""

    package: str
    source: str
    text: str
    summary: str


def cleaned(description: str) -> str:
    """A long description as running text.

    Removes the paragraph marks (` .`), line breaks, indentation and bullets of the control file.
    """
    lines = (line.strip() for line in unicodedata.normalize("NFC", description).splitlines())
    return " ".join(" ".join(BULLET.sub("", line) for line in lines if line != ".").split())


def pairs(packages: Iterable[Package]) -> list[Pair]:
    """The pairs of packages that count, one for each distinct text (the first), in the order given."""
    found: dict[str, Pair] = {}
    for package in packages:
        text, summary = cleaned(package.description), " ".join(package.synopsis.split())
        if counts(text, summary):
            found.setdefault(normalised(text), Pair(package.name, package.source, text, summary))
    return list(found.values())


def counts(text: str, summary: str) -> bool:
    """True if a text is long enough to summarise and its summary fits the rules."""
    in_range = MIN_WORDS <= len(summary.split()) <= MAX_WORDS
    return len(text) >= MIN_CHARS and in_range and not TRANSITIONAL.search(f"{summary} {text[:200]}")


def normalised(text: str) -> str:
    """The form in which two texts count as equal: their words, casefolded, without digits and punctuation.

    The descriptions of `gcc-11` and `gcc-12` are equal, for example.
    """
    return " ".join(LETTERS.findall(unicodedata.normalize("NFKC", text).casefold()))
