"""`/summarize`: long texts in, short ones out, extracted or written anew as the budget allows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from math import ceil
from typing import Annotated, Any, Literal, TypeAlias, get_args

from msgspec import Struct
from pydantic import ConfigDict, Field, JsonValue, StringConstraints

from gateway.model.errors import InvalidRequest
from gateway.model.manifest import ExtractiveManifest, GenerationRules, Seq2SeqManifest
from gateway.model.messages import Answer, FinishReason, Parameters
from gateway.model.profile import LatencyProfile
from gateway.tasks.base import (
    BY_ANOTHER_NAME,
    Ignored,
    Sampling,
    Spellings,
    StreamedBody,
    Streaming,
    Task,
    TaskBody,
    VariantKind,
)
from gateway.tasks.decoding import (
    FIRST_STEPS,
    MOST_TOGETHER,
    DecodingTimes,
    Wanted,
    WritingTimes,
    leanest,
    plan,
    was_short,
)
from gateway.tasks.service_time import SLOWDOWN_WEIGHT, Slowdown, StepSharing
from gateway.tasks.writing import NICENESS, WritingModel

LongText: TypeAlias = Literal["chunk", "longest_first", "error"]

MOST_NEW_TOKENS = 4096
"""Most new tokens that a request may ask for."""

MOST_BEAMS = 16
"""Most beams that a request may ask for."""

LONG_TEXT = Spellings(
    {
        "only_first": "longest_first",
        "only_second": "chunk",
        "do_not_truncate": "chunk",
        True: "longest_first",
        False: "chunk",
    }
)
"""Hugging Face's words for the ways to treat a long text, and ours. Nothing has a second text that could be cut."""

_BATCH = 8
"""Sentences per batch that the encoder's time per token is taken from."""

_SENTENCE_TOKENS = 32
"""Tokens of a sentence, as many as in the texts that were measured."""

Tokens = Annotated[int, Field(ge=1, le=MOST_NEW_TOKENS)]
LeastTokens = Annotated[int, Field(ge=0, le=MOST_NEW_TOKENS)]
Beams = Annotated[int, Field(ge=1, le=MOST_BEAMS)]


class GenerateParameters(Sampling):
    """The parameters of transformers that a summary takes. Lengths are of the summary: nothing else is written."""

    max_new_tokens: Tokens | None = Field(default=None, description="at most; the budget may leave fewer")
    max_length: Tokens | None = Field(
        default=None, description="read as max_new_tokens", json_schema_extra=BY_ANOTHER_NAME
    )
    min_new_tokens: LeastTokens | None = Field(default=None, description="at least, where the budget lets it")
    min_length: LeastTokens | None = Field(
        default=None, description="read as min_new_tokens", json_schema_extra=BY_ANOTHER_NAME
    )
    num_beams: Beams | None = Field(default=None, description="at most; the budget may leave fewer")
    length_penalty: Annotated[float, Field(ge=-10, le=10)] | None = Field(
        default=None, description="above 0 the search prefers longer summaries, below 0 shorter ones"
    )
    no_repeat_ngram_size: Annotated[int, Field(ge=0, le=32)] | None = Field(
        default=None, description="no so many tokens in a row come twice; 0 allows it"
    )
    early_stopping: bool | None = Field(
        default=None, description="the search stops at as many finished beams as it is wide"
    )


class SummarizeBodyParameters(GenerateParameters):
    """The `parameters` of `POST /summarize`. They override the same fields of `generate_parameters`."""

    truncation: Annotated[LongText, LONG_TEXT] | None = Field(
        default=None,
        description="of a text over the window: chunk (the default) summarises it piece by piece and the pieces once "
        "more, longest_first keeps its head, error refuses. Hugging Face's only_first and true are read as "
        "longest_first, its do_not_truncate, only_second and false as chunk",
    )
    domain: Annotated[str, StringConstraints(min_length=1, max_length=63)] | None = Field(
        default=None, description="what the text is about: checkpoints made for that domain are candidates too"
    )
    generate_parameters: GenerateParameters | None = Field(default=None, description="those of transformers, likewise")
    clean_up_tokenization_spaces: Ignored[bool] = Field(
        default=None, description="accepted and without effect: spaces are always cleaned"
    )

    def ignored(self, path: str = "") -> Iterator[str]:
        """What another parameter goes before, too."""
        yield from super().ignored(path)
        yield from overridden({path[:-1]: self, f"{path}generate_parameters": self.generate_parameters})


