"""Abstractive summaries: an encoder-decoder writes them token by token, with the beams and length the budget allows.

A text longer than the window is cut into pieces. Each piece is summarised, then the joined summaries are, all within
one budget.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path

import numpy as np

from deployments.engines.base import Seq2SeqEngine, SharesSteps
from deployments.engines.opening import SEQ2SEQ_FILES, open_seq2seq_engine
from deployments.engines.past_memory import PastNeed
from deployments.replica.golden import check_written
from deployments.replica.kinds import ReplicaKind
from deployments.replica.sentences import whole_sentences
from deployments.replica.summarize.casing import GrowingSummary, restored
from deployments.replica.summarize.chunking import Piece, Windowing
from deployments.replica.summarize.replica import SummarizerReplica
from deployments.replica.tokens import TOKENIZER_FILE, TextTokens
from deployments.replica.writing.beam_search import BeamSearch, SearchRules, search_rules, source_ids, write_golden
from deployments.replica.writing.job import (
    SHORT_CHARACTERS,
    Ask,
    Settled,
    Steps,
    TextBudget,
    WritingJob,
    WritingResult,
    as_it_is,
    finished_text,
    go_along,
    settled_text,
    too_short,
    usable,
)
from deployments.replica.writing.past_budget import PastBudget, past_budget
from deployments.replica.writing.shared_runs import PARTED, Given, Likeness, Parted, Run, SharedRuns
from deployments.replica.writing.time_slicing import Together
from gateway.catalogs.catalog import CatalogEntry
from gateway.model.deadline import Clock
from gateway.model.manifest import Seq2SeqManifest
from gateway.model.messages import Failure, FailureKind, FinishReason, Generation, InputReport
from gateway.tasks.decoding import (
    HEADROOM,
    MOST_TOGETHER,
    DecodingPlan,
    DecodingTimes,
    Wanted,
    WritingTimes,
    leanest,
    plan,
)
from gateway.tasks.service_time import SLOWDOWN_WEIGHT, Slowdown
from gateway.tasks.summarize import SummarizeParameters, wanted_of

COUNTING_SHARE = 0.25
"""The share of a text's remaining time for counting the tokens of its sentences. Uncounted sentences stay unread."""

CASED_CHARACTERS = 20_000
"""Characters of the source that are searched for the casing of its words."""

AMPLE = 4.0
"""Times the median of a text's work that are ample time for the rest of it. Set by hand."""

_FIRST_CASING_S = 2e-6  # seconds for each character of the source, until measured


@dataclass(frozen=True, slots=True)
class _Order:
    """One text to summarise: how, the instant by which the last step must end, and what restores its casing if any.

    Texts of one `likeness` may share runs.
    """

    text: str
    parameters: SummarizeParameters
    wanted: Wanted
    budget: TextBudget
    stop_at: float
    casing: GrowingSummary | None
    likeness: Likeness

    @property
    def remaining_s(self) -> float:
        return self.stop_at - self.budget.clock()


@dataclass(frozen=True, slots=True)
class _Written:
    """The summary of one piece: its text, why it ended, the plan it followed, and its number of tokens.

    `restored` tokens of the piece were not read anew.
    """

    text: str
    reason: FinishReason
    plan: DecodingPlan
    tokens: int
    restored: int = 0

    @property
    def out_of_time(self) -> bool:
        return self.reason == "deadline" and not self.text


class _Growing:
    """A summary that is read while it is written.

    If time ran out before it is usable, something else would stand in for it: the summaries of the pieces if it
    `has_other`, else the text's first sentence. So it is told from its first word on if there is ample time, else from
    where it is usable. What was told stays, even if the time was not ample after all.
    """

    def __init__(self, order: _Order, *, has_other: bool = False) -> None:
        self._budget = order.budget
        self._casing = order.casing
        self._has_other = has_other
        self._ample_s = AMPLE * order.budget.left_s
        self._is_told = False

    def settled(self, text: str) -> str:
        """What is told of a beginning that is settled, in the casing of the source."""
        if self._casing is not None:
            text = self._casing.settled(text)
        if not self._is_told:
            is_ample = not self._has_other and self._budget.remaining_s > self._ample_s
            self._is_told = bool(text) and (is_ample or usable(text, "deadline"))
        return text if self._is_told else ""


