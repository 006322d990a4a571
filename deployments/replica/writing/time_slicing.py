"""Time slicing: texts under work share the engine step by step, and every text ends exactly once.

`next_text` is the pure rule that picks the next text; the simulator calls it too. `TimeSlicer` applies it on threads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias, TypeVar

from deployments.engines.base import Decoder, Logits, Pending, guarded, yield_to_others
from deployments.replica.totals import TimeSlicerTotals
from deployments.replica.writing.job import WritingJob, WritingResult, usable
from deployments.replica.writing.past_budget import PastBudget
from deployments.replica.writing.shared_runs import Given, Run
from deployments.replica.writing.step_log import NO_LOG, Step, StepLog
from gateway.model.deadline import Clock
from gateway.model.messages import Failure, FailureKind, LoadReport
from gateway.scheduling.late_share import LateShare

SLICE_S = 0.02
"""Seconds that a text keeps the engine while others wait. A longer step still runs to its end."""


@dataclass(slots=True, eq=False, kw_only=True)
class Sharing:
    """A text as the rule sees it: its order of arrival, its deadline, engine time used, and engine time still needed.

    `left_s` is a median in seconds. `rows` are those of its next step.
    """

    sequence: int
    deadline: float
    attained_s: float = 0.0
    left_s: float = 0.0
    rows: int = 1

    def slack_s(self, now: float) -> float:
        """Seconds that the text can wait and still end in time, by the median; negative if it cannot end in time."""
        return self.deadline - now - self.left_s

    def late(self, now: float) -> bool:
        """True if the text will miss its deadline even alone on the engine from now on."""
        return self.slack_s(now) < 0


Text = TypeVar("Text", bound=Sharing)


def next_text(waiting: Collection[Text], now: float, *, late_turn: bool = False) -> Text:
    """Picks the text that gets the engine next.

    1. A text that would miss its deadline by waiting for one round of the others; the least slack first.
    2. Else the text that has used the least engine time. A short text that arrives during a long one then ends in about
       twice its own time (least attained service: Nuyens and Wierman, "The Foreground-Background queue: a survey",
       Performance Evaluation 2008). Ties go to the earlier text.

    Late texts yield to all others, except when `late_turn` is set (`LateShare` says when): then the oldest late text
    is next.
    """
    timely = [text for text in waiting if not text.late(now)]
    if not timely or (late_turn and len(timely) < len(waiting)):
        late = [text for text in waiting if text.late(now)]
        return min(late, key=_sequence if timely else _attained)
    round_s = SLICE_S * len(timely)
    urgent = [text for text in timely if text.slack_s(now) < round_s]
    if urgent:
        return min(urgent, key=lambda text: (text.slack_s(now), text.sequence))
    return min(timely, key=_attained)


def contested(waiting: Collection[Sharing], now: float) -> bool:
    """True if late texts and texts that can be in time both wait."""
    return len({text.late(now) for text in waiting}) > 1


StepTime: TypeAlias = Callable[[int, int], float]
"""What a step of so many texts, of so many rows together, takes in seconds."""


def company(chosen: Text, others: Collection[Text], now: float, step_s: StepTime, most: int) -> list[Text]:
    """Picks the texts that take the next step with the chosen one, at most `most` with it.

    A step of several texts takes longer than one of one. So a text joins only where every text that would be in time
    alone still is, the least slack first.
    """
    members = [chosen]
    for other in sorted(others, key=lambda text: (text.late(now), text.slack_s(now), text.sequence)):
        if len(members) == most:
            break
        joined = [*members, other]
        paces = paces_of([one.rows for one in joined], step_s)
        if all(
            one.late(now) or one.deadline - now >= pace * one.left_s for one, pace in zip(joined, paces, strict=True)
        ):
            members.append(other)
    return members


def paces_of(rows: Sequence[int], step_s: StepTime) -> list[float]:
    """How many times as long as alone a step of texts of so many rows each takes, for each of them."""
    if len(rows) == 1:
        return [1.0]
    together_s = step_s(len(rows), sum(rows))
    return [together_s / step_s(1, one) for one in rows]


def _one_a_run(texts: Sequence[_Text], now: float) -> list[_Text]:
    """Of texts that share a run the one with the least time to wait, of those that may be in time if there are such."""
    found: dict[Hashable, _Text] = {}
    for text in sorted(texts, key=lambda one: (one.late(now), one.slack_s(now), one.sequence)):
        found.setdefault(text.sequence if text.likeness is None else text.likeness, text)
    return list(found.values())


def _attained(text: Sharing) -> tuple[float, int]:
    return text.attained_s, text.sequence


def _sequence(text: Sharing) -> int:
    return text.sequence


MOST_BEGUN = 8
"""Texts that may be under way at once, since each holds its own keys and values in memory. Others wait to begin."""

_TICK_S = 0.001  # seconds after a deadline before its alarm


@dataclass(frozen=True, slots=True)
class Together:
    """How texts step together: at most `most` of them, by `step`, which takes `step_s`."""

    step: Callable[[Sequence[Decoder], Sequence[Pending]], Sequence[Logits]]
    step_s: StepTime
    most: int


@dataclass(frozen=True, slots=True)
class FinishedJob:
    """How a text ended, and its seconds of waiting and of steps.

    `texts` is the number of texts that stepped together with it, itself included, by the mean of its steps. Equal texts
    that share a run count as one.
    """

    summary: WritingResult
    queueing_delay_s: float
    service_time_s: float
    texts: int = 1


@dataclass(slots=True, eq=False, kw_only=True)
class _Text(Sharing):
    """A text under work. An engine thread owns it during its time slice, the loop at all other times.

    Its steps must end by `deadline`, which is the budget's `stop_at`. The client's deadline is `budget.deadline`.
    `begun` ones have memory reserved, and `followed` ones went along with another. `spent_s` is the engine time that
    it accounts for, of which those that share a run have a part each.
    """

    name: str
    job: WritingJob
    entered: float
    result: asyncio.Future[FinishedJob | Failure]
    tell: Callable[[str], None] | None = None
    told: str = ""
    alarm: asyncio.TimerHandle | None = None
    withdrawn: bool = False
    begun: bool = False
    lacks_memory: bool = False
    followed: bool = False
    failure: Failure | None = None
    done: bool = False
    spent_s: float = 0.0
    stepped_s: float = 0.0
    stepped_texts: int = 0
    ran_late: bool = False
    ran_contested: bool = False
    steps: list[Step] = field(default_factory=list)

    @property
    def likeness(self) -> Hashable | None:
        """What equal texts have in common; None for a text like no other."""
        return self.job.likeness.key

    @property
    def is_over(self) -> bool:
        """True if no further step is to follow."""
        return self.done or self.withdrawn

    def is_twin(self, other: _Text) -> bool:
        """True for itself, and for texts that may share its run."""
        return other is self or (self.likeness is not None and self.likeness == other.likeness)

    def resolve(self, result: FinishedJob | Failure) -> None:
        """Gives the caller its result, unless the caller has left."""
        if not self.result.done():
            self.result.set_result(result)


class TimeSlicer:
    """Runs texts on `slots` threads, one time slice after the other.

    Call its methods on the event loop that `start` ran on. Deadlines are instants on the clock.
    """

    def __init__(
        self,
        slots: int,
        clock: Clock,
        max_queued: int,
        log: StepLog = NO_LOG,
        *,
        niceness: int = 0,
        slice_s: float = SLICE_S,
        together: Together | None = None,
        memory: PastBudget | None = None,
        shares_runs: bool = True,
    ) -> None:
        """Starts nothing; `start` does. `niceness` applies to the engine's threads only.

        A slice ends after `slice_s` seconds if others wait; if that is infinite, when its text ends. Texts that ask for
        their steps take them `together` where that is given. Their keys and values stay within `memory`, if given.
        Equal texts share runs unless `shares_runs` is false.
        """
        self.totals = TimeSlicerTotals() if memory is None else TimeSlicerTotals(past=memory.figures)
        self._slots = slots
        self._clock = clock
        self._max_queued = max_queued
        self._log = log
        self._niceness = niceness
        self._slice_s = slice_s
        self._together = together
        self._memory = memory
        self._shares_runs = shares_runs
        self._busy = 0
        self._waiting: set[_Text] = set()
        self._running: set[_Text] = set()
        self._ending: set[_Text] = set()
        self._late_share = LateShare(earned_s=SLICE_S)
        self._begun = 0
        self._sequence = 0
        self._open = False
        self._idle = asyncio.Event()

    def start(self) -> None:
        """Opens the queue on the running loop. Call it once."""
        self._loop = asyncio.get_running_loop()
        self._threads = ThreadPoolExecutor(
            self._slots, "engine", initializer=yield_to_others, initargs=(self._niceness,)
        )
        self._ending_thread = ThreadPoolExecutor(1, thread_name_prefix="ending")
        self._open = True

    async def stop(self, grace_s: float) -> None:
        """Admits no more texts and finishes what it can within `grace_s` seconds; the rest fails as UNAVAILABLE."""
        if not self._open:
            return
        self._open = False
        try:
            if self._under_work():
                self._idle.clear()
                async with asyncio.timeout(grace_s):
                    await self._idle.wait()
        except TimeoutError:
            pass
        finally:
            waiting = tuple(self._waiting)
            self._waiting.clear()
            for text in (*waiting, *self._running, *self._ending):
                text.withdrawn = True
                text.resolve(Failure(FailureKind.UNAVAILABLE, "stopped"))
            for text in waiting:  # texts on a thread end when they come back
                self._end(text)
            self._threads.shutdown(wait=False)
            self._ending_thread.shutdown(wait=False)

    async def submit(
        self, name: str, job: WritingJob, tell: Callable[[str], None] | None = None
    ) -> FinishedJob | Failure:
        """Runs one job to its end. Failures are values: QUEUE_FULL, TOO_LONG, ENGINE, UNAVAILABLE.

        Cancelling it withdraws the text after the current step. `name` is the text's name in the step log. `tell` is
        called on the loop, after each step that settles more of the summary, with all that is settled.
        """
        if not self._open:
            return Failure(FailureKind.UNAVAILABLE, "not started, or stopping")
        if len(self._waiting) >= self._max_queued:
            return Failure(FailureKind.QUEUE_FULL)
        if self._memory is not None and job.need is not None and (refused := self._memory.refusal(job.need)):
            self.totals.refused_for_memory += 1
            return refused
        if not self._shares_runs:
            job.likeness.parted()
        self._sequence += 1
        text = _Text(
            sequence=self._sequence,
            deadline=job.budget.stop_at,
            left_s=job.budget.left_s,
            name=name,
            job=job,
            attained_s=self._attained_by_twins(job),
            entered=self._clock(),
            result=self._loop.create_future(),
            tell=tell,
        )
        self._waiting.add(text)
        self._share_engine()
        self._arm(text)
        try:
            return await text.result
        except asyncio.CancelledError:
            self.totals.cancelled += 1
            text.withdrawn = True
            if text in self._waiting:
                self._waiting.discard(text)
                self._end(text)
                self._share_engine()
            raise

    def _attained_by_twins(self, job: WritingJob) -> float:
        """The engine time that equal texts have had: who joins their run has no claim that they have not."""
        key = job.likeness.key
        under_work = (*self._waiting, *self._running) if key is not None else ()
        return max((text.attained_s for text in under_work if text.likeness == key), default=0.0)

    def load(self) -> LoadReport:
        """Reports the work still to do, by medians and not beyond deadlines, and how many texts share the engine.

        Equal texts that share a run count as one.
        """
        now = self._clock()
        sharing = _one_a_run([text for text in (*self._waiting, *self._running) if not text.withdrawn], now)
        backlog_s = sum(max(0.0, min(text.job.budget.left_s, text.deadline - now)) for text in sharing)
        if self._together is not None and sharing:
            rows, step_s = [text.rows for text in sharing[: self._together.most]], self._together.step_s
            backlog_s *= step_s(len(rows), sum(rows)) / sum(step_s(1, one) for one in rows)
        return LoadReport(backlog_s / self._slots, len(self._waiting), draining=not self._open, sharing=len(sharing))

    def _under_work(self) -> bool:
        return bool(self._waiting or self._running or self._ending)

    def _arm(self, text: _Text) -> None:
        """Sets the alarm that ends the text when its time is up, even if other texts have the engine."""
        left_s = text.deadline - self._clock()
        text.alarm = self._loop.call_later(max(left_s, 0.0) + _TICK_S, self._time_up, text)

    def _time_up(self, text: _Text) -> None:
        if self._clock() <= text.deadline:  # the loop's clock is coarser, and may be a different one
            self._arm(text)
        elif text in self._waiting:
            self._share_engine()

    def _share_engine(self) -> None:
        """Ends every waiting text whose time is up, and gives each idle thread the next text."""
        now = self._clock()
        for text in [text for text in self._waiting if text.deadline < now]:
            self._waiting.discard(text)
            self._ending.add(text)
            self._pass_on(text)
            self._ending_thread.submit(self._run_slice, text)
        while self._busy < self._slots:
            ready = self._ready()
            if not ready:
                break
            text = next_text(ready, now, late_turn=self._late_share.turn)
            texts = self._along_with(text, ready, now)
            texts[0].ran_late, texts[0].ran_contested = text.late(now), contested(ready, now)
            self._waiting.difference_update(texts)
            self._running.update(texts)
            self._busy += 1
            if len(texts) == 1:
                self._threads.submit(self._run_slice, text)
            else:
                self._threads.submit(self._run_company, texts)
        if not self._under_work():
            self._idle.set()

    def _along_with(self, chosen: _Text, ready: Sequence[_Text], now: float) -> list[_Text]:
        """The chosen text and those that have the engine with it: company for its steps, and all equal ones of these.

        Of equal texts one has memory reserved, and the others follow it: it comes before them.
        """
        members = [chosen]
        if self._together is not None and chosen.job.ask is not None:
            asking = _one_a_run([one for one in ready if one.job.ask is not None], now)
            first = next(one for one in asking if one.is_twin(chosen))
            others = [one for one in asking if one is not first]
            members = company(first, others, now, self._together.step_s, self._together.most)
        texts = [chosen, *(one for one in ready if one is not chosen and any(map(one.is_twin, members)))]
        if not any(one.begun for one in texts if one.is_twin(chosen)):
            self._begin(chosen)
        for one in texts:
            one.job.likeness.follows = not one.begun
        return sorted(texts, key=lambda one: not one.begun)

    def _ready(self) -> list[_Text]:
        """The texts that may have the engine: those under way, and while these are few, others that memory is left for.

        A text that is equal to one under way follows it, and needs no memory. A text that has to wait for memory holds
        up those that came after it, so that none starves. It has its turn when enough others have ended, or it ends at
        its deadline.
        """
        on_threads = {text.likeness for text in self._running} - {None}
        waiting = [text for text in self._waiting if text.likeness not in on_threads]
        led = {text.likeness for text in waiting if text.begun} - {None}
        ready = [text for text in waiting if text.begun or text.likeness in led]
        if self._begun >= MOST_BEGUN:
            return ready
        new = [text for text in waiting if not text.begun and text.likeness not in led]
        if self._memory is None:
            return ready + new
        for text in sorted(new, key=_sequence):
            if text.job.need is not None and not self._memory.fits(text.job.need):
                self.totals.waits_for_memory += not text.lacks_memory
                text.lacks_memory = True
                break
            ready.append(text)
        return ready

    def _begin(self, text: _Text) -> None:
        """Counts a text as under way, and reserves its memory."""
        text.begun = True
        self._begun += 1
        if self._memory is not None and text.job.need is not None:
            self._memory.reserve(text.job.need)

    def _pass_on(self, text: _Text) -> bool:
        """Has one that follows a text take over its memory; True if others go on with its run, so or before."""
        others = [one for one in (*self._waiting, *self._running) if one is not text and one.is_twin(text)]
        going_on = [one for one in others if not one.is_over and (one.begun or one.job.likeness.follows)]
        heir = next((one for one in going_on if not one.begun), None)
        if text.begun and heir is not None:
            text.begun, heir.begun, heir.job.likeness.follows = False, True, False
        return bool(going_on)

    def _run_slice(self, text: _Text) -> None:
        """On a thread: steps until the text is done or withdrawn, or its slice is over and others wait.

        A text with nothing left to run, or with its time up, keeps the thread: its next step only ends it.
        """
        budget = text.job.budget
        began = ended = self._clock()
        try:
            while not (text.is_over or text.job.parted):
                if self._waiting and ended - began >= self._slice_s and ended <= text.deadline and budget.left_s > 0:
                    break
                step_began = ended
                done = guarded(text.job.step)
                ended = self._clock()
                self._stepped(text, done, step_began, ended, 1, 1)
        finally:
            self._loop.call_soon_threadsafe(self._back, (text,), ended - began)

    def _run_company(self, texts: Sequence[_Text]) -> None:
        """On a thread: runs step together until a text of theirs ends, or their slice is over and others wait.

        Texts without a run take a step of their own first, which may join one. A text whose step would come too late
        ends before it.
        """
        began = ended = self._clock()
        try:
            ended = self._each_alone([text for text in texts if text.job.ask is None], ended)
            while not any(text.is_over or text.job.ask is None for text in texts):
                if self._waiting and ended - began >= self._slice_s:
                    break
                ended, must_part = self._company_step(texts, ended)
                if must_part:
                    break
        finally:
            self._loop.call_soon_threadsafe(self._back, texts, ended - began)

    def _company_step(self, texts: Sequence[_Text], began: float) -> tuple[float, bool]:
        """On a thread: has the runs of texts take one step; gives when it ended, and True if the texts must part now.

        Nothing of a text is kept here beyond the step, so that one that ends frees its memory.
        """
        run_of = {text: text.job.ask.run for text in texts if text.job.ask is not None}
        runs = list(dict.fromkeys(run_of.values()))
        if any(run.done for run in runs):
            return self._each_alone([text for text, run in run_of.items() if run.done], began), True
        paces = paces_of([run.rows for run in runs], self._together.step_s) if self._together else [1.0] * len(runs)
        pace_of = dict(zip(runs, paces, strict=True))
        late = [text for text, run in run_of.items() if not text.job.in_time(pace_of[run])]
        if late:
            return self._each_alone(late, began), True
        taken = self._run_step(runs)
        ended = self._clock()
        if isinstance(taken, Failure):  # it may be one's fault
            return self._each_alone(texts, ended), False
        for text, run in run_of.items():
            given = taken[run]
            done = given if isinstance(given, Failure) else guarded(partial(text.job.take, given))
            self._stepped(text, done, began, ended, len(runs), len(texts))
        return ended, False

    def _run_step(self, runs: Sequence[Run[Any]]) -> dict[Run[Any], Given | Failure] | Failure:
        """On a thread: has runs take one step together, or each alone where they cannot, whose failure is its own."""
        together = self._together
        if len(runs) == 1 or together is None:
            return {run: guarded(partial(run.step, self._clock)) for run in runs}
        began, rows = self._clock(), sum(run.rows for run in runs)
        logits = guarded(lambda: together.step([run.decoder for run in runs], [run.search.pending for run in runs]))
        if isinstance(logits, Failure):
            return logits
        given = Given(len(runs), rows, self._clock() - began)
        return {run: guarded(partial(run.feed, one, given)) for run, one in zip(runs, logits, strict=True)}

    def _each_alone(self, texts: Sequence[_Text], began: float) -> float:
        """On a thread: has each text take its next step by itself, or end for want of time; gives when the last did."""
        for text in texts:
            if text.withdrawn:
                continue
            done = guarded(text.job.step)
            ended = self._clock()
            self._stepped(text, done, began, ended, 1, 1)
            began = ended
        return began

    def _stepped(self, text: _Text, done: bool | Failure, began: float, ended: float, runs: int, texts: int) -> None:
        """On a thread: notes a step of a text, which so many runs took together for so many texts."""
        text.attained_s += (ended - began) / runs
        text.spent_s += (ended - began) / texts
        text.stepped_s += ended - began
        text.stepped_texts += runs
        if text.tell is not None and done is False:
            self._tell(text, text.tell)
        if isinstance(done, Failure):
            text.failure, text.done = done, True
        elif done:
            text.done = True
        elif not text.job.parted:
            deadline = text.job.budget.deadline
            text.steps.append(Step(began - deadline, ended - deadline))

    def _tell(self, text: _Text, tell: Callable[[str], None]) -> None:
        """On a thread: has the loop tell what the step has settled. What fails there costs the text its parts only."""
        settled = guarded(text.job.settled)
        if isinstance(settled, str) and len(settled) > len(text.told):
            text.told = settled
            self._loop.call_soon_threadsafe(tell, settled)

    def _back(self, texts: Sequence[_Text], ran_s: float) -> None:
        """On the loop: starts the next texts first, so that the engine works while these results go out."""
        first = texts[0]
        self.totals.turns += 1
        if first in self._running:
            self.totals.sizes[len(self._waiting) + len(self._running)] += 1
            self._busy -= 1
        self._late_share.ran(ran_s, late=first.ran_late, contested=first.ran_contested)
        for text in texts:
            self._running.discard(text)
            self._ending.discard(text)
            text.left_s = text.job.budget.left_s
            text.rows = self._rows_of(text)
            self._note_following(text)
            if text.is_over:
                self._end(text)
            else:
                self._waiting.add(text)
        self._share_engine()
        for text in texts:
            if text.is_over:
                text.resolve(self._result(text))

    def _rows_of(self, text: _Text) -> int:
        """The rows of a text's next step."""
        ask = text.job.ask
        return text.rows if ask is None or ask.run.done else ask.run.rows

    def _note_following(self, text: _Text) -> None:
        """Counts a text that has joined another's run. One that could not is like no other from now on."""
        likeness = text.job.likeness
        if likeness.joined and not text.followed:
            text.followed = True
            self.totals.followed += 1
        if text.job.parted:
            text.job.parted = False
            likeness.parted()

    def _result(self, text: _Text) -> FinishedJob | Failure:
        outcome = text.failure or text.job.outcome
        if outcome is None:
            return Failure(FailureKind.CANCELLED)
        if isinstance(outcome, Failure):
            return outcome
        texts = round(text.stepped_texts / max(len(text.steps) + 1, 1)) or 1
        return FinishedJob(outcome, self._clock() - text.entered - text.stepped_s, text.stepped_s, texts)

    def _helped(self, text: _Text) -> bool:
        """True if its client got a usable summary in time."""
        outcome = text.job.outcome
        if text.withdrawn or not isinstance(outcome, WritingResult) or self._clock() > text.job.budget.deadline:
            return False
        return usable(outcome.text, outcome.generation.finish_reason)

    def _end(self, text: _Text) -> None:
        """Counts a text that has ended, in whichever way, and gives its memory back, or to one that goes on."""
        text.job.close()
        going_on = self._pass_on(text)
        self._begun -= text.begun
        if text.begun and self._memory is not None and text.job.need is not None:
            self._memory.release(text.job.need)
        if text.alarm is not None:
            text.alarm.cancel()
        totals = self.totals
        totals.inputs += 1
        totals.steps += len(text.steps)
        totals.late_steps += sum(step.late for step in text.steps)
        overshoots = (step.ended_s for step in text.steps)
        totals.longest_overshoot_s = max(totals.longest_overshoot_s, *overshoots, 0.0)
        totals.busy_s += text.spent_s
        totals.engine_failures += text.failure is not None
        if not going_on and not self._helped(text):
            totals.wasted_s += text.spent_s
        try:
            self._log.write(text.name, text.steps, withdrawn=text.withdrawn)
        except OSError as error:  # a full disk loses a line of the log, never a summary
            self._loop.call_exception_handler({"message": "a line of the step log is lost", "exception": error})
