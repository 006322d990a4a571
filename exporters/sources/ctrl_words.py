"""Makes a fast tokenizer of CTRL's, which transformers has in Python alone, and finds its control codes.

CTRL marks a piece that a word goes on after (`hel@@ lo`); merges mark the end of a word (`hel lo</w>`), as tokenizers
does. Equal on the published vocabulary to transformers' tokenizer, but for the words that `known_merges` names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import CTRLTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

GOES_ON, END = "@@", "</w>"
WORD = r"\S+\n?"
"""A word as CTRL's tokenizer finds it, with the end of its line."""

Merge = tuple[str, str]


def fast_tokenizer(slow: CTRLTokenizer) -> PreTrainedTokenizerFast:
    """The fast form of a tokenizer of CTRL's."""
    tables: Any = slow
    unknown = str(slow.unk_token)
    pieces = {_inner(piece): at for piece, at in tables.encoder.items() if piece != unknown}
    pieces[unknown] = tables.encoder[unknown]
    ordered = sorted(tables.bpe_ranks, key=tables.bpe_ranks.__getitem__)
    merges = known_merges([merge for merge in ordered if len(merge) == 2], pieces)
    made = Tokenizer(models.BPE(pieces, merges, unk_token=unknown, end_of_word_suffix=END))
    made.pre_tokenizer = pre_tokenizers.Split(Regex(WORD), "removed", invert=True)
    made.decoder = decoders.BPEDecoder(suffix=END)
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        unk_token=unknown,
        model_max_length=slow.model_max_length,
        truncation_side=slow.truncation_side,
    )


def known_merges(merges: Sequence[Merge], pieces: Mapping[str, int]) -> list[Merge]:
    """The merges whose parts and whole are pieces of the vocabulary, in order.

    164 of the 199,865 published ones make what is no piece, as `10km</w>`, which transformers then reads as unknown.
    Without them such words are read in their parts.
    """
    return [(first, second) for first, second in merges if {first, second, first + second} <= pieces.keys()]


def control_codes(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """The control codes that a CTRL's vocabulary has, each a word that is one token, with its id."""
    vocabulary = tokenizer.get_vocab()
    named = {name: vocabulary.get(f"{name}{END}") for name in CTRLTokenizer.control_codes}
    return {name: at for name, at in named.items() if at is not None}


def _inner(piece: str) -> str:
    """A piece as merges have it."""
    return piece.removesuffix(GOES_ON) if piece.endswith(GOES_ON) else f"{piece}{END}"
