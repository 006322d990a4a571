"""Tokenises a question with its context, and divides a long context into overlapping windows beside the question.

A window is what the engine is given: the question, a part of the context's tokens, and the special tokens around them,
as the checkpoint's own tokenizer joins a pair of texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Encoding, Tokenizer

from deployments.replica.tokens import SAMPLE, Encoded, TextEncoder
from gateway.tasks.answer import AnswerParameters, overlap_of, window_of
from gateway.tasks.windows import windows_of


@dataclass(frozen=True)
class ReadContext:
    """A context beside its question: the ids, places and words of its tokens, and the windows that hold them.

    Places are characters of the context as it is given; a token's word is a number, None for a token of none. `before`
    are the ids that each window begins with: special tokens and the question, of which the last `left_out` tokens were
    cut.
    """

    context: str
    ids: Sequence[int]
    places: Sequence[tuple[int, int]]
    words: Sequence[int | None]
    before: Sequence[int]
    left_out: int
    windows: Sequence[tuple[int, int]]


class QuestionTooLong(Exception):
    """A question that leaves a window no room for the context: its tokens, and the most that it may have."""

    def __init__(self, tokens: int, most: int, window: int) -> None:
        """Takes them and the tokens of the window."""
        super().__init__(f"has {tokens} tokens, and may have {most} in a window of {window}")
        self.tokens, self.most = tokens, most


class QuestionReader:
    """Tokenises questions and contexts for one checkpoint. Safe to use from many threads, since it never changes."""

    def __init__(self, tokenizer: Tokenizer, window: int, *, types: bool) -> None:
        """Takes a tokenizer without truncation and padding, as `open` makes it.

        Without `types` the checkpoint is told no token types, whatever its tokenizer.json gives.
        """
        sample = tokenizer.encode(SAMPLE, SAMPLE)
        question, context = (_own(sample, sequence) for sequence in (0, 1))
        parts = (
            slice(question.start),
            slice(question.stop, context.start),
            slice(context.stop, len(sample.ids)),
        )
        self._start, self._middle, self._end = (sample.ids[part] for part in parts)
        kinds = sample.type_ids
        self._types = [
            *kinds[parts[0]],
            kinds[question.start],
            *kinds[parts[1]],
            kinds[context.start],
            *kinds[parts[2]],
        ]
        self._tells_types = types and any(kinds)
        self._encoder = TextEncoder(tokenizer)
        self._window = window

    @classmethod
    def open(cls, tokenizer_file: Path, window: int, *, types: bool) -> QuestionReader:
        """Loads a tokenizer.json without its truncation and padding."""
        tokenizer = Tokenizer.from_file(str(tokenizer_file))
        tokenizer.no_padding()
        tokenizer.no_truncation()
        return cls(tokenizer, window, types=types)

    @property
    def specials(self) -> int:
        """The special tokens of each window."""
        return len(self._start) + len(self._middle) + len(self._end)

    def read(self, question: str, context: str, parameters: AnswerParameters | None = None) -> ReadContext:
        """Tokenises a question and its context. Raises QuestionTooLong."""
        parameters = parameters or AnswerParameters()
        encoded = self._encoder.encode(question)
        asked = encoded.ids[_own(encoded, 0)]
        cut = asked if parameters.question_tokens is None else asked[: parameters.question_tokens]
        window = window_of(self._window, parameters)
        room = window - len(cut) - self.specials
        if room < 1:
            raise QuestionTooLong(len(cut), max(window - self.specials - 1, 0), window)
        encoding, places = self._encoder.encode_placed(context)
        own = _own(encoding, 0)
        ids = encoding.ids[own]
        return ReadContext(
            context,
            ids,
            places[own],
            encoding.word_ids[own],
            [*self._start, *cut, *self._middle],
            len(asked) - len(cut),
            windows_of(len(ids), room, overlap_of(window, room, parameters)),
        )

    def encoded(self, read: ReadContext) -> list[Encoded]:
        """The token ids of each window, with their types where the checkpoint is told any."""
        return [self._row(read, start, end) for start, end in read.windows]

    def kept(self, read: ReadContext) -> int:
        """The tokens of a question and its context that windows hold, each counted once, with the specials of one."""
        return len(read.before) + len(read.ids) + len(self._end)

    def ids(self, question: str, context: str) -> list[int]:
        """The token ids of a context's first window."""
        return self.encoded(self.read(question, context))[0].token_ids

    def _row(self, read: ReadContext, start: int, end: int) -> Encoded:
        row = [*read.before, *read.ids[start:end], *self._end]
        if not self._tells_types:
            return Encoded(row, len(row))
        first, middle, last = len(self._start), len(self._middle), len(self._end)
        counts = [1] * first + [len(read.before) - first - middle] + [1] * middle + [end - start] + [1] * last
        types = [kind for kind, count in zip(self._types, counts, strict=True) for _ in range(count)]
        return Encoded(row, len(row), types)


def _own(encoding: Encoding, sequence: int) -> slice:
    """Where the tokens of one text of an encoding are, specials left out."""
    places = [at for at, one in enumerate(encoding.sequence_ids) if one == sequence]
    return slice(places[0], places[-1] + 1) if places else slice(0, 0)
