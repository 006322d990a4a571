"""The shipped general tagger matches its manifest, and its recipe labels, makes and joins sentences as it says."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path

import pytest
import torch
from small_masks import make_base
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from exporters.kinds import KINDS as CHECKPOINT_KINDS
from exporters.kinds import kind_of
from exporters.kinds.tagger import read_aggregation
from exporters.sources.adapters import is_adapter, read_base
from exporters.sources.source import source_folder
from exporters.sources.texts import ENTITIES
from exporters.starter.data import Split
from exporters.starter.entities import labels
from exporters.starter.entities.build import DOMAIN, WINDOW, rows_of
from exporters.starter.entities.card import EntitiesCard, card
from exporters.starter.entities.fit import Recipe, Rows, entities, fit, model_from
from exporters.starter.entities.labels import KINDS, agreed, mapped, well_written
from exporters.starter.entities.made import filled, joined, swapped
from exporters.starter.entities.material import IGNORED, LABELS, paired, training
from exporters.starter.entities.names import LISTED, Listed, Names
from exporters.starter.entities.score import NAME, score
from exporters.starter.entities.sources import Line, distinct
from exporters.starter.packages import MINILM_BASE
from exporters.starter.publishing import read_manifest
from exporters.starter.taggers.score import Marked, Span, read_marked
from gateway.catalogs.catalog import load_catalog

LOCATION = f"starter:{NAME}"
FOLDER = source_folder(LOCATION)
LIMIT = 8_000_000


def sha256(path: Path) -> str:
    """The hex digest of a file, computed here and not by the code under test."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def names() -> Names:
    """A few names of each sort, and all that are listed."""
    import msgspec

    listed = msgspec.yaml.decode(LISTED.read_bytes(), type=Listed)
    return Names([("Ada", "Byron")], ["Turin"], ["Alba"], ["Peru"], ["Utah"], ["Acme Inc."], listed)


def texts_of(one: Marked) -> list[tuple[str, str]]:
    """The entities of a text as text and kind."""
    return [(one.text[start:end], kind) for start, end, kind in one.spans]


def test_files_are_what_the_manifest_says() -> None:
    """The manifest names every other file of its folder with its digest, the card is made of it, and it is small."""
    files = {path.name: path for path in FOLDER.iterdir()}
    manifest = read_manifest(FOLDER, EntitiesCard)
    assert manifest.files == {name: sha256(path) for name, path in files.items() if name != "manifest.json"}
    assert files["README.md"].read_text(encoding="utf-8") == card(manifest)
    assert sum(path.stat().st_size for path in files.values()) < LIMIT


def test_the_folder_is_an_adapter_of_the_base_that_the_recipe_pins() -> None:
    """The folder is a tagger's adapter with the window, labels and strategy that the manifest names."""
    manifest = read_manifest(FOLDER, EntitiesCard)
    assert is_adapter(FOLDER) and read_base(FOLDER, NAME) == MINILM_BASE
    assert kind_of(FOLDER, NAME) is CHECKPOINT_KINDS["tagger"]
    config = json.loads((FOLDER / "config.json").read_bytes())
    assert read_aggregation(config, NAME) == manifest.aggregation
    assert tuple(config["id2label"].values()) == manifest.labels == LABELS
    settings = json.loads((FOLDER / "tokenizer_config.json").read_bytes())
    assert settings["model_max_length"] == manifest.window == WINDOW


def test_the_catalog_says_what_the_manifest_says() -> None:
    """Score, tier, domain and licence are the manifest's; personal data is what requests without a domain look for."""
    manifest, catalog = read_manifest(FOLDER, EntitiesCard), load_catalog("starter")
    (entry,) = (one for one in catalog.checkpoints if one.source == LOCATION)
    assert entry.quality.value == round(100 * manifest.scores.marked.all.f1, 2)
    assert (entry.tier, entry.domain, entry.licence) == (manifest.tier, DOMAIN, manifest.licences["weights"])
    assert manifest.scores.marked.data_sha256 == sha256(ENTITIES)
    assert [one.name for one in catalog.general("tokens")] == ["rampart"]


