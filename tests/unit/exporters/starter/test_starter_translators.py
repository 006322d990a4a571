"""The translator's recipe: what is aligned, what is kept apart, and the baselines. The training itself is not run."""

from __future__ import annotations

from pathlib import Path

import pytest

from exporters.starter.data import Split
from exporters.starter.software.descriptions import NoDescriptions
from exporters.starter.translators.build import NIGHT, SPECIALS, marian, rows_of, tokenizer_of
from exporters.starter.translators.score import nearest
from exporters.starter.translators.segments import Segment, aligned, counts, once, read_segments, spread

ENGLISH = "a small clock\n Shows the time. It has\n two hands.\n .\n Works anywhere."
ITALIAN = "un piccolo orologio\n Mostra l'ora. Ha\n due lancette.\n .\n Funziona ovunque."
MEMORY = [Segment("shows the time", "mostra l'ora"), Segment("plays the guitar", "suona la chitarra")]


def test_a_description_is_aligned_by_sentences() -> None:
    """Synopsis, paragraphs, and sentences where both have as many, without the line breaks of the file."""
    found = [(one.text, one.translation) for one in aligned(ENGLISH, ITALIAN)]
    assert found == [
        ("a small clock", "un piccolo orologio"),
        ("Shows the time.", "Mostra l'ora."),
        ("It has two hands.", "Ha due lancette."),
        ("Works anywhere.", "Funziona ovunque."),
    ]


def test_what_has_other_paragraphs_is_aligned_by_its_synopsis_alone() -> None:
    """A translation that was parted otherwise cannot be aligned, and a paragraph of other sentences stays whole."""
    assert [one.text for one in aligned(ENGLISH, "un orologio\n Mostra l'ora.")] == ["a small clock"]
    merged = ITALIAN.replace("ora. Ha", "ora, e ha")
    assert aligned(ENGLISH, merged)[1].text == "Shows the time. It has two hands."


@pytest.mark.parametrize(
    "segment",
    [
        Segment("clock", "clock"),
        Segment("", "a"),
        Segment("1.2", "1,2"),
        Segment("a clock", "un orologio " * 30),
        Segment("word " * 61, "parola " * 61),
    ],
)
def test_what_teaches_nothing_does_not_count(segment: Segment) -> None:
    """Untranslated, empty, wordless, lopsided and very long segments are left out."""
    assert not counts(segment)


def test_a_text_is_learnt_once_in_its_most_frequent_translation() -> None:
    """Debian's texts repeat; the most frequent translation of one is kept."""
    said = [Segment("a", "x"), Segment("b", "z"), Segment("a", "y"), Segment("a", "y")]
    assert once(said) == [Segment("a", "y"), Segment("b", "z")]
    assert spread(once(said), 1) == [Segment("a", "y")]


def _lists(folder: Path, language: str, texts: dict[str, str]) -> None:
    stanzas = [
        f"Package: {name}\nDescription-md5: {name}\nDescription-{language}: {text}\n" for name, text in texts.items()
    ]
    (folder / f"here_dists_bookworm_main_i18n_Translation-{language}").write_text("\n".join(stanzas))


def test_no_scored_text_is_learnt(tmp_path: Path) -> None:
    """Families go whole to one side, and a text that stands in a learnt family is not scored."""
    names = [f"{letter}{other}clock" for letter in "abcdefghijklmnop" for other in "abcdefgh"]
    _lists(tmp_path, "en", {name: f"the {name} tool\n Shows {name} times.\n .\n It is free." for name in names})
    _lists(tmp_path, "it", {name: f"lo strumento {name}\n Mostra {name} ore.\n .\n È libero." for name in names})
    sides = read_segments(tmp_path, "it")
    learnt = {one.text for one in sides[Split.TRAIN]}
    scored = {one.text for side in (Split.DEV, Split.HELDOUT) for one in sides[side]}
    assert learnt and scored and not learnt & scored and "It is free." in learnt
    with pytest.raises(NoDescriptions):
        read_segments(tmp_path, "fr")


def test_a_translation_memory_answers_with_its_nearest_text() -> None:
    """The translation of the text that shares most words, or the text itself if none shares any."""
    assert nearest(["shows a time", "zzz"], MEMORY) == ["mostra l'ora", "zzz"]


def test_the_model_is_of_the_size_that_is_named(tmp_path: Path) -> None:
    """Six layers read and two write, 256 wide; rows start with padding, and end with the end."""
    tokenizer = tokenizer_of(aligned(ENGLISH, ITALIAN) * 40, tmp_path / "pieces", 60)
    model = marian(tokenizer.get_vocab_size(), NIGHT)
    assert (model.config.encoder_layers, model.config.decoder_layers, model.config.d_model) == (6, 2, 256)
    (row,) = rows_of(tokenizer, MEMORY[:1], NIGHT)
    assert row.summary[0] == SPECIALS.index("<pad>") and row.text[-1] == row.summary[-1] == SPECIALS.index("</s>")
    assert tokenizer.decode(row.summary) == "mostra l'ora"
