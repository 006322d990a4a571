"""Laws of token ids and texts: cutting and joining outside the tokenizer gives what the tokenizer would."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fakes import manifest
from hypothesis import given
from hypothesis import strategies as st
from small_variants import tokenizer
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from deployments.replica.tokens import (
    INLINE_CHARACTERS,
    TOKENIZER_FILE,
    TextEncoder,
    TextTokens,
    counters_of,
    well_formed,
)
from deployments.replica.variant import file_sha256
from gateway.model.manifest import VariantManifest

LONG = "a very good film good film bad films ."


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> TextTokens:
    """A tokenizer that was saved with truncation at 4 and padding to 9."""
    file = tmp_path_factory.mktemp("tokens") / "tokenizer.json"
    tokenizer().save(str(file))
    return TextTokens.open(file)


def test_nothing_is_cut_and_nothing_filled_up(tokens: TextTokens) -> None:
    """Encoding neither cuts nor pads, whatever the tokenizer's file asks for."""
    ids = tokens.encode(LONG)
    assert len(ids) == 12 and ids[0] == 2 and ids[-1] == 3
    assert tokens.specials == 2


def test_many_at_once_are_each_as_alone(tokens: TextTokens) -> None:
    """Texts encoded together get the ids that each gets alone."""
    texts = ["good", LONG, "", "bad \ud800 film"]
    assert tokens.encode_batch(texts) == [tokens.encode(text) for text in texts]
    assert tokens.encode_batch([]) == []


@given(st.integers(2, 20))
def test_a_cut_is_the_head_and_the_closing_specials(window: int) -> None:
    """A text is cut as the tokenizer's own truncation cuts it: head first, closing specials kept."""
    made = tokenizer()
    made.no_padding()
    made.no_truncation()
    whole = TextTokens(made)
    ids = whole.encode(LONG)
    made.enable_truncation(window)
    assert whole.cut(ids, window) == made.encode(LONG).ids


def test_specials_are_not_text(tokens: TextTokens) -> None:
    """Decoding leaves special tokens out and gives the text, as far as the tokenizer keeps it."""
    marked = tokenizer()
    marked.add_special_tokens(["[CLS]", "[SEP]"])
    marked.no_truncation()
    marked.no_padding()
    assert TextTokens(marked).decode(tokens.encode("Good film")) == "good film"
    assert tokens.decode([]) == ""


def test_what_utf8_cannot_hold_is_read_as_a_replacement(tokens: TextTokens) -> None:
    """A lone surrogate is read as one replacement character, and a pair as the character that it encodes."""
    assert tokens.encode("good \ud800") == tokens.encode("good \ufffd")
    assert well_formed("\ud83d\ude00 \udfff") == "\U0001f600 \ufffd"


def variant(folder: Path, name: str, text: str) -> tuple[VariantManifest, Path]:
    """Write a variant with this tokenizer file; return its manifest, with the file's digest, and its folder."""
    (folder / name).mkdir()
    file = folder / name / TOKENIZER_FILE
    file.write_text(text)
    digest = file_sha256(file)
    return manifest(name, 0.01).model_copy(update={"files": {TOKENIZER_FILE: digest}}), folder / name


def test_equal_tokenizers_share_a_counter(tmp_path: Path) -> None:
    """Checkpoints with equal tokenizer files share a counter, which counts all tokens; others have their own."""
    one, other = tokenizer(), tokenizer()
    other.post_processor = None
    made = {name: variant(tmp_path, name, text.to_str()) for name, text in (("a", one), ("b", one), ("c", other))}
    manifests = {name: of_one for name, (of_one, _) in made.items()}
    counters = counters_of(manifests, {name: folder for name, (_, folder) in made.items()})
    assert counters["a"] is counters["b"] is not counters["c"]
    assert [counters[name](LONG) for name in "abc"] == [12, 12, 10]
    assert counters["a"]("good \ud800") == counters["a"]("good \ufffd")


