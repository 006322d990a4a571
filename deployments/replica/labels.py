"""What a task does around the engine: text to token ids before it, logits to an answer after it.

Knows tokenizers and scores; refuses to know engines, batches and budgets.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from deployments.engines.base import Logits
from deployments.replica.tokens import well_formed
from gateway.model.messages import Failure, FailureKind
from gateway.tasks.classify import ClassifyParameters, FunctionToApply, LabelScore, Truncation

TOKENIZER_FILE = "tokenizer.json"


@dataclass(frozen=True, slots=True)
class Encoded:
    """One text as the engine takes it: `kept` token ids of the `tokens_total` it has, specials counted in both."""

    token_ids: list[int]
    tokens_total: int

    @property
    def kept(self) -> int:
        """Tokens given to the engine."""
        return len(self.token_ids)

    @property
    def truncated(self) -> bool:
        """Whether the text has more tokens than were kept."""
        return self.tokens_total > len(self.token_ids)


class ClassifyTask:
    """Single texts in, scored labels out. Safe to use from many threads: nothing in it changes after `open`."""

    def __init__(self, tokenizer: Tokenizer, labels: tuple[str, ...], window: int, pad_id: int = 0) -> None:
        """Takes a tokenizer that truncates at `window` and pads nothing; `open` makes it so."""
        self._tokenizer = tokenizer
        self.labels = labels
        self.window = window
        self.pad_id = pad_id

    @classmethod
    def open(cls, tokenizer_file: Path, labels: tuple[str, ...], window: int, pad_id: int = 0) -> ClassifyTask:
        """Loads a tokenizer.json; whatever truncation and padding it carries is replaced by the window's."""
        tokenizer = Tokenizer.from_file(str(tokenizer_file))
        tokenizer.no_padding()
        tokenizer.enable_truncation(window, stride=0, strategy="longest_first", direction="right")
        return cls(tokenizer, labels, window, pad_id)

    def encode(self, text: str, truncation: Truncation) -> Encoded | Failure:
        """The text's token ids, its head kept where it passes the window; TOO_LONG instead when truncation is `error`.

        One pass does both, the cut and the count: what the tokenizer cut off comes back as overflow, each piece with
        specials of its own, which are not counted again. A lone surrogate, which no UTF-8 can hold, counts as U+FFFD.
        """
        try:
            encoding = self._tokenizer.encode(text)
        except TypeError:  # what tokenizers raises for a str that UTF-8 cannot hold
            encoding = self._tokenizer.encode(well_formed(text))
        total = len(encoding.ids)
        if total >= self.window:
            total += sum(len(piece) - sum(piece.special_tokens_mask) for piece in encoding.overflowing)
        if total > self.window and truncation == "error":
            return Failure(FailureKind.TOO_LONG, "over the checkpoint's window", total, self.window)
        return Encoded(encoding.ids, total)

    def ids(self, text: str) -> list[int]:
        """The token ids alone, the text's head where it passes the window."""
        encoded = self.encode(text, "longest_first")
        assert isinstance(encoded, Encoded), "only truncation='error' gives a failure"
        return encoded.token_ids

    def scores(self, logits: Logits, parameters: ClassifyParameters) -> tuple[LabelScore, ...]:
        """Label scores of one row of logits, best first and at most `top_k`; equal scores keep the labels' order."""
        values = applied(parameters.function_to_apply, logits)
        best = sorted(range(len(values)), key=lambda i: -values[i])[: parameters.top_k]
        return tuple(LabelScore(self.labels[i], values[i]) for i in best)


def applied(function: FunctionToApply, logits: Logits) -> list[float]:
    """The scores a function makes of one row of logits, in float64; no logit is too large for it."""
    row: list[float] = logits.tolist()
    match function:
        case "softmax":
            largest = max(row)
            powers = [math.exp(value - largest) for value in row]
            total = math.fsum(powers)
            return [power / total for power in powers]
        case "sigmoid":
            return [1 / (1 + math.exp(-v)) if v >= 0 else math.exp(v) / (1 + math.exp(v)) for v in row]
        case "none":
            return row
