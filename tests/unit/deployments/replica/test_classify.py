"""Laws of the classify task: what the engine is given of a text, and what the client learns of it."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_variants import LABELS, WINDOW, tokenizer
from tokenizers import AddedToken, Encoding, Tokenizer, models, pre_tokenizers, processors

from deployments.replica.classify import LabelScorer, applied
from deployments.replica.tokens import READ_CHARACTERS, Encoded
from gateway.model.manifest import FunctionToApply
from gateway.model.messages import Failure, FailureKind
from gateway.tasks.classify import ClassifyParameters

ROWS = st.lists(st.floats(-1e6, 1e6, width=32), min_size=2, max_size=2)


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> LabelScorer:
    """The task with a tokenizer that was saved with truncation and padding on."""
    file = tmp_path_factory.mktemp("task") / "tokenizer.json"
    tokenizer().save(str(file))
    return LabelScorer.open(file, LABELS, WINDOW)


def whole_ids(text: str) -> list[int]:
    """All ids of a text by a fresh tokenizer, nothing cut and nothing padded."""
    plain = tokenizer()
    plain.no_padding()
    plain.no_truncation()
    ids: list[int] = plain.encode(text).ids
    return ids


def encoded(task: LabelScorer, text: str) -> Encoded:
    """The text as it is encoded where it is too long."""
    found = task.encode(text, "longest_first")
    assert isinstance(found, Encoded)
    return found


@given(st.lists(st.sampled_from(["good", "films", "bad.", "very", "zebra"]), max_size=40))
def test_the_head_is_kept_and_every_token_counted(task: LabelScorer, words: list[str]) -> None:
    """A text that is cut keeps its first tokens and its specials, and its whole length is reported."""
    text = " ".join(words)
    ids = whole_ids(text)
    found = encoded(task, text)
    assert found.tokens_total == len(ids)
    assert found.truncated == (len(ids) > WINDOW)
    assert found.token_ids == (ids if len(ids) <= WINDOW else [*ids[: WINDOW - 1], ids[-1]])


@pytest.mark.parametrize(("words", "fits"), [(WINDOW - 3, True), (WINDOW - 2, True), (WINDOW - 1, False)])
def test_error_truncation_refuses_exactly_what_passes_the_window(task: LabelScorer, words: int, fits: bool) -> None:
    """With `error`, a text as long as the window is answered, and one token more is refused with both figures."""
    found = task.encode(" ".join(["good"] * words), "error")
    if fits:
        assert isinstance(found, Encoded) and not found.truncated
    else:
        assert found == Failure(FailureKind.TOO_LONG, "over the checkpoint's window", words + 2, WINDOW)


class Reading:
    """A tokenizer that notes how many characters it was given."""

    def __init__(self, inner: Tokenizer) -> None:
        self.inner = inner
        self.given: list[int] = []

    def encode(self, text: str, add_special_tokens: bool = True) -> Encoding:
        """Encodes a text."""
        self.given.append(len(text))
        return self.inner.encode(text, add_special_tokens=add_special_tokens)

    def encode_batch(self, texts: list[str]) -> list[Encoding]:
        """Encodes texts."""
        return [self.encode(text) for text in texts]

    def get_added_tokens_decoder(self) -> dict[int, AddedToken]:
        """The special tokens."""
        decoder: dict[int, AddedToken] = self.inner.get_added_tokens_decoder()
        return decoder


def reading() -> tuple[Reading, LabelScorer]:
    """A scorer of a window of `WINDOW` tokens, and the tokenizer that it reads with."""
    made = tokenizer()
    made.no_padding()
    made.enable_truncation(WINDOW)
    noted = Reading(made)
    scorer = LabelScorer(noted, LABELS, WINDOW)
    noted.given.clear()
    return noted, scorer


FIRST_LOOK = READ_CHARACTERS * WINDOW


@pytest.mark.parametrize("characters", [FIRST_LOOK, FIRST_LOOK + 1, 3_000_000])
def test_of_a_long_text_only_the_head_is_read(characters: int) -> None:
    """Of a text of any length no more is tokenised than overfills the window, and the rest is estimated by it."""
    noted, scorer = reading()
    text = ("good film " * (characters // 10 + 1))[:characters]
    found = encoded(scorer, text)
    assert noted.given == [FIRST_LOOK]
    assert found.token_ids == encoded(scorer, text[:FIRST_LOOK]).token_ids and found.truncated
    assert found.tokens_total == pytest.approx(len(whole_ids(text)), rel=0.1, abs=3)


def test_a_text_of_few_tokens_is_read_to_its_end() -> None:
    """A text whose head does not fill the window is read on, four times as far each time, so that nothing is lost."""
    noted, scorer = reading()
    text = "good" + " " * (20 * FIRST_LOOK) + "film"
    assert encoded(scorer, text).token_ids == whole_ids(text)
    assert noted.given == [FIRST_LOOK, 4 * FIRST_LOOK, 16 * FIRST_LOOK, len(text)]


@pytest.mark.parametrize("spaces", [0, FIRST_LOOK, 10 * FIRST_LOOK])
def test_a_long_text_is_refused_where_it_passes_the_window(spaces: int) -> None:
    """With `error`, a text over the window is refused however much of it is blank, and one within it is not."""
    _, scorer = reading()
    fits = " ".join(["good"] * (WINDOW - 3)) + " " * spaces + " film"
    assert isinstance(scorer.encode(fits, "error"), Encoded)
    refused = scorer.encode(fits + " film", "error")
    assert isinstance(refused, Failure) and refused.kind is FailureKind.TOO_LONG and refused.tokens > WINDOW


@pytest.mark.parametrize("specials", [("[CLS]", "[SEP]"), ("<s>", "</s>")])
@pytest.mark.parametrize("tokens", [510, 511, 512, 513, 514])
def test_a_window_of_512_is_judged_to_the_token(tmp_path: Path, specials: tuple[str, str], tokens: int) -> None:
    """Tokens are counted exactly at the window of BERT and RoBERTa, specials included, whether cut or refused."""
    first, last = specials
    made = Tokenizer(models.WordLevel({first: 0, last: 1, "x": 2}, unk_token="x"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.add_special_tokens([first, last])
    made.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {last}", special_tokens=[(first, 0), (last, 1)]
    )
    made.save(str(tmp_path / "tokenizer.json"))
    task = LabelScorer.open(tmp_path / "tokenizer.json", LABELS, 512)
    text = "x " * (tokens - 2)
    cut, refused = task.encode(text, "longest_first"), task.encode(text, "error")
    assert isinstance(cut, Encoded)
    assert (cut.tokens_total, cut.kept, cut.truncated) == (tokens, min(tokens, 512), tokens > 512)
    assert cut.token_ids[0] == 0 and cut.token_ids[-1] == 1
    if tokens > 512:
        assert refused == Failure(FailureKind.TOO_LONG, "over the checkpoint's window", tokens, 512)
    else:
        assert refused == cut


@given(st.text(st.characters(codec=None), max_size=60))
def test_no_text_breaks_the_tokenizer(task: LabelScorer, text: str) -> None:
    """Any text gives ids within the window: control characters, NULs, emoji, lone surrogates."""
    found = encoded(task, text)
    assert 2 <= found.kept <= WINDOW
    assert found.kept <= found.tokens_total


def test_an_empty_text_is_its_specials(task: LabelScorer) -> None:
    """An empty text is encoded as its special tokens."""
    assert encoded(task, "").token_ids == [2, 3]


def test_any_template_of_specials_is_kept(tmp_path: Path) -> None:
    """A text that is cut keeps all special tokens of any template, each counted once."""
    vocabulary = {"<a>": 0, "<b>": 1, "<c>": 2, "x": 3}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="x"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="<a> <b> $A <c> <c> <c>", special_tokens=[("<a>", 0), ("<b>", 1), ("<c>", 2)]
    )
    made.save(str(tmp_path / "tokenizer.json"))
    task = LabelScorer.open(tmp_path / "tokenizer.json", LABELS, 8)
    found = encoded(task, "x " * 11)
    assert found.token_ids == [0, 1, 3, 3, 3, 2, 2, 2]
    assert found.tokens_total == 16


@given(ROWS)
def test_softmax_is_a_distribution_whatever_the_logits(row: list[float]) -> None:
    """Softmax gives probabilities that sum to one, and no logit overflows it."""
    scores = applied("softmax", np.array(row, dtype=np.float32))
    assert all(0 <= score <= 1 for score in scores)
    assert math.isclose(sum(scores), 1.0)


@given(ROWS)
def test_sigmoid_and_none_take_each_logit_alone(row: list[float]) -> None:
    """Sigmoid maps each logit to the range 0 to 1, and `none` leaves it unchanged."""
    logits = np.array(row, dtype=np.float32)
    assert all(0 <= score <= 1 for score in applied("sigmoid", logits))
    assert applied("none", logits) == logits.tolist()


@given(ROWS, st.sampled_from(["softmax", "sigmoid", "none"]), st.none() | st.integers(1, 5))
def test_the_best_comes_first(task: LabelScorer, row: list[float], function: FunctionToApply, top_k: int) -> None:
    """Scores never rise along an answer, which has as many labels as asked for, or all there are."""
    scores = task.scores(np.array(row, dtype=np.float32), ClassifyParameters(top_k, function))
    assert len(scores) == min(top_k or 2, 2)
    assert all(better.score >= worse.score for better, worse in pairwise(scores))
    assert scores[0].label == LABELS[row.index(max(row))] or scores[0].score == scores[-1].score


def test_a_checkpoint_scores_by_its_own_function_unless_a_request_names_one(tmp_path: Path) -> None:
    """Without `function_to_apply` the checkpoint's own is applied; a request's own goes before it."""
    tokenizer().save(str(tmp_path / "tokenizer.json"))
    task = LabelScorer.open(tmp_path / "tokenizer.json", LABELS, WINDOW, function="none")
    logits = np.array([-3, 0], dtype=np.float32)
    assert [one.score for one in task.scores(logits, ClassifyParameters())] == [0, -3]
    assert task.scores(logits, ClassifyParameters(function_to_apply="sigmoid"))[0].score == 0.5


def test_a_text_is_cut_on_the_checkpoints_side(tmp_path: Path) -> None:
    """A checkpoint that cuts on the left keeps the end of a text over its window."""
    tokenizer().save(str(tmp_path / "tokenizer.json"))
    right, left = (LabelScorer.open(tmp_path / "tokenizer.json", LABELS, 8, side=side) for side in ("right", "left"))
    whole = LabelScorer.open(tmp_path / "tokenizer.json", LABELS, 512).ids("a b c d e f g h i j")
    assert (len(right.ids("a b c d e f g h i j")), len(left.ids("a b c d e f g h i j"))) == (8, 8)
    assert right.ids("a b c d e f g h i j")[:7] == whole[:7] and left.ids("a b c d e f g h i j")[1:] == whole[-7:]


@pytest.mark.parametrize(("first", "last"), [("[CLS]", "[SEP]"), ("w1", "w2")])
def test_names_of_special_tokens_are_text_in_both_texts_of_a_pair(tmp_path: Path, first: str, last: str) -> None:
    """A special token's name in either text of a pair is text, even where a vocabulary has it as a word, too."""
    words = [first, last, "[UNK]", "a", "b", "[", "]", "SEP", "w", "2"]
    made = Tokenizer(models.WordLevel({word: at for at, word in enumerate(words)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.add_special_tokens([first, last])
    made.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {last}", pair=f"{first} $A {last} $B:1 {last}:1", special_tokens=[(first, 0), (last, 1)]
    )
    made.save(str(tmp_path / "tokenizer.json"))
    task = LabelScorer.open(tmp_path / "tokenizer.json", LABELS, 64)
    encoded = task.encode_pair(f"a {last} b", f"{last} \ud83d b", "longest_first")
    assert isinstance(encoded, Encoded)
    assert (encoded.token_ids.count(0), encoded.token_ids.count(1)) == (1, 2)
    begins = encoded.token_ids.index(1) + 1
    assert list(encoded.token_types) == [0] * begins + [1] * (len(encoded.token_ids) - begins)
    assert encoded.tokens_total == len(encoded.token_ids)


def test_an_unknown_character_is_not_taken_for_the_name_of_its_token(task: LabelScorer, tmp_path: Path) -> None:
    """A text with characters that no piece has is read as it is, also where the unknown token is a special one."""
    unknown = tokenizer()
    unknown.add_special_tokens(["[UNK]"])
    unknown.save(str(tmp_path / "tokenizer.json"))
    scorer = LabelScorer.open(tmp_path / "tokenizer.json", LABELS, WINDOW)
    assert scorer.ids("good \u4f60\u597d film") == task.ids("good \u4f60\u597d film")
