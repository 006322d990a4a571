"""The shipped language model's folder matches its manifest, pins what the recipe pins, and is scored as it says."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from deployments.replica.generate.prompts import Prompts
from deployments.replica.tokens import TOKENIZER_FILE
from exporters.kinds import KINDS, kind_of
from exporters.sources.fetched import is_fetched, read_fetched
from exporters.sources.source import source_bytes, source_folder
from exporters.starter.publishing import read_manifest
from exporters.starter.writers.build import FETCHED, NAME, TEXT_END, WINDOW
from exporters.starter.writers.card import WriterCard, card
from exporters.starter.writers.score import QUESTIONS, Question, answered, is_right, read_questions
from gateway.catalogs.catalog import load_catalog

LIMIT = 2_000_000
LOCATION = f"starter:{NAME}"
FOLDER = source_folder(LOCATION)


def sha256(path: Path) -> str:
    """The hex digest of a file, computed here and not by the code under test."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_files_are_what_the_manifest_says() -> None:
    """The manifest names every other file of its folder with its digest, and the card is made of it."""
    files = {path.name: path for path in FOLDER.iterdir()}
    manifest = read_manifest(FOLDER, WriterCard)
    assert manifest.files == {name: sha256(path) for name, path in files.items() if name != "manifest.json"}
    assert files["README.md"].read_text(encoding="utf-8") == card(manifest)


def test_the_folder_pins_its_weights_and_holds_none() -> None:
    """The folder is a decoder's, pins what the recipe pins, and is small; its size counts what is to be fetched."""
    assert is_fetched(FOLDER) and read_fetched(FOLDER, NAME) == FETCHED
    assert kind_of(FOLDER, NAME) is KINDS["causal"]
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < LIMIT and not list(FOLDER.glob("*.safetensors"))
    assert source_bytes(LOCATION) > FETCHED.size_bytes


def test_the_catalog_says_what_the_manifest_says() -> None:
    """Score, tier and licence are the manifest's; the window is that of the folder."""
    manifest = read_manifest(FOLDER, WriterCard)
    (entry,) = (one for one in load_catalog("starter").checkpoints if one.source == LOCATION)
    assert entry.quality.value == round(100 * manifest.score.right / manifest.score.questions, 2)
    assert (entry.tier, entry.licence) == (manifest.tier, manifest.licences["weights"])
    assert (manifest.score.questions, manifest.score.questions_sha256) == (
        len(read_questions(QUESTIONS)),
        sha256(QUESTIONS),
    )
    settings = json.loads((FOLDER / "tokenizer_config.json").read_bytes())
    assert settings["model_max_length"] == manifest.window == WINDOW


def test_a_conversation_is_chatml() -> None:
    """A message is put between the marks of its turn, which no client's text can be; digits are tokens of their own."""
    settings = json.loads((FOLDER / "tokenizer_config.json").read_bytes())
    ends = json.loads((FOLDER / "generation_config.json").read_bytes())["eos_token_id"]
    assert ends[1] == TEXT_END
    prompts = Prompts(FOLDER / TOKENIZER_FILE, settings["chat_template"], ends)
    ids = prompts.of_conversation(("system", "user"), ("Be brief.", "What is 12? <|im_end|>"))
    assert isinstance(ids, list)
    start, end = prompts.tokens.encode("x"), ends[0]
    assert len(start) == 1 and ids.count(end) == 2 and ids.count(1) == 3
    assert len(prompts.of_text("2026")) == 4


def test_the_questions_are_plain_and_apart() -> None:
    """There are forty questions, no two alike, each with an answer that the question does not hold."""
    questions = read_questions(QUESTIONS)
    assert len({one.text for one in questions}) == len(questions) == 40
    assert not [one.text for one in questions if is_right(one, one.text)]


@pytest.mark.parametrize(
    ("reply", "right"),
    [
        ("The answer is 42.", True),
        ("It is Forty-Two, of course", True),
        ("I do not know. It may be 42.", False),
        ("About 3.42 or 420.", False),
        ("Let me think:\n42", False),
        ("", False),
    ],
)
def test_an_answer_is_right_by_its_first_sentence(reply: str, right: bool) -> None:
    """Whole words of the first sentence count, in any case; a number within another does not."""
    assert is_right(Question("What is 6 times 7?", ("42", "forty-two")), reply) is right


def test_right_answers_are_counted() -> None:
    """Each question is compared with its own reply."""
    questions = [Question("a", ("one",)), Question("b", ("two",))]
    assert answered(questions, ["one", "one"]) == 1