@dataclass(frozen=True)
class OpenSeq2Seq:
    """An encoder-decoder that has passed its checks, ready to serve."""

    manifest: Seq2SeqManifest
    engine: Seq2SeqEngine
    tokens: TextTokens


class AbstractiveSummarizer:
    """Writes summaries with one encoder-decoder. Several jobs may be under way at once."""

    def __init__(self, manifest: Seq2SeqManifest, engine: Seq2SeqEngine, tokens: TextTokens) -> None:
        self._rules = manifest.generation
        self._pad_id = manifest.pad_token_id
        self._expected = manifest.output_tokens
        self._times = WritingTimes.of(manifest, manifest.company_profile)
        self._shares_steps = manifest.shares_steps
        self._engine = engine
        self._tokens = tokens
        self._windowing = Windowing(tokens, self._rules.prefix, manifest.max_tokens)
        self._slowdown = Slowdown(SLOWDOWN_WEIGHT)
        self._casing_s = _FIRST_CASING_S
        self._runs: SharedRuns[BeamSearch] = SharedRuns()

    def together(self) -> Together | None:
        """How texts step together: what a step of several takes is that of sources of half the window."""
        engine, times, tokens = self._engine, self._times, self._windowing.window // 2
        if not self._shares_steps or not isinstance(engine, SharesSteps):
            return None
        return Together(
            engine.step_together, lambda texts, rows: times.shared_step_s(texts, rows, tokens), MOST_TOGETHER
        )

    def memory(self, entry: CatalogEntry) -> PastBudget | None:
        """What keys and values of all texts may take."""
        return past_budget(entry, self._engine, self._need(wanted_of(SummarizeParameters(), self._rules, 1.0)))

    def _need(self, wanted: Wanted) -> PastNeed:
        """The most of a text that is wanted so: each of its readings is of a window at most."""
        return PastNeed(wanted.beams, wanted.max_new_tokens + 1, self._windowing.window)

    def begin(self, text: str, parameters: SummarizeParameters, budget: TextBudget) -> WritingJob:
        """Makes the job of one text; runs nothing yet."""
        wanted = wanted_of(parameters, self._rules, self._expected)
        casing_s = self._casing_s * min(len(text), CASED_CHARACTERS) if self._rules.lower_cased else 0.0
        casing = GrowingSummary(text[:CASED_CHARACTERS]) if self._rules.lower_cased else None
        order = _Order(text, parameters, wanted, budget, budget.stop_at - casing_s, casing, Likeness())
        tokens = self._windowing.expected(len(text))
        pieces = math.ceil(tokens / self._windowing.window) if parameters.truncation == "chunk" else 1
        times = self._times.for_text(min(tokens, self._windowing.window), self._slowdown.value)
        planned = plan(times, wanted, order.remaining_s)
        budget.left_s = self._rest_s(pieces, wanted) if pieces > 1 else self._expected_s(times, order, planned)
        if parameters.truncation != "chunk" or 2 * tokens <= self._windowing.window:  # surely one piece, so one run
            order.likeness.key = text, parameters, planned.beams, planned.max_new_tokens
        return WritingJob(budget, self._steps(order), self._need(wanted), order.likeness)

    def _steps(self, order: _Order) -> Steps:
        windowing, truncation = self._windowing, order.parameters.truncation
        if too_short(order.text):
            return as_it_is(order.text, len(windowing.encode(order.text[:SHORT_CHARACTERS])), order.budget)
        if order.remaining_s <= 0:
            nothing = _Written("", "deadline", plan(self._times.for_text(1), order.wanted, 0.0), 0)
            return self._result(nothing, order, 1, InputReport(windowing.expected(len(order.text)), 0, True))
        head = windowing.head(order.text, to_the_end=truncation == "error")
        if head.total > windowing.window and truncation == "error":
            return Failure(FailureKind.TOO_LONG, "over the checkpoint's window", head.total, windowing.window)
        if head.total > windowing.window and truncation == "chunk":
            return (yield from self._piecewise(order))
        return (yield from self._whole(head.token_ids, head.total, order))

    def _whole(self, token_ids: list[int], total: int, order: _Order) -> Steps:
        fitting, growing = self._windowing.cut(token_ids), _Growing(order)
        written = yield from self._write(fitting, order, order.stop_at, growing=growing)
        kept = len(fitting) if order.budget.steps else 0
        return self._result(written, order, 1, InputReport(total, kept, kept < total))

    def _piecewise(self, order: _Order) -> Steps:
        """Summarises every piece and joins the results, until the joined text fits the window; then summarises that.

        When time runs out, the summaries of the pieces so far are the summary.
        """
        windowing, clock = self._windowing, order.budget.clock
        joined, taken, read = order.text, 0, InputReport(0, 0, False)
        parts: list[_Written] = []
        while True:
            cut = windowing.pieces(joined, clock, clock() + COUNTING_SHARE * order.remaining_s)
            if len(cut.pieces) <= 1:
                break
            parts = []
            kept = yield from self._round(cut.pieces, order, parts)
            if not taken:
                taken, read = len(cut.pieces), InputReport(cut.total, min(kept, cut.total), kept < cut.total)
            before, joined = joined, " ".join(part.text for part in parts if part.text)
            if parts[-1].out_of_time:
                return self._result(_joined(parts, order, "deadline"), order, taken, read)
            if not joined or len(joined) >= len(before):  # otherwise it would never end
                return self._result(_joined(parts, order, _worst_reason(parts)), order, taken, read)
        token_ids = windowing.encode(joined)
        if not taken:  # a single sentence cannot be cut into pieces
            return (yield from self._whole(token_ids, len(token_ids), order))
        growing = _Growing(order, has_other=True)
        last = yield from self._write(windowing.cut(token_ids), order, order.stop_at, growing=growing)
        if not usable(last.text, last.reason):
            last = _joined(parts, order, "deadline" if last.reason == "deadline" else _worst_reason(parts))
        return self._result(last, order, taken, read)

    def _round(
        self, pieces: Sequence[Piece], order: _Order, parts: list[_Written]
    ) -> Generator[Settled | Ask | Parted | None, Given | None, int]:
        """Summarises the pieces in order into `parts` while time lasts; returns how many tokens were read.

        Each piece gets an equal share of the remaining time, with one share kept for the last round. A piece always
        gets enough for the narrowest full summary: some good pieces are better than a few words of each.
        """
        kept = 0
        for at, piece in enumerate(pieces):
            token_ids = self._windowing.encode(piece.text)
            fitting = self._windowing.cut(token_ids)
            times = self._times.for_text(len(fitting), self._slowdown.value)
            needed_s = HEADROOM * leanest(times, order.wanted).expected_s
            share_s = order.remaining_s / (len(pieces) - at + 1)
            until = min(order.budget.clock() + max(share_s, needed_s), order.stop_at)
            rest_s = self._rest_s(len(pieces) - at - 1, order.wanted)
            parts.append((yield from self._write(fitting, order, until, rest_s)))
            if parts[-1].out_of_time:
                break
            kept += max(0, piece.tokens - (len(token_ids) - len(fitting))) + (0 if at else self._windowing.own)
        return kept

    def _write(
        self, token_ids: list[int], order: _Order, until: float, rest_s: float = 0.0, *, growing: _Growing | None = None
    ) -> Generator[Settled | Ask | Parted | None, Given | None, _Written]:
        """Writes until the search is done or the next step would end after `until`. `rest_s` is the work after it.

        The text is read and the first token written at once, unless an equal text is under way, with which it goes
        along. Further steps are asked for, so that they may be taken together with those of other texts. What is
        written last is the summary, which may be read while it is `growing`.
        """
        budget, wanted = order.budget, order.wanted
        while True:
            times = self._times.for_text(len(token_ids), self._slowdown.value)
            planned = plan(times, wanted, until - budget.clock())
            if budget.clock() + times.encode_s > until:
                return _Written("", "deadline", planned, 0)
            rules = self._search_rules(order.parameters, planned)
            what = tuple(token_ids), rules
            run = self._runs.joined(order.likeness, what)
            if run is not None or not order.likeness.follows:
                break
            yield PARTED
        if run is None:
            run = self._runs.begun(order.likeness, what, self._begun(token_ids, rules, times, budget))
        settled = partial(self._settled, run, growing) if growing is not None else None

        def left_s(going_on: bool) -> float:
            return rest_s + max(wanted.expected_tokens - run.search.steps, 1.0) * run.step_s * going_on

        asked = yield from go_along(run, budget, until, left_s, settled)
        if asked and rest_s:  # reading on is a step of its own
            yield settled
        return self._ended(run, planned, order)

    def _begun(
        self, token_ids: list[int], rules: SearchRules, times: DecodingTimes, budget: TextBudget
    ) -> Run[BeamSearch]:
        """Reads a text and writes its first token."""
        search, began = BeamSearch(rules), budget.clock()
        decoder = self._engine.encode(np.asarray(token_ids, dtype=np.int64))
        search.feed(decoder.step(*search.pending))
        took_s = budget.clock() - began
        alone_s = partial(self._alone_s, rules.beams, len(token_ids))
        run = Run(decoder, search, times.step_s(rules.beams), alone_s)
        if not run.restored:  # else it says nothing of how fast others are read
            self._slowdown.learn(took_s, times.encode_s / self._slowdown.value)
        return run

    def _alone_s(self, beams: int, tokens: int, given: Given) -> float:
        """What a step that was taken, perhaps with others, would have taken alone. Learns the slowdown from it."""
        profiled_s = self._times.shared_step_s(given.runs, given.rows, tokens)
        self._slowdown.learn(given.took_s, profiled_s)
        return given.took_s * self._times.shared_step_s(1, beams, tokens) / profiled_s

    def _ended(self, run: Run[BeamSearch], planned: DecodingPlan, order: _Order) -> _Written:
        """What a search has written, and why it ended."""
        with run.is_still() as search:
            ended, done, best = search.ended, search.done, search.best()
        reason: FinishReason = "deadline"
        if ended:  # a complete summary, even if a longer search could find a better one
            reason = "stop"
        elif done and planned.max_new_tokens == order.wanted.max_new_tokens:
            reason = "length"
        return _Written(finished_text(self._tokens.decode(best), reason), reason, planned, len(best), run.restored)

    def _settled(self, run: Run[BeamSearch], growing: _Growing) -> str:
        """How the summary of a search begins, whatever its later steps find."""
        with run.is_still() as search:
            settled = search.settled()
        return growing.settled(settled_text(self._tokens.decode(settled)))

    def _result(self, written: _Written, order: _Order, pieces: int, read: InputReport) -> WritingResult:
        planned, budget = written.plan, order.budget
        generation = Generation(
            finish_reason=written.reason,
            steps=budget.steps,
            tokens=written.tokens,
            beams=planned.beams,
            max_new_tokens=planned.max_new_tokens,
            pieces=pieces,
            headroom_s=budget.headroom_s,
            restored=written.restored if pieces == 1 else 0,
            followed=order.likeness.joined,
        )
        return WritingResult(self._cased(written.text, order), generation, read)

    def _cased(self, written: str, order: _Order) -> str:
        if not (self._rules.lower_cased and written):
            return written
        began, source = order.budget.clock(), order.text[:CASED_CHARACTERS]
        text = restored(written, source)
        self._casing_s += SLOWDOWN_WEIGHT * ((order.budget.clock() - began) / max(len(source), 1) - self._casing_s)
        return text

    def _expected_s(self, times: DecodingTimes, order: _Order, planned: DecodingPlan) -> float:
        """The median seconds to read one text and write its summary, with the beams that the budget allows."""
        return times.encode_s + order.wanted.expected_tokens * times.step_s(planned.beams)

    def _rest_s(self, pieces: int, wanted: Wanted) -> float:
        """The median seconds for this many pieces and the last round, with the narrowest search."""
        return (pieces + 1) * leanest(
            self._times.for_text(self._windowing.window, self._slowdown.value), wanted
        ).expected_s

    def _search_rules(self, parameters: SummarizeParameters, planned: DecodingPlan) -> SearchRules:
        """The checkpoint's search rules, changed by the request and limited by the plan."""
        rules, given = self._rules, parameters
        asked = {
            "length_penalty": given.length_penalty,
            "no_repeat_ngram_size": given.no_repeat_ngram_size,
            "early_stopping": given.early_stopping,
        }
        rules = rules.model_copy(update={name: value for name, value in asked.items() if value is not None})
        least = rules.min_new_tokens if given.min_new_tokens is None else given.min_new_tokens
        return search_rules(
            rules,
            self._pad_id,
            beams=planned.beams,
            max_new_tokens=planned.max_new_tokens,
            min_new_tokens=min(least, planned.max_new_tokens),
        )


