"""Translates texts sentence by sentence: an encoder-decoder writes each, with the beams that the budget allows.

Translation models are trained on sentences. Of a text that is longer they leave parts out, and a text cut at the window
loses its end. What is not translated in time is left out, and said so; nothing stands in for it.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from itertools import chain, islice
from statistics import fmean

import numpy as np

from deployments.engines.base import Seq2SeqEngine
from deployments.engines.past_memory import PastNeed
from deployments.replica.sentences import each_sentence
from deployments.replica.tokens import TextTokens
from deployments.replica.writing.beam_search import BeamSearch, SearchRules, search_rules
from deployments.replica.writing.job import Ask, Settled, Steps, TextBudget, WritingJob, WritingResult, go_along
from deployments.replica.writing.past_budget import PastBudget, past_budget
from deployments.replica.writing.shared_runs import PARTED, Given, Likeness, Parted, Run, SharedRuns
from gateway.catalogs.catalog import CatalogEntry
from gateway.model.deadline import Clock
from gateway.model.messages import Failure, FailureKind, FinishReason, Generation, InputReport
from gateway.tasks.decoding import DecodingPlan, DecodingTimes, WritingTimes, leanest, plan
from gateway.tasks.service_time import SLOWDOWN_WEIGHT, Slowdown
from gateway.tasks.translate import SENTENCE_TOKENS, Direction, TranslateParameters, TranslatorManifest, wanted_of

_FIRST_TOKENS_PER_CHARACTER = 0.27
"""Tokens per character before any text was read. Set by hand."""

REMEMBERED = 256
"""Directions that are remembered, by the codes of clients: they are looked for once a text, on the event loop."""

COPIED_AT_ONCE = 256
"""Pieces without letters that are copied before the budget is looked at, and others may run. Set by hand: 1 to 3 ms."""

COUNTED_CHARACTERS = 4_000
"""Characters of what was left out whose tokens are counted; those of the rest are estimated. Set by hand: 1,000 tokens.

It is done after the deadline, in the time that is kept for sending the answer.
"""

_LEAST_COUNTED = 16
"""Characters that a shorter piece stands for in that, since each piece takes time of its own. Set by hand."""

SHARED_CHARACTERS = 1_000
"""The longest text that may share the run of an equal one, which is looked at for a second sentence. Set by hand."""

_SMOOTHING = 0.05
"""Weight of a new observation of tokens per character. Set by hand."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a text that is translated alone, and the white space before it."""

    before: str
    text: str


@dataclass(slots=True)
class _Under:
    """A text under translation: what was asked, and what was read and written of it so far.

    `read` and `kept` are token ids of the text, without those that every piece has. What is copied has none. `parts`
    are the translation so far, and `rounds` the times that others could run between pieces that were copied. Texts of
    one `likeness` may share runs.
    """

    parameters: TranslateParameters
    direction: Direction
    budget: TextBudget
    characters: int
    unread: Iterator[Piece]
    likeness: Likeness
    parts: list[str] = field(default_factory=list)
    rounds: int = 0
    read_characters: int = 0
    read: int = 0
    kept: int = 0
    pieces: int = 0
    restored: int = 0
    tokens: int = 0
    beams: list[int] = field(default_factory=list)
    reasons: set[FinishReason] = field(default_factory=set)

    @property
    def clock(self) -> Clock:
        return self.budget.clock

    @property
    def most_tokens(self) -> int | None:
        """The tokens that the client's limit leaves; None without one."""
        most = self.parameters.max_new_tokens
        return None if most is None else most - self.tokens

    @property
    def text(self) -> str:
        """The translation so far."""
        return "".join(self.parts)

    def with_space(self, before: str, translated: str) -> str:
        """What a piece adds to the translation so far: its own, behind the white space that belongs there."""
        if not translated or not self.parts:
            return translated
        if not before or ("\n" not in before and self.direction.is_unspaced):
            before = "" if self.direction.is_unspaced else " "
        return f"{before}{translated}"

    def add(self, before: str, translated: str) -> None:
        """Adds the translation of a piece."""
        if translated:
            self.parts.append(self.with_space(before, translated))


