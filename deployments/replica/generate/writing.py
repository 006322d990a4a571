"""Writes on from a prompt token by token, until it ends by itself or by a stop text, or until length or budget do."""

from __future__ import annotations

from collections.abc import Generator, Sequence

import numpy as np
from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from deployments.engines.base import CausalEngine, Seq2SeqEngine
from deployments.engines.past_memory import PastNeed
from deployments.engines.prefixes import Restored
from deployments.replica.generate.choosing import Choice, Chooser
from deployments.replica.generate.prompts import Prompts
from deployments.replica.writing.job import Ask, Given, Steps, TextBudget, WritingJob, WritingResult
from deployments.replica.writing.past_budget import PastBudget, past_budget
from deployments.replica.writing.time_slicing import Together
from gateway.catalogs.catalog import CatalogEntry
from gateway.model.manifest import Precision
from gateway.model.messages import Failure, FailureKind, FinishReason, Generation, InputReport
from gateway.tasks.decoding import MOST_TOGETHER, DecodingPlan, Wanted, WritingTimes, plan
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
        return WritingJob(budget, self._steps(prompt, parameters, budget), need)

    def _steps(self, prompt: Sequence[int], parameters: GenerateParameters, budget: TextBudget) -> Steps:
        total, most = len(prompt), self._window - 1
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
        written = WrittenText(self._prompts.tokenizer, parameters.stop, kept)
        if not budget.fits(times.encode_s):
            budget.left_s = 0.0
            return _result(written, 0, "deadline", planned, budget, InputReport(total, 0, True))
        tokens, reason = yield from self._write(kept, parameters, wanted, budget, written)
        budget.left_s = 0.0
        return _result(written, tokens, reason, planned, budget, InputReport(total, len(kept), len(kept) < total))

    def _uncoded(self) -> Failure:
        """The refusal of a prompt whose first token, after any cut, is no control code."""
        codes = sorted(self._codes)
        shown = ", ".join(codes[:CODES_SHOWN]) + (", ..." if len(codes) > CODES_SHOWN else "")
        return Failure(FailureKind.REFUSED, f"a prompt must begin with one of its control codes: {shown}")

    def _write(
        self,
        prompt: Sequence[int],
        parameters: GenerateParameters,
        wanted: Wanted,
        budget: TextBudget,
        written: WrittenText,
    ) -> Generator[Ask | None, Given | None, tuple[int, FinishReason]]:
        """Writes until something ends the answer, or the next step would end too late; gives its tokens, and what did.

        The prompt is read and the first token written at once. Further steps are asked for, so that they may be taken
        together with those of other texts.
        """
        slowdown = self._slowdown.value
        times = self._times.for_text(len(prompt), slowdown)
        chooser = Chooser(Choice.of(parameters, self._rules), prompt, np.random.default_rng(parameters.seed))
        began = budget.clock()
        decoder = self._engine.encode(np.asarray(prompt[:-1], dtype=np.int64))
        logits = decoder.step(np.asarray(prompt[-1:], dtype=np.int64), np.zeros(1, dtype=np.int64))[0]
        written.restored = decoder.restored if isinstance(decoder, Restored) else 0
        if not written.restored:  # else it says nothing of how fast others are read
            self._slowdown.learn(budget.clock() - began, times.encode_s / slowdown)
        step_s, tokens = times.step_s(1), 0
        while True:
            token = chooser.choose(logits)
            ended = token in self._rules.eos_token_ids
            if not ended:
                tokens += 1
                written.add(token)
            if ended or written.stopped or tokens == wanted.max_new_tokens:
                budget.left_s = 0.0
                if budget.steps == 0:
                    yield None  # the first step is over, which its caller counts
                return tokens, "stop" if ended or written.stopped else "length"
            budget.left_s = max(wanted.expected_tokens - tokens, 1.0) * step_s
            pending = np.asarray([token], dtype=np.int64), np.zeros(1, dtype=np.int64)
            given = yield Ask(decoder, pending, step_s, budget.stop_at, lambda: written.settled)
            if given is None:
                return tokens, "deadline"
            logits = given.logits[0]
            at = len(prompt) + tokens
            profiled_s = self._times.steps.median_s(given.texts, at)
            self._slowdown.learn(given.took_s, profiled_s)
            alone_s = given.took_s * self._times.steps.median_s(1, at) / profiled_s
            step_s += 0.5 * (alone_s - step_s)


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


def _result(
    written: WrittenText,
    tokens: int,
    reason: FinishReason,
    planned: DecodingPlan,
    budget: TextBudget,
    read: InputReport,
) -> WritingResult:
    generation = Generation(
        finish_reason=reason,
        steps=budget.steps,
        tokens=tokens,
        beams=1,
        max_new_tokens=planned.max_new_tokens,
        pieces=1,
        headroom_s=budget.headroom_s,
        lead=reason == "deadline" and not written.text,
        restored=written.restored,
    )
    return WritingResult(written.text, generation, read)