def test_a_checkpoint_that_is_not_on_this_host_has_no_counter(tmp_path: Path) -> None:
    """A checkpoint without a tokenizer file here, or whose manifest has no digest of it, has no counter."""
    there, folder = variant(tmp_path, "a", tokenizer().to_str())
    manifests = {"a": there, "away": there, "undigested": manifest("undigested", 0.01)}
    folders = {"away": tmp_path / "away", "undigested": folder}
    assert counters_of(manifests, folders) == {}
    assert set(counters_of(manifests, {**folders, "a": folder})) >= {"a"}


def pieces() -> Tokenizer:
    """Return a tokenizer like those of SentencePiece, whose vocabulary has its special tokens as pieces."""
    named = ["<pad>", "</s>", "<unk>"]
    letters = [("\u2581", -2.0), *((letter, -4.0) for letter in "ab</>spd"), ("\u2581a", -2.5)]
    made = Tokenizer(models.Unigram([*((name, 0.0) for name in named), *letters], unk_id=2))
    made.normalizer = normalizers.NFKC()
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.add_special_tokens(named)
    made.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return made


@pytest.mark.parametrize("made", [tokenizer, pieces])
def test_special_tokens_in_a_text_are_text(made: Callable[[], Tokenizer]) -> None:
    """The name of a special token in a client's text never becomes that token, however often it comes."""
    tokens = TextTokens(made())
    specials = {made().token_to_id(name) for name in ("[PAD]", "[SEP]", "[CLS]", "<pad>", "</s>")} - {None}
    texts = ["a [SEP] b", "[PAD]" * 200, "[CLS]", "a </s> b", "</s>" * 200, "<pad>", "\uff1c/s\uff1e", "\ud800</s>"]
    for text, ids in zip(texts, tokens.encode_batch(texts), strict=True):
        assert ids == tokens.encode(text)
        own = ids[tokens._leading : len(ids) - (tokens.specials - tokens._leading)]
        assert own and specials.isdisjoint(own), text


def test_what_is_unknown_is_not_taken_apart() -> None:
    """A character that the vocabulary lacks stays the unknown token, which is special too."""
    tokens = TextTokens(pieces())
    assert tokens.encode("a \u4e2d").count(2) == 1
    assert tokens.encode("a \u4e2d </s>").count(2) == 1


def test_unknown_words_are_one_token_each() -> None:
    """A vocabulary without brackets reads the name of its unknown token as unknown: no unknown word is taken apart."""
    made = Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1, "film": 2}, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.add_special_tokens(["[UNK]"])
    assert TextTokens(made).encode("perhaps a marvellous film [UNK]") == [0, 1, 0, 2, 0, 0, 0]


@contextmanager
def undisturbed() -> Iterator[None]:
    """Has this thread run until it waits or calls what lets others run: nothing else interrupts it."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(60.0)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


@pytest.mark.parametrize("how", ["encode", "encode_placed", "encode_pair"])
def test_a_long_text_is_tokenised_while_other_threads_run(how: str) -> None:
    """No text, however long, keeps the loop of its replica waiting until it is tokenised."""
    made = tokenizer()
    made.no_truncation()
    encoder, text = TextEncoder(made), "good . " * INLINE_CHARACTERS
    begun, ran = threading.Event(), threading.Event()

    def run() -> None:
        begun.wait()
        ran.set()

    threading.Thread(target=run, daemon=True).start()
    with undisturbed():
        begun.set()
        for _ in range(100):  # the other thread needs a processor of a host that may be busy
            getattr(encoder, how)(*[text] * (2 if how == "encode_pair" else 1))
            if let_run := ran.is_set():
                break
    assert let_run, "the tokenizer kept the other thread waiting"


@given(st.text(max_size=40), st.text(max_size=40))
def test_a_long_text_is_read_as_a_short_one(begin: str, end: str) -> None:
    """However a text is tokenised, its tokens are the tokenizer's own, alone and in a pair."""
    made = tokenizer()
    made.no_truncation()
    made.no_padding()
    encoder, text = TextEncoder(made), begin + " good . " * (INLINE_CHARACTERS // 4) + end
    own = tokenizer()
    own.no_truncation()
    own.no_padding()
    own.encode_special_tokens = True
    assert encoder.encode(text).ids == own.encode(text).ids
    assert encoder.encode_placed(text)[1] == own.encode(text).offsets
    assert encoder.encode_pair(text, "film").type_ids == own.encode(text, "film").type_ids