_EXAMPLES: list[JsonValue] = [
    {
        "inputs": (
            "The night train between the two capitals is to run again from December, eleven years after it was "
            "given up. The operator has bought twelve used sleeping cars and had them rebuilt, with smaller "
            "compartments, showers in every second car and racks for bicycles. Demand had never quite gone away, "
            "said the head of the long-distance division; what had gone was the patience of accountants with cars "
            "that stand idle by day. This time the sleeping cars will be coupled to regional services in the "
            "morning hours, so that they earn money on both ends. A seat is to cost from 39 euros, a place in a "
            "compartment for four from 69, and a compartment of one's own from 159. Environmental groups welcomed "
            "the plan but criticised the price of single compartments. The association of passengers asked above "
            "all for reliability: on the southern line, which was reopened two years ago, every fifth train "
            "arrives more than an hour late, mostly because of works on the track. The operator promised to hold "
            "connecting trains, and to pay for a taxi where that fails."
        ),
    },
    {
        "inputs": (
            "libzc is a fast, portable and high-quality zip password cracking library. It is entirely written in C "
            "and does not depend on other libraries. It offers brute force, dictionary and known plaintext "
            "attacks, uses several threads where the machine has them, and comes with a small command line tool "
            "that shows how the library is used. This package contains the development files."
        ),
        "parameters": {"max_new_tokens": 40, "domain": "software"},
    },
    {
        "inputs": (
            "We met on Tuesday to look at the outage of the week before. The cause is known by now: a certificate "
            "of the message broker had expired, and the reminder for it went to a person who left in spring. The "
            "broker itself kept running, so that the health checks stayed green, but no new connection could be "
            "made, and each restart of a service made things worse. It took fifty minutes until somebody looked at "
            "the right log. We agreed on three things. Certificates are renewed by a job from now on, and the "
            "job's failure pages whoever is on duty. Health checks open a fresh connection instead of trusting an "
            "old one. And reminders go to the team's address, never to a person. The second point needs care, "
            "since a check that connects every second is a load of its own; Mara will measure it. We also asked "
            "ourselves why three people restarted services without saying so in the channel. There was no good "
            "answer, and we would rather have an easy way to say it than a rule that demands it."
        ),
    },
]
"""Bodies that the contract shows and the console offers; written for Punctual."""


class SummarizeBody(TaskBody, StreamedBody):
    """The body of `POST /summarize`: the Hugging Face Inference API's."""

    model_config = ConfigDict(json_schema_extra={"examples": _EXAMPLES})

    parameters: SummarizeBodyParameters | None = Field(default=None, description="how a summary is written")


class SummarizeParameters(Parameters, frozen=True, array_like=True, tag="summarize"):
    """How a summary is written; None is the checkpoint's own choice.

    `max_new_tokens` and `num_beams` are upper limits: the budget may allow less. `truncation` says what happens to a
    text longer than the checkpoint's window.
    """

    max_new_tokens: int | None = None
    min_new_tokens: int | None = None
    num_beams: int | None = None
    length_penalty: float | None = None
    no_repeat_ngram_size: int | None = None
    early_stopping: bool | None = None
    truncation: LongText = "chunk"


_USUAL = SummarizeParameters()


class Summary(Struct, frozen=True):
    """One summary. Encodes as the object on the wire."""

    summary_text: str


def _read(body: SummarizeBody) -> tuple[SummarizeParameters, str | None]:
    """The parameters with the contract's defaults filled in. Raises InvalidRequest if a minimum exceeds its maximum."""
    given = body.parameters or SummarizeBodyParameters()
    levels = {"parameters": given, "parameters.generate_parameters": given.generate_parameters or GenerateParameters()}
    _, most = first_given(levels, "max_new_tokens", "max_length")
    name, least = first_given(levels, "min_new_tokens", "min_length")
    if most is not None and least is not None and least > most:
        raise InvalidRequest.of_field(name, f"must be at most the {most} new tokens that are allowed")
    return SummarizeParameters(
        max_new_tokens=most,
        min_new_tokens=least,
        **search_of(levels),
        truncation=given.truncation or "chunk",
    ), given.domain


def search_of(levels: Mapping[str, GenerateParameters]) -> dict[str, Any]:
    """How a text is searched for, by the fields of a task's parameters; None is the checkpoint's own choice."""
    names = ("num_beams", "length_penalty", "no_repeat_ngram_size", "early_stopping")
    return {name: first_given(levels, name)[1] for name in names}


_ALIKE = (
    ("max_new_tokens", "max_length"),
    ("min_new_tokens", "min_length"),
    *((name,) for name in ("num_beams", "length_penalty", "no_repeat_ngram_size", "early_stopping")),
)
"""Parameters of which the first that is given counts alone."""