class Translator:
    """Translates texts with one encoder-decoder. Several jobs may be under way at once."""

    def __init__(self, manifest: TranslatorManifest, engine: Seq2SeqEngine, tokens: TextTokens) -> None:
        self._manifest = manifest
        self._rules = manifest.generation
        self._window = manifest.max_tokens
        self._times = WritingTimes.of(manifest)
        self._engine = engine
        self._tokens = tokens
        self._written_share = manifest.output_tokens / manifest.input_tokens
        self._slowdown = Slowdown(SLOWDOWN_WEIGHT)
        self._per_character = _FIRST_TOKENS_PER_CHARACTER
        self._runs: SharedRuns[BeamSearch] = SharedRuns()
        self._direction = lru_cache(maxsize=REMEMBERED)(self._first_direction)

    def memory(self, entry: CatalogEntry) -> PastBudget | None:
        """What keys and values of all texts may take."""
        return past_budget(entry, self._engine, self._need(TranslateParameters()))

    def _need(self, parameters: TranslateParameters) -> PastNeed:
        """The most of a text: each of its pieces is of a window at most, and searched by itself."""
        wanted = wanted_of(parameters, self._rules, 1.0)
        return PastNeed(wanted.beams, wanted.max_new_tokens + 1, self._window)

    def begin(self, text: str, parameters: TranslateParameters, budget: TextBudget) -> WritingJob:
        """Makes the job of one text; runs nothing yet."""
        direction = self._direction(parameters.source, parameters.target)
        if direction is None:
            return WritingJob(budget, _refused())
        text = text.strip()
        pieces = self._pieces(text, direction) if parameters.truncation == "chunk" else iter([Piece("", text)])
        first = list(islice(pieces, 2)) if len(text) <= SHARED_CHARACTERS else []
        pieces = chain(first, pieces)
        under = _Under(parameters, direction, budget, len(text), pieces, Likeness())
        budget.left_s = self._rest_s(under)
        tokens = math.ceil(min(max(len(text), 1) * self._per_character, SENTENCE_TOKENS))
        if len(first) == 1:  # one run; of texts of several, equal ones could be at different pieces
            under.likeness.key = text, parameters, self._plan(tokens, under).beams
        return WritingJob(budget, self._steps(under), self._need(parameters), under.likeness)

    def _first_direction(self, source: str | None, target: str | None) -> Direction | None:
        return next(iter(self._manifest.directions(source, target)), None)

    def _steps(self, under: _Under) -> Steps:
        if under.budget.remaining_s <= 0:
            under.reasons.add("deadline")
            return self._result(under)
        copied = 0
        for piece in under.unread:
            under.read_characters += len(piece.before) + len(piece.text)
            if not _has_letters(piece.text):
                under.add(piece.before, piece.text)
                copied += 1
                if copied % COPIED_AT_ONCE == 0 and not (yield from self._may_copy(under)):
                    break
                continue
            ids, own = encoded(self._tokens, piece.text, under.direction)
            total, ids = len(ids), cut_to(self._tokens, ids, under.direction, self._window)
            if len(ids) < total and under.parameters.truncation == "error":
                return Failure(FailureKind.TOO_LONG, "over the checkpoint's window", total, self._window)
            under.read += total - own
            self._learn_characters(piece.text, total - own)
            if under.most_tokens is None or under.most_tokens > 0:
                yield from self._translate(piece, ids, under)
                under.kept += (len(ids) - own) * ("deadline" not in under.reasons)
            else:
                under.reasons.add("length")
            if {"deadline", "length"} & under.reasons and not self._goes_on(under):
                break
        return self._result(under)

    def _may_copy(self, under: _Under) -> Generator[Settled | None, None, bool]:
        """Lets others run between pieces that are copied; False if the time is over then."""
        under.rounds += 1
        under.budget.left_s = self._rest_s(under)
        yield lambda: under.text
        if under.budget.fits(0.0):
            return True
        under.reasons.add("deadline")
        return False

    def _goes_on(self, under: _Under) -> bool:
        """True if a piece that was cut was cut by the checkpoint's own limit alone, so that the next may follow."""
        return "deadline" not in under.reasons and (under.most_tokens is None or under.most_tokens > 0)

    def _translate(
        self, piece: Piece, ids: list[int], under: _Under
    ) -> Generator[Settled | Ask | Parted | None, Given | None, None]:
        """Translates one piece, until its search is done or the next step would end too late.

        Where an equal text has the piece under work, it goes along with that.
        """
        budget = under.budget
        while True:
            times = self._times.for_text(len(ids), self._slowdown.value)
            planned = self._plan(len(ids), under)
            if not budget.fits(times.encode_s):
                under.reasons.add("deadline")
                return
            rules = self._search_rules(under, planned)
            what = tuple(ids), rules
            run = self._runs.joined(under.likeness, what)
            if run is not None or not under.likeness.follows:
                break
            yield PARTED
        if run is None:
            run = self._runs.begun(under.likeness, what, self._begun(ids, rules, times, budget))
        under.pieces += 1
        under.restored += run.restored
        under.beams.append(planned.beams)
        settled = partial(self._settled, run, piece, under, len(under.parts))

        def left_s(going_on: bool) -> float:
            piece_s = max(planned.expected_tokens - run.search.steps, 1.0) * run.step_s * going_on
            return (piece_s + self._rest_s(under)) * (going_on or run.done)

        asked = yield from go_along(run, budget, budget.stop_at, left_s, settled)
        if asked and run.done:  # reading on is a step of its own
            yield settled
        self._written(run, piece, under)

    def _begun(self, ids: list[int], rules: SearchRules, times: DecodingTimes, budget: TextBudget) -> Run[BeamSearch]:
        """Reads a piece and writes its first token."""
        search, began = BeamSearch(rules), budget.clock()
        decoder = self._engine.encode(np.asarray(ids, dtype=np.int64))
        search.feed(decoder.step(*search.pending))
        took_s = budget.clock() - began
        run = Run(decoder, search, times.step_s(rules.beams), partial(self._alone_s, rules.beams, len(ids)))
        if not run.restored:  # else it says nothing of how fast others are read
            self._slowdown.learn(took_s, times.encode_s / self._slowdown.value)
        return run

    def _alone_s(self, beams: int, tokens: int, given: Given) -> float:
        """What a step has taken. Learns the slowdown from it."""
        self._slowdown.learn(given.took_s, self._times.steps.median_s(beams, tokens))
        return given.took_s

    def _written(self, run: Run[BeamSearch], piece: Piece, under: _Under) -> None:
        """Takes what was written of a piece: all of it, or its whole words if it was cut."""
        with run.is_still() as search:
            reason: FinishReason = "stop" if search.ended else "length" if search.done else "deadline"
            best = search.best()
        text = self._tokens.decode(best).strip()
        if reason != "stop":
            text = whole_words(text, under.direction)
        under.add(piece.before, text)
        under.tokens += len(best)
        under.reasons.add(reason)

    def _settled(self, run: Run[BeamSearch], piece: Piece, under: _Under, parts_before: int) -> str:
        """How the translation begins, whatever later steps find."""
        if len(under.parts) != parts_before:
            return under.text
        with run.is_still() as search:
            settled = search.settled()
        text = self._tokens.decode(settled).rstrip("\ufffd").strip()
        return under.text + under.with_space(piece.before, whole_words(text, under.direction))

    def _plan(self, tokens: int, under: _Under) -> DecodingPlan:
        """The beams for the next piece, of its share of the time that is left; it may write until all of that is over.

        The share is by tokens: those of the piece, of all that are still to be read.
        """
        wanted = wanted_of(under.parameters, self._rules, self._written_share * tokens)
        share = tokens / max(tokens, tokens + self._unread_tokens(under))
        times = self._times.for_text(tokens, self._slowdown.value)
        planned = plan(times, wanted, share * under.budget.remaining_s)
        most = wanted.max_new_tokens if under.most_tokens is None else min(under.most_tokens, wanted.max_new_tokens)
        return DecodingPlan(planned.beams, most, planned.expected_tokens, planned.expected_s)

    def _search_rules(self, under: _Under, planned: DecodingPlan) -> SearchRules:
        """The checkpoint's search rules, changed by the request, and begun with the target's token."""
        given, direction = under.parameters, under.direction
        asked = {
            "length_penalty": given.length_penalty,
            "no_repeat_ngram_size": given.no_repeat_ngram_size,
            "early_stopping": given.early_stopping,
            "forced_bos_token_id": direction.first,
        }
        rules = self._rules.model_copy(update={name: value for name, value in asked.items() if value is not None})
        return search_rules(
            rules, self._manifest.pad_token_id, beams=planned.beams, max_new_tokens=planned.max_new_tokens
        )

    def _pieces(self, text: str, direction: Direction) -> Iterator[Piece]:
        """The sentences of a text, those over the window in parts."""
        at = 0
        for span in each_sentence(text):
            before = text[at : span.start]
            for part in self._parts(text[span.start : span.end], direction):
                yield Piece(before, part)
                before = " "
            at = span.end

    def _parts(self, sentence: str, direction: Direction) -> Iterator[str]:
        """A sentence, in halves that end between words if it is over the window."""
        ids, own = encoded(self._tokens, sentence, direction)
        if len(ids) <= self._window or len(sentence) < 2 or own >= self._window:
            yield sentence
            return
        middle = sentence.rfind(" ", 1, len(sentence) // 2 + 1)
        middle = middle if middle > 0 else len(sentence) // 2
        for half in (sentence[:middle].strip(), sentence[middle:].strip()):
            if half:
                yield from self._parts(half, direction)

    def _learn_characters(self, text: str, tokens: int) -> None:
        self._per_character += _SMOOTHING * (tokens / max(len(text), 1) - self._per_character)

    def _unread_tokens(self, under: _Under) -> int:
        return math.ceil(max(under.characters - under.read_characters, 0) * self._per_character)

    def _rest_s(self, under: _Under) -> float:
        """The median seconds for what is not read yet, with the narrowest search."""
        tokens = self._unread_tokens(under)
        if not tokens:
            return 0.0
        pieces = max(1, round(tokens / SENTENCE_TOKENS)) if under.parameters.truncation == "chunk" else 1
        each = min(math.ceil(tokens / pieces), self._window)
        wanted = wanted_of(under.parameters, self._rules, self._written_share * each)
        return pieces * leanest(self._times.for_text(each, self._slowdown.value), wanted).expected_s

    def _result(self, under: _Under) -> WritingResult:
        reasons: tuple[FinishReason, ...] = ("deadline", "length", "stop")
        reason: FinishReason = next((one for one in reasons if one in under.reasons), "stop")
        most = under.parameters.max_new_tokens or self._rules.max_new_tokens * max(under.pieces, 1)
        generation = Generation(
            finish_reason=reason,
            steps=under.budget.steps - under.rounds,
            tokens=under.tokens,
            beams=round(fmean(under.beams)) if under.beams else 1,
            max_new_tokens=most,
            pieces=max(under.pieces, 1),
            headroom_s=under.budget.headroom_s,
            lead=reason == "deadline" and not under.parts,
            restored=under.restored,
            followed=under.likeness.joined,
        )
        total, whole = self._counted(under)
        return WritingResult(under.text, generation, InputReport(total, under.kept, not whole or under.kept < total))

    def _counted(self, under: _Under) -> tuple[int, bool]:
        """The tokens of the text, and True if no piece was left out.

        Of what was left out the head is counted; the rest is taken to have as many tokens a character as all before it.
        """
        tokens, seen, counted, whole = under.read, under.read_characters, 0, True
        for piece in under.unread:
            whole = False
            head = piece.text[: COUNTED_CHARACTERS - counted]
            if _has_letters(head):
                ids, own = encoded(self._tokens, head, under.direction)
                tokens += len(ids) - own
            characters = len(piece.before) + len(head)
            counted, seen = counted + max(characters, _LEAST_COUNTED), seen + characters
            if counted >= COUNTED_CHARACTERS:
                return math.ceil(tokens * max(under.characters / seen, 1.0)), whole
        return tokens, whole


def _has_letters(text: str) -> bool:
    """True if a text has something to translate."""
    return any(letter.isalpha() for letter in text)


def _refused() -> Steps:
    yield from ()
    return Failure(FailureKind.REFUSED, "does not translate from and into these languages")


def encoded(tokens: TextTokens, text: str, direction: Direction) -> tuple[list[int], int]:
    """The token ids of a text as they are read, and how many of them every text of this direction has."""
    own = len(tokens.encode(direction.prefix)) if direction.prefix else tokens.specials
    ids = [*direction.before, *tokens.encode(f"{direction.prefix}{text}"), *direction.behind]
    return ids, own + len(direction.before) + len(direction.behind)


def cut_to(tokens: TextTokens, ids: Sequence[int], direction: Direction, window: int) -> list[int]:
    """Cuts a text's token ids to the window; those that tell the direction stay."""
    before, behind = len(direction.before), len(direction.behind)
    text = ids[before : len(ids) - behind]
    return [*direction.before, *tokens.cut(text, window - before - behind), *direction.behind]


def whole_words(text: str, direction: Direction) -> str:
    """A text without its last word, which may be half a word; in writing without spaces, without its last letter."""
    if direction.is_unspaced:
        return text[:-1].rstrip()
    return text[: len(text) - len(text.split()[-1])].rstrip() if text else ""