def test_the_marked_texts_are_whole() -> None:
    """Every entity of the texts is where it says, of a kind that the tagger has; some texts have none."""
    marked = read_marked(ENTITIES)
    assert len(marked) >= 60 and {kind for one in marked for _, _, kind in one.spans} == {*KINDS}
    assert sum(not one.spans for one in marked) >= 6
    sorts = {json.loads(line)["sort"] for line in ENTITIES.read_text(encoding="utf-8").splitlines()}
    assert sorts == {"news", "business", "chat", "reviews"}


@pytest.mark.parametrize(
    ("text", "span", "kind", "kept"),
    [
        ("in New York City's parks", "New York City's", "GPE", [("New York City", "LOC")]),
        ("at the White House today", "the White House", "FAC", [("White House", "LOC")]),
        ("saw The Ring again", "The Ring", "WORK_OF_ART", [("The Ring", "MISC")]),
        ("on Monday morning", "Monday", "DATE", []),
        ("as in Section 4 above", "Section 4", "LAW", []),
        ("Hahaha that is good", "Hahaha", "GPE", []),
        ("as Li et al. have shown", "Li et al.", "PERSON", []),
    ],
)
def test_the_teachers_types_become_kinds(text: str, span: str, kind: str, kept: list[tuple[str, str]]) -> None:
    """Types become four kinds, articles and possessors' marks are cut, and what is no name is left out."""
    start = text.index(span)
    found = Marked(text, tuple(mapped(text, [(start, start + len(span), kind)])))
    assert texts_of(found) == kept


def test_a_spelling_is_read_as_most_of_its_places_are() -> None:
    """What is mostly no name is none anywhere; what mostly has one kind has that; two readings stay as they are."""
    texts = ["Yikes it rained", "Yikes it snowed", "Yikes again", "Rome won", "Rome lost", "Rome drew", "Rome slept"]
    spans: list[list[Span]] = [[(0, 5, "LOC")], [], [], *[[(0, 4, kind)] for kind in ("LOC", "LOC", "LOC", "PER")]]
    assert agreed(texts, spans) == [[], [], [], *[[(0, 4, "LOC")]] * 4]
    even: list[list[Span]] = [[(0, 4, kind)] for kind in ("LOC", "LOC", "PER", "PER")]
    assert agreed(texts[3:], even) == even


def test_the_teacher_is_not_believed_where_it_cannot_read() -> None:
    """Shouted sentences, and those with an entity in small letters, are not trained on."""
    assert well_written("I met Ann in rome", [(6, 9, "PER")])
    assert not well_written("I met ann", [(6, 9, "PER")]) and not well_written("I MET ANN TODAY", [])


def test_made_sentences_have_their_names_where_they_say() -> None:
    """Swapped and filled sentences keep kinds and order, and their entities are the names that were put in."""
    rng, given = (
        random.Random(1),
        joined([("Eve", "PER"), (" of ", None), ("IBM", "ORG"), (" is ", None), ("Thai", "MISC")]),
    )
    assert given.text == "Eve of IBM is Thai"
    other = swapped(given, names(), rng)
    assert [kind for _, _, kind in other.spans] == ["PER", "ORG", "MISC"]
    assert texts_of(other)[2] == ("Thai", "MISC") and texts_of(other) != texts_of(given)
    every = filled(names(), 2, rng)
    assert {kind for one in every for _, _, kind in one.spans} == {*KINDS}
    assert not any("{" in one.text for one in every) and any(not one.spans for one in every)


def test_training_takes_one_side_alone() -> None:
    """No sentence of a text that is held out, or scored while training, is among the rows, not even in a copy."""
    lines = [Line(f"Word{at} met Ann here", "editorials", str(at)) for at in range(60)]
    rows = [(line, Marked(line.text, ((line.text.index("Ann"), line.text.index("Ann") + 3, "PER"),))) for line in lines]
    trained = " ".join(one.text for one in training(rows, names(), 1))
    sides = {line.side for line in lines}
    assert sides == {*Split}
    assert all((f"Word{at} " in trained) is (line.side is Split.TRAIN) for at, line in enumerate(lines))