def _joined(parts: Sequence[_Written], order: _Order, reason: FinishReason) -> _Written:
    """Joins the summaries of pieces, up to the request's length. Cut-off sentences count only if all are cut off."""
    said = [part for part in parts if part.text]
    whole = [part for part in said if part.reason == "stop" or whole_sentences(part.text) == part.text] or said
    most = order.parameters.max_new_tokens or math.inf
    sums = accumulate(part.tokens for part in whole)
    kept = [part for part, tokens in zip(whole, sums, strict=True) if tokens <= most]
    return _Written(" ".join(part.text for part in kept), reason, parts[0].plan, sum(part.tokens for part in kept))


def _worst_reason(parts: Sequence[_Written]) -> FinishReason:
    reasons: tuple[FinishReason, ...] = ("deadline", "length", "stop")
    return next(reason for reason in reasons if any(part.reason == reason for part in parts))


def _open(folder: Path, manifest: Seq2SeqManifest, threads: int, at_once: int) -> OpenSeq2Seq:
    tokens = TextTokens.open(folder / TOKENIZER_FILE)
    engine = open_seq2seq_engine(manifest.engine, folder, threads)
    check_writing(manifest, engine, tokens)
    return OpenSeq2Seq(manifest, engine, tokens)


def check_writing(manifest: Seq2SeqManifest, engine: Seq2SeqEngine, tokens: TextTokens) -> None:
    """Checks that golden texts are read and written as they were. Raises VariantRejected."""
    rules, window, pad_id = manifest.generation, manifest.max_tokens, manifest.pad_token_id
    check_written(
        manifest.checkpoint,
        manifest.self_test,
        lambda text: source_ids(tokens, text, rules.prefix, window),
        lambda ids: write_golden(engine, ids, rules, pad_id),
    )


def _serve(entry: CatalogEntry, variant: OpenSeq2Seq, max_queued_inputs: int, clock: Clock) -> SummarizerReplica:
    summarizer = AbstractiveSummarizer(variant.manifest, variant.engine, variant.tokens)
    together, memory = summarizer.together(), summarizer.memory(entry)
    return SummarizerReplica(entry, summarizer, max_queued_inputs, clock, together, memory)


KIND = ReplicaKind(lambda manifest: (TOKENIZER_FILE, *SEQ2SEQ_FILES), _open, _serve)
