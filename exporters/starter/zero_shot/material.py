"""Texts with a topic each: Debian's packages by section, to fit scores on, and the intents of BIG-bench, to score on.

Both are fetched when they are used, and neither is kept here. BIG-bench's files ask that they be in no training data:
nothing is fitted on them.
"""

from __future__ import annotations

import json
import random
import re
import tarfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exporters.sources.registry import Package, fetch
from exporters.starter.packages import CannotBuild
from exporters.starter.software.descriptions import cleaned, counts, fetch_lists, read_packages, read_sections

BIGBENCH = Package(
    name="bigbench",
    version="1.0.0",
    filename="bigbench-1.0.0.tar.gz",
    sha256="1bb398a5512c6d798cdebe0dfa0ac03f67f6033fa6b39c6ef71df978c7cbc5c2",
    licence="Apache-2.0 for the code; SNIPS' intents are CC0",
    binary=False,
)
TASK = "benchmark_tasks/intent_recognition/task.json"

SECTIONS: Mapping[str, str] = {
    "database": "databases",
    "editors": "text editing",
    "electronics": "electronics",
    "fonts": "fonts",
    "games": "games",
    "graphics": "graphics and pictures",
    "hamradio": "amateur radio",
    "kernel": "the operating system's kernel",
    "mail": "e-mail",
    "math": "mathematics",
    "science": "science",
    "sound": "sound and music",
    "vcs": "version control",
    "video": "video",
    "web": "web pages",
}
"""Sections of Debian that are topics, in words of everyday."""

OF_EACH = 40
"""Packages of each section, of which no two have one source."""

SEED = 20261130
FIRST_SENTENCES = re.compile(r"^(?:.*?[.!?](?=\s|$)){1,2}", re.DOTALL)


@dataclass(frozen=True)
class Topics:
    """Texts, the labels to choose from, and the place of each text's label."""

    name: str
    texts: Sequence[str]
    labels: Sequence[str]
    right: Sequence[int]


def sections(folder: Path, of_each: int = OF_EACH) -> Topics:
    """The first two sentences about so many packages of each section. Raises NoDescriptions."""
    found, of = read_packages(fetch_lists(folder)), read_sections(folder)
    by_section: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for package in found:
        text, section = cleaned(package.description), of.get(package.name, "")
        if section in SECTIONS and counts(text, package.synopsis):
            by_section[section].setdefault(package.source, beginning(text))
    chance = random.Random(SEED)
    drawn = [
        (text, at)
        for at, section in enumerate(SECTIONS)
        for text in chance.sample(sorted(set(by_section[section].values())), of_each)
    ]
    texts, right = zip(*drawn, strict=True)
    return Topics("Debian's packages by section", texts, list(SECTIONS.values()), right)


def beginning(text: str) -> str:
    """The first two sentences of a text, or all of it."""
    match = FIRST_SENTENCES.match(text)
    return match[0] if match else text


def benchmark(task: str, cache: Path) -> dict[str, Any]:
    """A task of BIG-bench, by the end of its file's name. Raises NotFetched or CannotBuild."""
    try:
        with tarfile.open(fetch(BIGBENCH, cache)) as archive:
            name = next(one.name for one in archive if one.name.endswith(task))
            stream = archive.extractfile(name)
            found: dict[str, Any] = json.load(stream) if stream else {}
    except StopIteration:
        raise CannotBuild(f"{BIGBENCH.filename} has no {task}") from None
    return found


def intents(cache: Path) -> Topics:
    """The 693 utterances of BIG-bench's intent recognition, which are SNIPS'. Raises NotFetched or CannotBuild."""
    task = benchmark(TASK, cache)
    examples = task["examples"]
    names = sorted(examples[0]["target_scores"])
    texts = [one["input"].removeprefix("Utterance:").strip() for one in examples]
    right = [next(at for at, name in enumerate(names) if one["target_scores"].get(name)) for one in examples]
    return Topics("SNIPS intents of BIG-bench", texts, [name.replace("_", " ") for name in names], right)