def test_pairs_keep_every_sentence_and_entity() -> None:
    """Rows that are joined in twos have each sentence once, with its entities in their places."""
    rows = [Marked(f"Ann saw number {at}", ((0, 3, "PER"),)) for at in range(40)]
    made = paired(rows, random.Random(1))
    assert sum(len(one.spans) for one in made) == 40 > len(made)
    assert all(name == ("Ann", "PER") for one in made for name in texts_of(one))


def test_sentences_are_taken_once_and_of_a_usable_length() -> None:
    """Equal sentences are one, the first; short and very long ones are left out."""
    lines = [
        Line("One two three four", "films", "1"),
        Line("one TWO three  four", "chats", "2"),
        Line("Too short", "chats", "3"),
    ]
    assert distinct([*lines, Line("long " * 200, "chats", "4")]) == lines[:1]


def test_tokens_have_the_labels_of_their_entities() -> None:
    """The first piece of an entity begins it, the others continue it; special tokens are not learnt."""
    pieces = ["[CLS]", "[SEP]", "[UNK]", "an", "##na", "in", "bonn", "."]
    tokenizer = Tokenizer(models.WordPiece({one: at for at, one in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 0), ("[SEP]", 1)]
    )
    rows = rows_of([Marked("Anna in Bonn.", ((0, 4, "PER"), (8, 12, "LOC")))], tokenizer, 16)
    said = [LABELS[label] if label != IGNORED else None for label in rows.labels[0]]
    assert said == [None, "B-PER", "I-PER", "O", "B-LOC", "O", None]
    assert entities(rows.labels[0]) == {(1, 3, "PER"), (4, 5, "LOC")}


@pytest.mark.export
def test_an_interrupted_fit_ends_as_one_in_a_piece(tmp_path: Path) -> None:
    """A fit that was killed and started again gives the tensors and scores of an uninterrupted one, to the bit."""
    base, rng = make_base(tmp_path / "base"), random.Random(1)
    ids = [[2, *(rng.randrange(5, 30) for _ in range(rng.randrange(3, 9))), 3] for _ in range(12)]
    rows = Rows(ids, [[IGNORED, *(rng.randrange(len(LABELS)) for _ in row[2:]), IGNORED] for row in ids])
    recipe = Recipe(steps=6, warmup_steps=2, decay_steps=2, batch_size=4, rank=2, alpha=4, score_every=2)
    seen: list[int] = []

    def killed(done: int, steps: int, line: str) -> None:
        if done == 3:
            raise KeyboardInterrupt

    whole = fit(model_from(base, recipe), rows, rows, recipe, tmp_path / "whole.pt", lambda *_: None)
    with pytest.raises(KeyboardInterrupt):
        fit(model_from(base, recipe), rows, rows, recipe, tmp_path / "state.pt", killed)
    resumed = fit(
        model_from(base, recipe), rows, rows, recipe, tmp_path / "state.pt", lambda done, *_: seen.append(done)
    )
    assert seen == [3, 4, 5, 6] and (whole.dev_f1, whole.kept) == (resumed.dev_f1, resumed.kept)
    assert all(torch.equal(tensor, resumed.tensors[name]) for name, tensor in whole.tensors.items())


def test_a_score_counts_exact_entities_of_a_kind() -> None:
    """Precision and recall count what is exactly right; of one kind the others are not looked at."""
    marked, found = [Marked("ann in rome", ((0, 3, "PER"), (7, 11, "LOC")))], [[(0, 3, "PER"), (4, 11, "LOC")]]
    assert (score(marked, found).f1, score(marked, found, "PER").f1, score(marked, found, "LOC").f1) == (0.5, 1.0, 0.0)


def test_the_teacher_stays_outside() -> None:
    """Nothing of the recipe imports the teacher's libraries: its program runs in an environment of its own."""
    others = [path for path in Path(labels.__file__).parent.glob("*.py") if path.name != labels.PROGRAM.name]
    assert len(others) > 5 and not any(
        f"import {name}" in path.read_text() for path in others for name in ("spacy", "faker")
    )
