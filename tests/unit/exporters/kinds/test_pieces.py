"""Tokenizers that have a slow form only: the fast one that is made of them reads and writes the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_translators import OTHER_WORDS, TRANSLATORS, sentences
from transformers import AutoTokenizer

from deployments.replica.tokens import TextTokens
from exporters.kinds.pieces import HIDDEN, fast_form

pytestmark = pytest.mark.filterwarnings(
    "ignore:Recommended. pip install sacremoses", "ignore:Moving the following attributes"
)

FAMILIES = ("marian", "marian-many", "m2m-100")
ODD = (
    "",
    "  two  spaces ",
    "na\u00efve caf\u00e9",
    "\ufb01ne \u00bd",
    "f\u00fcr die Br\u00fccke",
    "a\nb",
    "12,5 %",
    "\u4e00\u5207",
)


def both(folder: Path, family: str) -> tuple[Any, TextTokens]:
    """The slow tokenizer of a family, and the fast one as a replica opens it."""
    TRANSLATORS[family](folder)
    told = {"tgt_lang": "fr"} if family == "m2m-100" else {}
    slow: Any = AutoTokenizer.from_pretrained(folder, **told)
    fast = fast_form(slow)
    assert fast is not None
    fast.backend_tokenizer.save(str(folder / "made.json"))
    return slow, TextTokens.open(folder / "made.json")


def own(slow: Any, ids: list[int]) -> list[int]:
    """Ids without the token of the language, which the replica puts before a text."""
    return ids[1:] if hasattr(slow, "lang_code_to_id") else ids


@pytest.mark.parametrize("family", FAMILIES)
def test_a_converted_tokenizer_reads_and_writes_as_the_slow_one(family: str, tmp_path: Path) -> None:
    """Ids of texts are the slow tokenizer's, and so are the texts of ids, those of the target's pieces among them."""
    slow, fast = both(tmp_path, family)
    for text in [*sentences(40, seed=22), *sentences(20, seed=23, words=OTHER_WORDS), *ODD]:
        assert fast.encode(text) == own(slow, slow(text)["input_ids"])
    for text in sentences(20, seed=24, words=OTHER_WORDS):
        ids = slow(text_target=text)["input_ids"]
        assert fast.decode(ids) == slow.decode(ids, skip_special_tokens=True)


@pytest.mark.parametrize("family", FAMILIES)
def test_names_of_tokens_are_text(family: str, tmp_path: Path) -> None:
    """A client's text tells no language and ends nothing, whatever it says; nor does it reach a hidden piece."""
    slow, fast = both(tmp_path, family)
    plain = fast.encode("the bridge")
    told = {slow.convert_tokens_to_ids(name) for name in (">>fra<<", "__fr__", "</s>", "<pad>")} - {slow.unk_token_id}
    for name in (">>fra<<", "__fr__", "</s>", "<pad>", f"{HIDDEN}>>fra<<", f"{HIDDEN}5"):
        ids = fast.encode(f"{name} the bridge")
        assert not told & set(ids[:-1]) and ids[-1] == plain[-1]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(words=st.lists(st.sampled_from(["the", "bridge", "Br\u00fccke", "\u00fc", "x", "7", "\u2581", "."]), max_size=8))
def test_any_words_are_read_alike(words: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    """Words of both languages, single letters, numbers and marks, in any order."""
    if not _KEPT:
        _KEPT.append(both(tmp_path_factory.mktemp("marian"), "marian"))
    slow, fast = _KEPT[0]
    assert fast.encode(" ".join(words)) == slow(" ".join(words))["input_ids"]


_KEPT: list[tuple[Any, TextTokens]] = []
