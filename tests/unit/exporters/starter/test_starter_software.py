"""The summarizer's training data: stanzas read, descriptions cleaned, families kept on one side of the split."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest

from exporters.sources.texts import SOFTWARE
from exporters.starter.data import Split
from exporters.starter.publishing import write_lines
from exporters.starter.software.build import heldout_rows
from exporters.starter.software.descriptions import (
    MIN_CHARS,
    NoDescriptions,
    Pair,
    cleaned,
    counts,
    fetch_lists,
    normalised,
    pairs,
    read_packages,
    releases,
)
from exporters.starter.software.families import A_FAMILY_AT_MOST, LARGE, apart, families, side_of, split, stem
from exporters.starter.software.material import HELDOUT_COUNT
from exporters.starter.software.score import first_sentence, first_words, margin, rouge

LONG = "It does what it says, and it says so at some length, so that there is something here to make a summary of. "
TRANSLATION = f"""Package: foo
Description-md5: 0
Description-en: Fast tool for bars
 Foo is  a tool.
 .
 It has:
  * a bullet,
  - another: and text.
 {LONG}

Package: libfoo-dev
Description-md5: 1
Description-en: Headers
 Short.
"""
PACKAGES = """Package: libfoo-dev
Source: foo (1.0)
Tag: a,
 b

Package: foo
Version: 1
"""


@pytest.fixture
def lists(tmp_path: Path) -> Path:
    """A folder of two indices as apt names them."""
    stem_of_name = "deb.example_debian_dists_bookworm_main"
    (tmp_path / f"{stem_of_name}_i18n_Translation-en").write_text(TRANSLATION, encoding="utf-8")
    (tmp_path / f"{stem_of_name}_binary-amd64_Packages").write_text(PACKAGES, encoding="utf-8")
    return tmp_path


def made(package: str, opening: str, source: str | None = None) -> Pair:
    """A pair whose text begins with these words."""
    return Pair(package, source or package, f"{opening} {LONG}", "a summary")


def many(count: int) -> list[Pair]:
    """Unrelated packages, each with four binaries."""
    kinds = ("{}", "lib{}1", "lib{}-dev", "python3-{}")
    names = [f"{chr(97 + at % 26)}{chr(97 + at // 26 % 26)}{chr(97 + at // 676)}zq" for at in range(count)]
    texts = {name: " ".join(f"{name}{chr(97 + at)}" for at in range(20)) for name in names}
    return [Pair(kind.format(n), n, f"{texts[n]} {kind.format('x')}", "a summary") for n in names for kind in kinds]


def test_stanzas_are_read_with_their_sources(lists: Path) -> None:
    """Stanzas give names, synopses and sources without versions; fetched lists are not fetched again."""
    found = read_packages(fetch_lists(lists))
    assert [(p.name, p.source, p.synopsis) for p in found] == [
        ("foo", "foo", "Fast tool for bars"),
        ("libfoo-dev", "foo", "Headers"),
    ]
    assert releases(lists) == ("bookworm",)


def test_a_host_without_apt_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without apt-get or without descriptions, the error says what is missing."""
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(NoDescriptions, match="no apt-get here"):
        fetch_lists(tmp_path / "lists")
    with pytest.raises(NoDescriptions, match="no package descriptions"):
        read_packages(tmp_path)


def test_a_description_becomes_running_text(lists: Path) -> None:
    """A description loses paragraph marks, indentation and bullets, and keeps words and case."""
    text = cleaned(read_packages(lists)[0].description)
    assert text == f"Foo is a tool. It has: a bullet, another: and text. {LONG.strip()}"


@pytest.mark.parametrize(
    ("text", "summary", "expected"),
    [
        (LONG * 2, "a good summary", True),
        ("x" * (MIN_CHARS - 1), "a good summary", False),
        (LONG * 2, "one", False),
        (LONG * 2, "word " * 25, False),
        (LONG * 2, "transitional package", False),
        (f"This is a dummy package. {LONG}{LONG}", "a good summary", False),
    ],
)
def test_what_counts(text: str, summary: str, expected: bool) -> None:
    """Short texts, summaries that are too short or long, and dummy packages do not count."""
    assert counts(text, summary) is expected


def test_equal_texts_are_one_pair(lists: Path) -> None:
    """Texts that differ only in digits and punctuation are one pair, that of the first package."""
    twice = [made("gcc-11", "The compiler, version 11."), made("gcc-12", "The compiler: version 12")]
    assert normalised(twice[0].text) == normalised(twice[1].text)
    assert [p.package for p in pairs(read_packages(lists))] == ["foo"]


