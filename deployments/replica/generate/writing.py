"""Writes on from a prompt token by token, until it ends by itself or by a stop text, or until length or budget do."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

import numpy as np
from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from deployments.engines.base import CausalEngine, Logits, Pending, Seq2SeqEngine
from deployments.engines.past_memory import PastNeed
from deployments.engines.prefixes import Restored
from deployments.replica.generate.choosing import Choice, Chooser
from deployments.replica.generate.prompts import Prompts
from deployments.replica.writing.job import Ask, Settled, Steps, TextBudget, WritingJob, WritingResult, go_along
from deployments.replica.writing.past_budget import PastBudget, past_budget
from deployments.replica.writing.shared_runs import PARTED, Given, Likeness, Parted, Run, SharedRuns
from deployments.replica.writing.time_slicing import Together
from gateway.catalogs.catalog import CatalogEntry
from gateway.model.manifest import Precision
from gateway.model.messages import Failure, FailureKind, FinishReason, Generation, InputReport
from gateway.tasks.decoding import MOST_TOGETHER, DecodingPlan, DecodingTimes, Wanted, WritingTimes, plan
from gateway.tasks.generate import CausalManifest, GenerateParameters, wanted_tokens
from gateway.tasks.service_time import SLOWDOWN_WEIGHT, Slowdown

BROKEN = "\ufffd"
"""What stands in a text for a character that is not whole."""

CODES_SHOWN = 8
"""Most control codes that a refusal lists."""


class WrittenText:
    """The text of the tokens so far, as far as no later token can change it, up to a stop text.

    `restored` tokens of its prompt were not read anew.

    A token may be a part of a character; what is not whole is held back, and left out at the end. So is what may become
    a stop text.
    """

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[str], prompt: Sequence[int] = ()) -> None:
        """Takes the tokenizer that made the prompt, the texts that end an answer, and the prompt's token ids.

        Where tokens are words, the space before the first one follows from what is before it.
        """
        self.text = ""
        self.stopped = False
        self.restored = 0
        self._tokenizer = tokenizer
        last = list(prompt[-1:])
        whole = BROKEN not in tokenizer.decode(last)
        self._stream = DecodeStream(last if whole else [], skip_special_tokens=True)
        self._stops = stops
        self._longest = max(map(len, stops), default=0)

    def add(self, token: int) -> None:
        """Takes the next token; `stopped` is true from the first stop text on, before which the text ends."""
        said = self._stream.step(self._tokenizer, token)
        if not said or self.stopped:
            return
        begun = max(0, len(self.text) - self._longest + 1)
        self.text += said
        found = [at for stop in self._stops if (at := self.text.find(stop, begun)) >= 0]
        if found:
            self.text, self.stopped = self.text[: min(found)], True

    @property
    def settled(self) -> str:
        """The part of the text that no later token can take back: without what may be the beginning of a stop text."""
        if self.stopped:
            return self.text
        kept = len(self.text)
        for stop in self._stops:
            for size in range(min(len(stop) - 1, len(self.text)), 0, -1):
                if self.text.endswith(stop[:size]):
                    kept = min(kept, len(self.text) - size)
                    break
        return self.text[:kept]


class Draft:
    """The search of one answer: takes the logits of each step, and chooses the next token. Implements `Search`."""

    def __init__(self, chooser: Chooser, written: WrittenText, ends: Sequence[int], most: int) -> None:
        """Takes what chooses tokens and what makes text of them, the tokens that end an answer, and the most tokens."""
        self.written = written
        self.tokens = 0
        self.steps = 0
        self._chooser = chooser
        self._ends = ends
        self._most = most
        self._last = 0
        self._ended = False

    @property
    def pending(self) -> Pending:
        """The token that was chosen last. Raises RuntimeError once the answer has ended."""
        if self.done:
            raise RuntimeError("the answer has ended")
        return np.asarray([self._last], dtype=np.int64), np.zeros(1, dtype=np.int64)

    @property
    def done(self) -> bool:
        """True if the answer has ended, by itself or since it is as long as it may be."""
        return self._ended or self.tokens == self._most

    @property
    def reason(self) -> FinishReason:
        """Why the answer ends; the deadline if nothing else has ended it."""
        return "stop" if self._ended else "length" if self.done else "deadline"

    def feed(self, logits: Logits) -> None:
        """Takes the logits (1, vocabulary) of a step."""
        self.steps += 1
        self._last = self._chooser.choose(logits[0])
        self._ended = self._last in self._ends
        if not self._ended:
            self.tokens += 1
            self.written.add(self._last)
            self._ended = self.written.stopped


@dataclass(frozen=True, slots=True)
class _Order:
    """A prompt's time, and which others it is like."""

    budget: TextBudget
    likeness: Likeness


