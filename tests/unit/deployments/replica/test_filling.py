"""Laws of a filler's replica: which words it gives for a mask, in texts with one or several, and what it refuses."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from fake_fillers import MASK_ID, WINDOW, WORDS, CopyingEngine, replica, tokenizer
from tokenizers import Tokenizer, models, normalizers

from deployments.replica.filling import MaskReader
from deployments.replica.tokens import Encoded
from gateway.model.messages import Answer, Failure, FailureKind, Work
from gateway.tasks.fill import FillParameters


def fill(*texts: str, **parameters: Any) -> Work:
    """Work of `/fill`."""
    return Work("fill", texts, FillParameters(**parameters), 60.0, False, "r")


async def handled(folder: Path, *work: Work, engine: CopyingEngine | None = None) -> list[Answer | Failure]:
    """The results of requests that come together."""
    made = replica(folder, engine or CopyingEngine())
    made.start()
    try:
        return list(await made.handle(work))
    finally:
        await made.stop(60)


async def answered(folder: Path, work: Work) -> Answer:
    """The answer to one request alone."""
    (answer,) = await handled(folder, work)
    assert isinstance(answer, Answer)
    return answer


@pytest.fixture
def reader(tmp_path: Path) -> MaskReader:
    """A reader of texts with masks."""
    tokenizer().save(str(tmp_path / "tokenizer.json"))
    return MaskReader(tmp_path / "tokenizer.json", WINDOW, "[MASK]", 0, cleans=True)


@pytest.mark.parametrize("mask", ["[MASK]", "<mask>"])
async def test_a_mask_gets_the_likeliest_words(tmp_path: Path, mask: str) -> None:
    """Words come by their probabilities, which are shares of the whole vocabulary, with the text that each makes."""
    ((words,),) = (await answered(tmp_path, fill(f"Ann said {mask} .", top_k=3))).outputs
    first = words[0]
    assert (first.token, first.token_str, first.sequence) == (WORDS.index("said"), "said", "ann said said.")
    assert [one.score for one in words] == sorted((one.score for one in words), reverse=True) and len(words) == 3
    assert first.score == pytest.approx(math.exp(5) / (math.exp(5) + len(WORDS) - 1))


async def test_each_of_several_masks_is_filled_by_itself(tmp_path: Path) -> None:
    """A text with several masks has a list for each, whose texts have the other masks and the special tokens."""
    (found,) = (await answered(tmp_path, fill("ann [MASK] lee <mask>", top_k=1))).outputs
    assert [[one.sequence for one in words] for words in found] == [
        ["[CLS] ann ann lee [MASK] [SEP]"],
        ["[CLS] ann [MASK] lee lee [SEP]"],
    ]


async def test_texts_of_unlike_numbers_of_masks_share_a_run(tmp_path: Path) -> None:
    """Texts with one mask and with several are each answered for their own masks, in their order."""
    engine = CopyingEngine()
    work = fill("ann [MASK]", "[MASK] [MASK] lee [MASK]", "said <mask>", top_k=1), fill("lee [MASK]")
    first, second = await handled(tmp_path, *work, engine=engine)
    assert isinstance(first, Answer) and isinstance(second, Answer)
    assert [len(masks) for masks in first.outputs] == [1, 3, 1]
    assert [masks[-1][0].token_str for masks in first.outputs] == ["ann", "lee", "said"]
    assert second.outputs[0][0][0].token_str == "lee" and len(engine.rows) == 4


async def test_targets_are_what_is_chosen_from(tmp_path: Path) -> None:
    """Only the words asked for are answered, each once; one that is no word counts by its first token."""
    work = fill("said [MASK]", targets=("lee", "annnie", "lee", "said"), top_k=9)
    ((words,),) = (await answered(tmp_path, work)).outputs
    assert [one.token_str for one in words] == ["said", "lee", "ann"]
    assert 0 < sum(one.score for one in words) < 1


async def test_a_text_over_the_window_is_refused(tmp_path: Path) -> None:
    """A text that does not fit is refused with its tokens and its place: no mask is cut away unseen."""
    (refused,) = await handled(tmp_path, fill("ann [MASK]", "ann " * WINDOW + "[MASK]"))
    assert isinstance(refused, Failure) and refused.kind is FailureKind.TOO_LONG
    assert (refused.tokens, refused.limit, refused.index) == (WINDOW + 3, WINDOW, 1)


def test_only_masks_are_special_in_a_text(reader: MaskReader) -> None:
    """Names of other special tokens are text like any other, and are written as such."""
    read = reader.encode("[SEP] ann [PAD][MASK]")
    assert isinstance(read, Encoded)
    inner = read.token_ids[1:-1]
    assert inner.count(MASK_ID) == 1 and not {2, 3, 0} & set(inner)


def test_a_golden_text_has_a_mask_in_its_middle(reader: MaskReader) -> None:
    """A text is cut to the window, and its middle token replaced; nothing but special tokens has none."""
    assert [WORDS[one] for one in reader.masked("ann said lee")] == ["[CLS]", "ann", "[MASK]", "lee", "[SEP]"]
    long = reader.masked("ann " * 50)
    assert len(long) == WINDOW and long.count(MASK_ID) == 1 and (long[0], long[-1]) == (2, 3)
    assert reader.masked("") == [2, 3]


def test_spaces_are_cleaned_as_the_checkpoint_s_tokenizer_does(tmp_path: Path) -> None:
    """Spaces before punctuation go where the tokenizer cleans texts, and stay where it does not."""
    tokenizer().save(str(tmp_path / "tokenizer.json"))
    for cleans, written in ((True, "ann."), (False, "ann .")):
        made = MaskReader(tmp_path / "tokenizer.json", WINDOW, "[MASK]", 0, cleans=cleans)
        assert made.write([2, WORDS.index("ann"), WORDS.index("."), 3], whole=False) == written


def test_a_tokenizer_without_the_mask_is_refused(tmp_path: Path) -> None:
    """A mask that the tokenizer does not have is named."""
    tokenizer().save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ValueError, match="has no token '<mask>'"):
        MaskReader(tmp_path / "tokenizer.json", WINDOW, "<mask>", 0, cleans=True)


def test_a_mask_in_other_letters_is_refused(tmp_path: Path) -> None:
    """No tokenizer makes masks of what the limit on masks has not counted: wide letters that it reads as narrow."""
    pieces = [("[MASK]", 0.0), ("<unk>", -9.0), ("a", -1.0), *((letter, -5.0) for letter in "[]MSK ")]
    made = Tokenizer(models.Unigram(pieces, unk_id=1))
    made.normalizer = normalizers.NFKC()
    made.add_special_tokens(["[MASK]", "<unk>"])
    made.save(str(tmp_path / "tokenizer.json"))
    reader = MaskReader(tmp_path / "tokenizer.json", WINDOW, "[MASK]", 1, cleans=True)
    assert isinstance(reader.encode("a[MASK]a<mask>"), Encoded)
    found = reader.encode("a[MASK]a" + "".join(chr(ord(one) + 0xFEE0) for one in "[MASK]"))
    assert isinstance(found, Failure) and found.kind is FailureKind.REFUSED