def first_given(levels: Mapping[str, GenerateParameters], *names: str) -> tuple[str, Any]:
    """The first of these fields that was given, by its path and value; the upper level goes first."""
    return next(_given(levels, names), ("", None))


def overridden(levels: Mapping[str, GenerateParameters | None]) -> Iterator[str]:
    """The paths of the fields that were given, and lost behind the first that was given for the same."""
    for names in _ALIKE:
        yield from (path for path, _ in islice(_given(levels, names), 1, None))


def _given(levels: Mapping[str, GenerateParameters | None], names: Sequence[str]) -> Iterator[tuple[str, Any]]:
    each = ((f"{path}.{name}", getattr(level, name, None)) for path, level in levels.items() for name in names)
    return (one for one in each if one[1] is not None)


class ExtractiveModel:
    """Service times of an extractive checkpoint, which encodes every sentence, in batches of similar length."""

    max_batch = 1
    joins: StepSharing | None = None

    def __init__(self, profile: LatencyProfile) -> None:
        """Takes the encoder's profile; a sentence counts as 32 tokens, as many as in the texts that were measured."""
        self.sigma = profile.sigma
        self._per_token_s = profile.median_s(_BATCH, _SENTENCE_TOKENS) / (_BATCH * _SENTENCE_TOKENS)
        self._least_s = profile.median_s(1, _SENTENCE_TOKENS)
        self.slowdown = Slowdown(SLOWDOWN_WEIGHT)

    def run_s(self, inputs: int, tokens: int) -> float:
        """Median seconds of the texts, one after the other."""
        return self.slowdown.value * self._profiled_s(inputs * tokens, inputs)

    def service_times_s(
        self, tokens: Sequence[int], parameters: Parameters, available_s: float, companions: int = 0
    ) -> tuple[float, float]:
        """Median seconds within the available time, and done the cheapest way: equal, since all sentences are read.

        An extract of half a text would have less than the catalog's quality.
        """
        seconds = self.slowdown.value * self._profiled_s(sum(tokens), len(tokens))
        return seconds, seconds

    def learn(self, tokens: Sequence[int], parameters: Parameters, answer: Answer) -> None:
        """Learns the slowdown from what was read."""
        if any(was_short(one) for one in answer.generation):
            return
        if answer.input.kept > 0:
            profiled_s = self._profiled_s(answer.input.kept, len(tokens))
            self.slowdown.learn(answer.timings.service_time_s, profiled_s)

    def forget(self) -> None:
        """Resets the slowdown alone."""
        self.slowdown = Slowdown(SLOWDOWN_WEIGHT)

    def _profiled_s(self, tokens: int, texts: int) -> float:
        return max(tokens * self._per_token_s, self._least_s * texts)