class Scribe:
    """Writes answers with one decoder-only checkpoint. Several jobs may be under way at once."""

    def __init__(self, manifest: CausalManifest, engine: CausalEngine, prompts: Prompts) -> None:
        self._rules = manifest.generation
        self._window = manifest.max_tokens
        self._exact = manifest.precision is not Precision.INT8
        self._expected = manifest.output_tokens
        self._times = WritingTimes.of(manifest)
        self._engine = engine
        self._prompts = prompts
        self._slowdown = Slowdown(SLOWDOWN_WEIGHT)
        self._runs: SharedRuns[Draft] = SharedRuns()
        self._codes = manifest.control_codes
        self._code_ids = frozenset(manifest.control_codes.values())

    def together(self) -> Together:
        """How texts step together: what a step of several takes is that of a text of half the window."""
        steps, tokens = self._times.steps, self._window // 2
        return Together(self._engine.step_together, lambda _, rows: steps.median_s(rows, tokens), MOST_TOGETHER)

    def memory(self, entry: CatalogEntry) -> PastBudget | None:
        """What keys and values of all texts may take."""
        return past_budget(entry, self._engine, PastNeed(1, self._window), exact=self._exact)

    def read(self, texts: Sequence[str], parameters: GenerateParameters) -> list[list[int]] | Failure:
        """The token ids of each prompt, whole; of a conversation those of its one prompt, or REFUSED."""
        if not parameters.roles:
            return [self._prompts.of_text(text) for text in texts]
        prompt = self._prompts.of_conversation(parameters.roles, texts)
        return prompt if isinstance(prompt, Failure) else [prompt]

    def begin(self, prompt: Sequence[int], parameters: GenerateParameters, budget: TextBudget) -> WritingJob:
        """Makes the job of one prompt; runs nothing yet."""
        kept = min(len(prompt), parameters.truncate or len(prompt), self._window)
        wanted = wanted_tokens(parameters, self._rules, self._expected, kept, self._window)
        times = self._times.for_text(kept, self._slowdown.value)
        budget.left_s = times.encode_s + wanted.expected_tokens * times.step_s(1)
        need = PastNeed(1, min(kept + wanted.max_new_tokens, self._window))
        order = _Order(budget, Likeness())
        if parameters.seed is not None or not Choice.of(parameters, self._rules).sample:
            order.likeness.key = np.asarray(prompt, dtype=np.int64).tobytes(), parameters  # bytes keep their hash
        return WritingJob(budget, self._steps(prompt, parameters, order), need, order.likeness)

    def _steps(self, prompt: Sequence[int], parameters: GenerateParameters, order: _Order) -> Steps:
        total, most, budget = len(prompt), self._window - 1, order.budget
        kept = prompt[-parameters.truncate :] if parameters.truncate else prompt
        if len(kept) > most:
            return Failure(FailureKind.TOO_LONG, "over the checkpoint's window", len(kept), most)
        if not kept:
            return Failure(FailureKind.REFUSED, "the text has no token that the checkpoint knows")
        if self._code_ids and kept[0] not in self._code_ids:
            return self._uncoded()
        wanted = wanted_tokens(parameters, self._rules, self._expected, len(kept), self._window)
        times = self._times.for_text(len(kept), self._slowdown.value)
        planned = plan(times, wanted, budget.remaining_s)
        run = yield from self._write(kept, parameters, wanted, order)
        budget.left_s = 0.0
        if run is None:
            return _result(None, planned, order, InputReport(total, 0, True))
        return _result(run, planned, order, InputReport(total, len(kept), len(kept) < total))

    def _uncoded(self) -> Failure:
        """The refusal of a prompt whose first token, after any cut, is no control code."""
        codes = sorted(self._codes)
        shown = ", ".join(codes[:CODES_SHOWN]) + (", ..." if len(codes) > CODES_SHOWN else "")
        return Failure(FailureKind.REFUSED, f"a prompt must begin with one of its control codes: {shown}")

    def _write(
        self, prompt: Sequence[int], parameters: GenerateParameters, wanted: Wanted, order: _Order
    ) -> Generator[Settled | Ask | Parted | None, Given | None, Run[Draft] | None]:
        """Writes until something ends the answer, or the next step would end too late; None if there is no time.

        The prompt is read and the first token written at once, unless an equal prompt is under way, with which it goes
        along. Further steps are asked for, so that they may be taken together with those of other texts.
        """
        budget = order.budget
        while True:
            times = self._times.for_text(len(prompt), self._slowdown.value)
            if not budget.fits(times.encode_s):
                return None
            run = self._runs.joined(order.likeness, wanted)
            if run is not None or not order.likeness.follows:
                break
            yield PARTED
        if run is None:
            run = self._runs.begun(order.likeness, wanted, self._begun(prompt, parameters, wanted, times, budget))

        def left_s(going_on: bool) -> float:
            return max(wanted.expected_tokens - run.search.tokens, 1.0) * run.step_s * going_on

        def settled() -> str:
            with run.is_still() as draft:
                return draft.written.settled

        yield from go_along(run, budget, budget.stop_at, left_s, settled)
        return run

    def _begun(
        self,
        prompt: Sequence[int],
        parameters: GenerateParameters,
        wanted: Wanted,
        times: DecodingTimes,
        budget: TextBudget,
    ) -> Run[Draft]:
        """Reads a prompt and writes its first token."""
        chooser = Chooser(Choice.of(parameters, self._rules), prompt, np.random.default_rng(parameters.seed))
        written = WrittenText(self._prompts.tokenizer, parameters.stop, prompt)
        draft = Draft(chooser, written, self._rules.eos_token_ids, wanted.max_new_tokens)
        began = budget.clock()
        decoder = self._engine.encode(np.asarray(prompt[:-1], dtype=np.int64))
        logits = decoder.step(np.asarray(prompt[-1:], dtype=np.int64), np.zeros(1, dtype=np.int64))
        written.restored = decoder.restored if isinstance(decoder, Restored) else 0
        if not written.restored:  # else it says nothing of how fast others are read
            self._slowdown.learn(budget.clock() - began, times.encode_s / self._slowdown.value)
        draft.feed(logits)
        return Run(decoder, draft, times.step_s(1), lambda given: self._alone_s(len(prompt) + draft.steps - 1, given))

    def _alone_s(self, before: int, given: Given) -> float:
        """What a step after so many tokens, perhaps with others, would have taken alone. Learns the slowdown."""
        profiled_s = self._times.steps.median_s(given.runs, before)
        self._slowdown.learn(given.took_s, profiled_s)
        return given.took_s * self._times.steps.median_s(1, before) / profiled_s