@pytest.mark.parametrize(
    "name", ["foobar", "libfoobar2", "libfoobar-dev", "python3-foobar", "foobar-doc", "foobar-1.2"]
)
def test_siblings_have_one_stem(name: str) -> None:
    """All binaries of a package have one stem."""
    assert stem(name) == "foobar"


def test_a_family_is_never_parted() -> None:
    """Packages related by source, stem or opening words, even through others, are one family in any order."""
    chain = [
        made("foo", "alpha", "source-one"),
        made("bar", "beta", "source-one"),
        made("libbar-dev", "gamma delta epsilon zeta eta theta iota kappa", "source-two"),
        made("qux", "gamma delta epsilon zeta eta theta iota kappa lambda", "source-three"),
        made("lonely", "mu", "source-four"),
    ]
    found = families(chain)
    assert [[p.package for p in family] for family in found] == [["bar", "foo", "libbar-dev", "qux"], ["lonely"]]
    mixed = chain[:]
    random.Random(1).shuffle(mixed)
    assert families(mixed) == found


def test_held_out_texts_have_no_relative_in_train() -> None:
    """No source, stem or text is on two sides of the split; a family gives one held-out text and few training texts."""
    found = many(700)
    sides = split(found)
    assert all(sides.values()) and len(sides[Split.TRAIN]) > 10 * len(sides[Split.HELDOUT])
    for said in (lambda p: p.source, lambda p: stem(p.package), lambda p: normalised(p.text)):
        values = [{said(pair) for pair in side} for side in sides.values()]
        assert sum(map(len, values)) == len(set[str]().union(*values))
    for side, most in ((Split.TRAIN, A_FAMILY_AT_MOST), (Split.DEV, 1), (Split.HELDOUT, 1)):
        sources = [pair.source for pair in sides[side]]
        assert max(map(sources.count, set(sources))) == most
    assert split(found[::-1]) == sides


def test_what_is_near_a_text_learnt_from_is_not_scored() -> None:
    """A held-out text that shares many word sequences with a training text is left out."""
    learnt = [Pair("a", "a", LONG * 2, "a summary")]
    near, far = Pair("b", "b", f"Another {LONG}", "a summary"), Pair("c", "c", "word " * 30, "a summary")
    mixed = Pair("d", "d", " ".join(f"word{chr(97 + at)}" for at in range(26)) + " " + LONG[:60], "a summary")
    assert apart([near, far, mixed], learnt) == [far, mixed]
    assert apart([near], []) == [near]


def test_a_very_large_family_is_learnt_from() -> None:
    """A very large family is always used for training, because it would dominate the held-out texts."""
    name = next(p for p in many(700) if side_of([p]) is Split.HELDOUT)
    assert side_of([name] * LARGE) is Split.HELDOUT
    assert side_of([name] * (LARGE + 1)) is Split.TRAIN


def test_the_shipped_held_out_texts_are_many_distinct_and_whole(tmp_path: Path) -> None:
    """Every shipped held-out text counts by the rule and is unique, and the file is rewritten to the byte."""
    rows = [json.loads(line) for line in SOFTWARE.read_text(encoding="utf-8").split("\n") if line]
    shipped = [Pair("", "", **row) for row in rows]
    assert len(shipped) == HELDOUT_COUNT == len({normalised(one.text) for one in shipped})
    assert all(counts(one.text, one.summary) for one in shipped)
    write_lines(heldout_rows(shipped), tmp_path / "again.jsonl", ascii_only=False)
    assert (tmp_path / "again.jsonl").read_bytes() == SOFTWARE.read_bytes()


def test_the_baselines_are_a_text_s_beginning() -> None:
    """The baselines are a text's first sentence, not cut at an abbreviation or name, and its first words."""
    text = "X.Org is a server, e.g. Fast. It runs. " + "word " * 20
    assert first_sentence(text) == "X.Org is a server, e.g. Fast."
    assert first_sentence("no end") == "no end"
    assert len(first_words(text).split()) == 12


def test_rouge_knows_right_from_wrong() -> None:
    """Equal texts score 100 and different ones 0; intervals contain their mean, and a margin over oneself is 0."""
    people = ["a fast tool", "a slow tool", "the other library"]
    same, other = rouge(people, people), rouge(people, ["zebra", "zebra", "zebra"])
    assert list(same.rougeL) == [100] * 3 and list(other.rouge1) == [0] * 3 and same.texts == 3
    low = rouge(people, ["a fast tool", "zebra", "the library"]).rougeL
    assert low[1] <= low[0] <= low[2] and low[1] < low[2]
    assert list(margin(people, people, people)) == [0] * 3
    with pytest.raises(ValueError, match="no summaries"):
        rouge([], [])