class AbstractiveModel(WritingModel):
    """Service times of an encoder-decoder, which reads texts in pieces and writes as many beams as time allows.

    Where its graphs let texts share steps, those of several requests do too.
    """

    usual = _USUAL

    def __init__(self, manifest: Seq2SeqManifest) -> None:
        super().__init__(WritingTimes.of(manifest, manifest.company_profile), manifest.output_tokens)
        self._window_tokens = manifest.max_tokens
        self._rules = manifest.generation
        if manifest.shares_steps:
            self.max_batch = MOST_TOGETHER
            self.joins = StepSharing(self._held_s, self._pace)

    def first_token_s(self, tokens: Sequence[int], parameters: Parameters, companions: int = 0) -> float:
        """Median seconds until the first word is told: the first text is read, and a few steps are run.

        One that is read in pieces is told from its last reading on, so all that goes before is a part of it.
        """
        first, wanted = tokens[0], self._wanted(parameters)
        times = self._shared(min(first, self._window_tokens), (1, min(companions, self.max_batch - 1)))
        steps_s = FIRST_STEPS * times.step_s(wanted.beams)
        if self._pieces(first, parameters) <= 1:
            return times.encode_s + steps_s
        whole_s = self._of_text(first, parameters, 0.0)[1]
        return max(whole_s - wanted.expected_tokens * times.step_s(1), times.encode_s) + steps_s

    def _together(
        self, lengths: Sequence[int], parameters: Parameters, available_s: float, companions: int = 0
    ) -> tuple[float, float]:
        """Median seconds of texts that step together: as done within the available time, and the least.

        They are read one after the other. A text that is read in pieces takes its own time, with company at each step.
        """
        pieces = [self._pieces(tokens, parameters) for tokens in lengths]
        company = (len(lengths), min(companions, self.max_batch - len(lengths)))
        if len(lengths) == 1 or max(pieces) > 1:
            each = [self._of_text(tokens, parameters, available_s / len(lengths), company) for tokens in lengths]
            return sum(fully_s for fully_s, _ in each), sum(least_s for _, least_s in each)
        read = [min(tokens, self._window_tokens) for tokens in lengths]
        wanted, reading_s = self._wanted(parameters), sum(self._times(tokens).encode_s for tokens in read)
        times = DecodingTimes(reading_s, self._shared(max(read), company).step_s)
        return plan(times, wanted, available_s).expected_s, leanest(times, wanted).expected_s

    def _of_text(
        self, tokens: int, parameters: Parameters, available_s: float, company: tuple[int, int] = (1, 0)
    ) -> tuple[float, float]:
        """Median seconds of one text in company, with as many beams as fit, and with one.

        A text over the window is read in pieces, and the summaries of the pieces are summarised once more. Each piece
        and the last reading have equal shares of the room, as on the replica.
        """
        wanted, pieces = self._wanted(parameters), self._pieces(tokens, parameters)
        if pieces <= 1:
            times = self._shared(min(tokens, self._window_tokens), company)
            return plan(times, wanted, available_s).expected_s, leanest(times, wanted).expected_s
        piece = self._shared(ceil(tokens / pieces), company)
        last = self._shared(min(round(pieces * wanted.expected_tokens), self._window_tokens), company)
        read_s = pieces * plan(piece, wanted, available_s / (pieces + 1)).expected_s
        least_s = pieces * leanest(piece, wanted).expected_s + leanest(last, wanted).expected_s
        return read_s + plan(last, wanted, available_s - read_s).expected_s, least_s

    def _pieces(self, tokens: int, parameters: Parameters) -> int:
        """The pieces in which a text is read."""
        chunked = isinstance(parameters, SummarizeParameters) and parameters.truncation == "chunk"
        return ceil(tokens / self._window_tokens) if chunked else 1

    def _shared(self, tokens: int, company: tuple[int, int]) -> DecodingTimes:
        """Times of a text of so many tokens that steps in company: texts of its own request, and of others.

        Those of its request have as many beams as it has; the others go on with the usual number.
        """
        (own, others), usual = company, self._rules.num_beams
        slowdown, alone = self.slowdown.value, self._times(tokens)

        def step_s(beams: int) -> float:
            return slowdown * self._writing.shared_step_s(own + others, own * beams + others * usual, tokens)

        return DecodingTimes(alone.encode_s, step_s)

    def _held_s(self, tokens: int) -> float:
        """Seconds for which a text that joins holds the others up: it is read, in pieces if it is long, then those."""
        pieces = ceil(tokens / self._window_tokens)
        return (pieces + (pieces > 1)) * self._times(min(tokens, self._window_tokens)).encode_s

    def _pace(self, texts: int) -> float:
        beams, tokens, number = self._rules.num_beams, self._window_tokens // 2, min(texts, self.max_batch)
        shared_s = self._writing.shared_step_s(number, number * beams, tokens)
        return shared_s / self._writing.shared_step_s(1, beams, tokens)

    def _forced(self, parameters: Parameters) -> bool:
        least = parameters.min_new_tokens if isinstance(parameters, SummarizeParameters) else None
        return (least or 0) > self._output_tokens

    def _wanted(self, parameters: Parameters) -> Wanted:
        given = parameters if isinstance(parameters, SummarizeParameters) else SummarizeParameters()
        return wanted_of(given, self._rules, self._output_tokens)


def wanted_of(parameters: SummarizeParameters, rules: GenerationRules, expected_tokens: float) -> Wanted:
    """What a request asks of a checkpoint, within the tokens that the checkpoint's own rules allow."""
    most = min(parameters.max_new_tokens or rules.max_new_tokens, rules.max_new_tokens)
    least = rules.min_new_tokens if parameters.min_new_tokens is None else parameters.min_new_tokens
    return Wanted(parameters.num_beams or rules.num_beams, most, min(max(expected_tokens, least), most))


SUMMARIZE = Task(
    name="summarize",
    summary="Summarise texts within a latency budget",
    body=SummarizeBody,
    read=_read,
    parameters=SummarizeParameters,
    output=Summary,
    kinds={
        "extractive": VariantKind(
            ExtractiveManifest, lambda manifest: ExtractiveModel(LatencyProfile.from_document(manifest.profile))
        ),
        "seq2seq": VariantKind(Seq2SeqManifest, AbstractiveModel),
    },
    default_budget_ms=10_000.0,
    niceness=NICENESS,
    finish_reasons=get_args(FinishReason),
    streams=Streaming(),
    openai={"completions": GenerateParameters.model_fields},
)