def write_on(engine: Seq2SeqEngine, prompt: Sequence[int], ends: Sequence[int], most: int) -> tuple[int, ...]:
    """Writes at most that many tokens after a prompt, each the likeliest, without what ends them. Blocking."""
    decoder, row = engine.encode(np.asarray(prompt[:-1], dtype=np.int64)), np.zeros(1, dtype=np.int64)
    written: list[int] = []
    token = prompt[-1]
    while len(written) < most:
        token = int(decoder.step(np.asarray([token], dtype=np.int64), row)[0].argmax())
        if token in ends:
            break
        written.append(token)
    return tuple(written)


def _result(run: Run[Draft] | None, planned: DecodingPlan, order: _Order, read: InputReport) -> WritingResult:
    """What a run has written for a text, if it had time for one."""
    text, tokens, restored, budget = "", 0, 0, order.budget
    reason: FinishReason = "deadline"
    if run is not None:
        with run.is_still() as draft:
            text, tokens, restored = draft.written.text, draft.tokens, draft.written.restored
            reason = draft.reason
    generation = Generation(
        finish_reason=reason,
        steps=budget.steps,
        tokens=tokens,
        beams=1,
        max_new_tokens=max(planned.max_new_tokens, tokens),
        pieces=1,
        headroom_s=budget.headroom_s,
        lead=reason == "deadline" and not text,
        restored=restored,
        followed=order.likeness.joined,
    )
    return WritingResult(text, generation, read)
