"""Rows of tokens with words masked: only whole words of one piece are, since one mask stands for one piece."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer

from exporters.starter.training import PAD_ID, block

TAIL = "##"
"""How pieces begin that go on with a word."""


@dataclass(frozen=True)
class Words:
    """Which pieces of a vocabulary are words and which go on with one, and the id of the mask."""

    is_word: tuple[bool, ...]
    is_tail: tuple[bool, ...]
    mask_id: int

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Words:
        """The words of a tokenizer of word pieces: its pieces of letters alone, but no tail."""
        pieces = [str(tokenizer.id_to_token(at)) for at in range(tokenizer.get_vocab_size())]
        tails = tuple(piece.startswith(TAIL) for piece in pieces)
        return cls(tuple(piece.isalpha() for piece in pieces), tails, int(tokenizer.token_to_id("[MASK]")))

    def places(self, row: Sequence[int]) -> list[int]:
        """The places of a row's whole words of one piece."""
        after = [*row[1:], PAD_ID]
        return [at for at, one in enumerate(row) if self.is_word[one] and not self.is_tail[after[at]]]


@dataclass(frozen=True)
class Masked:
    """Rows with masks: ids and attention (rows, longest); each mask's row, its place in it, and the word there."""

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    rows: torch.Tensor
    places: torch.Tensor
    words: torch.Tensor


def masked(rows: Sequence[Sequence[int]], chosen: Sequence[Sequence[int]], mask_id: int) -> Masked:
    """The rows with masks at the chosen places of each."""
    input_ids = block(rows)
    attention = (input_ids != PAD_ID).long()
    at = torch.tensor([(nth, place) for nth, places in enumerate(chosen) for place in places], dtype=torch.long)
    nth, place = at.reshape(-1, 2).unbind(1)
    words = input_ids[nth, place]
    input_ids[nth, place] = mask_id
    return Masked(input_ids, attention, nth, place, words)


def draw(row: Sequence[int], words: Words, share: float, chance: random.Random) -> list[int]:
    """Places to mask: as many words as `share` of the row's tokens, at least one, if the row has so many."""
    places = words.places(row)
    return sorted(chance.sample(places, min(len(places), max(1, round(share * len(row))))))


def one_each(rows: Sequence[Sequence[int]], words: Words, seed: int) -> list[list[int]]:
    """One place to mask in each row, drawn by a seed; none in a row without a word."""
    chance = random.Random(seed)
    return [[chance.choice(places)] if (places := words.places(row)) else [] for row in rows]


def in_batches(rows: Sequence[Sequence[int]], chosen: Sequence[Sequence[int]], mask_id: int, size: int) -> list[Masked]:
    """The rows in batches, in order."""
    starts = range(0, len(rows), size)
    return [masked(rows[at : at + size], chosen[at : at + size], mask_id) for at in starts]
