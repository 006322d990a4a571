"""`/translate`: texts in one language in, the same in another out, sentence by sentence within the budget.

Knows which languages a checkpoint translates, how it is told them, and how long a text takes. It guesses no language of
a text, and translates nothing by way of a third language.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Annotated, Literal

from msgspec import Struct
from pydantic import BaseModel, ConfigDict, Field, JsonValue, StringConstraints

from gateway.model.errors import InvalidRequest
from gateway.model.manifest import GenerationRules, GoldenSummary, TokenVerification, VariantManifest
from gateway.model.messages import Answer, Generation, Parameters
from gateway.model.profile import ProfileDocument
from gateway.tasks.base import (
    BY_ANOTHER_NAME,
    Ignored,
    StreamedBody,
    Streaming,
    Task,
    TaskBody,
    Unable,
    VariantKind,
)
from gateway.tasks.decoding import FIRST_STEPS, DecodingTimes, Wanted, WritingTimes, leanest, plan
from gateway.tasks.languages import MOST_CHARACTERS, is_unspaced, language_of, meant
from gateway.tasks.service_time import SLOWDOWN_WEIGHT, SMOOTHING, Slowdown, StepSharing
from gateway.tasks.summarize import LONG_TEXT, GenerateParameters, LongText, first_given, overridden, search_of
from gateway.tasks.writing import ENDS, NICENESS

SENTENCE_TOKENS = 30.0
"""Tokens of a sentence, until a checkpoint's answers have taught it; about those of the texts that are measured."""

MOST_LISTED = 250
"""Pairs, or languages, that a refusal lists: all of NLLB's."""

Code = Annotated[str, StringConstraints(min_length=2, max_length=MOST_CHARACTERS)]
NoTokens = Annotated[int, Field(ge=0, le=0)]


class TranslationGenerateParameters(GenerateParameters):
    """The parameters of transformers that a translation takes. Lengths are of the whole translation of a text."""

    min_new_tokens: NoTokens | None = Field(
        default=None, description="0 alone: a translation ends where its text does", json_schema_extra=BY_ANOTHER_NAME
    )
    min_length: NoTokens | None = Field(
        default=None, description="0 alone, as min_new_tokens", json_schema_extra=BY_ANOTHER_NAME
    )
    length_penalty: Annotated[float, Field(ge=-10, le=10)] | None = Field(
        default=None, description="above 0 the search prefers longer translations, below 0 shorter ones"
    )


class TranslateBodyParameters(TranslationGenerateParameters):
    """The `parameters` of `POST /translate`. They override the same fields of `generate_parameters`."""

    src_lang: Code | None = Field(
        default=None,
        description="the language of the text, such as en, eng_Latn or en_XX; may be absent where only one leads to "
        "tgt_lang",
    )
    tgt_lang: Code | None = Field(
        default=None, description="the language to translate into; may be absent where there is only one"
    )
    truncation: Annotated[LongText, LONG_TEXT] | None = Field(
        default=None,
        description="chunk (the default) translates a text sentence by sentence; longest_first takes it as one input "
        "and keeps its head, error refuses one over the window. Hugging Face's only_first and true are read as "
        "longest_first, its do_not_truncate, only_second and false as chunk",
    )
    domain: Annotated[str, StringConstraints(min_length=1, max_length=63)] | None = Field(
        default=None, description="what the text is about: checkpoints made for that domain are candidates too"
    )
    generate_parameters: TranslationGenerateParameters | None = Field(
        default=None, description="those of transformers, likewise"
    )
    clean_up_tokenization_spaces: Ignored[bool] = Field(
        default=None, description="accepted and without effect: spaces are always cleaned"
    )

    def ignored(self, path: str = "") -> Iterator[str]:
        """What another parameter goes before, too."""
        yield from super().ignored(path)
        yield from overridden({path[:-1]: self, f"{path}generate_parameters": self.generate_parameters})


_EXAMPLES: list[JsonValue] = [
    {
        "inputs": "The night train between the two capitals is to run again from December.",
        "parameters": {"src_lang": "en", "tgt_lang": "de"},
    },
    {
        "inputs": (
            "This package contains the development files. It is needed to compile programs that use the library."
        ),
        "parameters": {"src_lang": "en", "tgt_lang": "it", "domain": "software"},
    },
    {
        "inputs": ["Where is the station?", "The next train leaves in ten minutes."],
        "parameters": {"src_lang": "en", "tgt_lang": "fr", "num_beams": 1},
    },
]
"""Bodies that the contract shows and the console offers; written for Punctual."""


class TranslateBody(TaskBody, StreamedBody):
    """The body of `POST /translate`: the Hugging Face Inference API's."""

    model_config = ConfigDict(json_schema_extra={"examples": _EXAMPLES})

    parameters: TranslateBodyParameters | None = Field(default=None, description="from what into what, and how")


class TranslateParameters(Parameters, frozen=True, array_like=True, tag="translate"):
    """From what into what a text is translated, by the client's codes, and how; None is the checkpoint's own choice.

    `max_new_tokens` and `num_beams` are upper limits: the budget may allow less.
    """

    source: str | None = None
    target: str | None = None
    max_new_tokens: int | None = None
    num_beams: int | None = None
    length_penalty: float | None = None
    no_repeat_ngram_size: int | None = None
    early_stopping: bool | None = None
    truncation: LongText = "chunk"


_USUAL = TranslateParameters()


class Translation(Struct, frozen=True):
    """One translation. Encodes as the object on the wire."""

    translation_text: str


def _read(body: TranslateBody) -> tuple[TranslateParameters, str | None]:
    """The parameters with the contract's defaults filled in."""
    given = body.parameters or TranslateBodyParameters()
    lower = given.generate_parameters or TranslationGenerateParameters()
    levels: dict[str, GenerateParameters] = {"parameters": given, "parameters.generate_parameters": lower}
    return TranslateParameters(
        source=given.src_lang,
        target=given.tgt_lang,
        max_new_tokens=first_given(levels, "max_new_tokens", "max_length")[1],
        **search_of(levels),
        truncation=given.truncation or "chunk",
    ), given.domain


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Pair(_Frozen):
    """A pair of languages that a checkpoint translates, by its own codes.

    The checkpoint is told it by a `prefix` of the text (T5), by a token before the text (Marian with several targets)
    or `behind` it and the `first` that is written (mBART), or not at all.
    """

    source: str
    target: str
    prefix: str = ""
    token_id: int | None = None
    behind: bool = False
    first: int | None = None

    @property
    def direction(self) -> Direction:
        """The direction of the pair."""
        told = () if self.token_id is None else (self.token_id,)
        before, behind = ((), told) if self.behind else (told, ())
        return Direction(self.source, self.target, self.prefix, before, behind, self.first)


class LanguageTokens(_Frozen):
    """The tokens of the languages that a checkpoint translates, each into each other, by its own codes.

    The token of the source stands before the text (mBART-50, M2M-100, NLLB) or `behind` its end (mBART); that of the
    target is the first that is written.
    """

    ids: dict[str, int] = Field(min_length=2)
    behind: bool = False


@dataclass(frozen=True, slots=True)
class Direction:
    """From what into what, by a checkpoint's own codes, and how it is told: a prefix and token ids round each text.

    `first` is the token that its writing begins with, None for the one that its rules force, if any.
    """

    source: str
    target: str
    prefix: str = ""
    before: tuple[int, ...] = ()
    behind: tuple[int, ...] = ()
    first: int | None = None

    @property
    def is_unspaced(self) -> bool:
        """True if the target puts no space between sentences."""
        return is_unspaced(self.target)


class TranslatorManifest(VariantManifest):
    """The manifest of an encoder-decoder that translates.

    `profile` has the encoder with the first decoding step, at batch size 1. `step_profile` has each later step, by
    beams as batch size and by tokens of the source. `output_tokens` is the mean length of the translations that it was
    verified on, and `input_tokens` that of their texts. `verified` is the direction of its verification and of its
    golden texts.
    """

    kind: Literal["translator"] = "translator"
    pairs: tuple[Pair, ...] = ()
    languages: LanguageTokens | None = None
    generation: GenerationRules
    output_tokens: float = Field(gt=0)
    input_tokens: float = Field(gt=0)
    verified: tuple[str, str]
    verification: TokenVerification
    self_test: tuple[GoldenSummary, ...] = Field(min_length=1)
    step_profile: ProfileDocument

    @property
    def agreement(self) -> float:
        """The share of texts for which both write the same tokens."""
        return self.verification.same_tokens

    def details(self) -> dict[str, object]:
        """What it translates, how it writes, and what a step takes."""
        return {
            "pairs": [{"src_lang": one.source, "tgt_lang": one.target} for one in self.pairs],
            "languages": sorted(self.languages.ids) if self.languages else [],
            "verified": {"src_lang": self.verified[0], "tgt_lang": self.verified[1]},
            "generation": self.generation.model_dump(mode="json"),
            "output_tokens": round(self.output_tokens, 1),
            "step_ms": self.step_profile.cells_ms(),
        }

    def directions(self, source: str | None, target: str | None) -> list[Direction]:
        """The directions that codes of a client mean; one that is absent means any, but where both must be told."""
        return directions(self.pairs, self.languages, source, target)


def directions(
    pairs: Iterable[Pair], languages: LanguageTokens | None, source: str | None, target: str | None
) -> list[Direction]:
    """The directions of a checkpoint that codes of a client mean; None means any, but where both must be told.

    A direction from a language into itself is not meant, unless it is one of the pairs.
    """
    found = [one.direction for one in _meant_pairs(pairs, source, target)]
    if languages is None or source is None or target is None:
        return found
    here, there = (meant(code, languages.ids) for code in (source, target))
    if here is None or there is None or here == there:
        return found
    told, first = (languages.ids[here],), languages.ids[there]
    before, behind = ((), told) if languages.behind else (told, ())
    return [*found, Direction(here, there, before=before, behind=behind, first=first)]


def _meant_pairs(pairs: Iterable[Pair], source: str | None, target: str | None) -> list[Pair]:
    """The pairs that both codes may mean; of those from one source the best target, of those into one the best source.

    A checkpoint may write one language in several ways, each in other pairs.
    """
    alike = [one for one in pairs if _may_mean(source, one.source) and _may_mean(target, one.target)]
    into, out_of = defaultdict[str, list[str]](list), defaultdict[str, list[str]](list)
    for one in alike:
        into[one.target].append(one.source)
        out_of[one.source].append(one.target)
    best_into = {own: source and meant(source, sources) for own, sources in into.items()}
    best_out_of = {own: target and meant(target, targets) for own, targets in out_of.items()}
    return [
        one
        for one in alike
        if best_into[one.target] in (None, one.source) and best_out_of[one.source] in (None, one.target)
    ]


def _may_mean(code: str | None, own: str) -> bool:
    return code is None or meant(code, (own,)) is not None


def _able(manifests: Mapping[str, TranslatorManifest], parameters: TranslateParameters) -> set[str]:
    """The checkpoints that translate what is asked. Raises InvalidRequest if several things may be, Unable if none."""
    source, target = parameters.source, parameters.target
    found = {name: each for name, one in manifests.items() if (each := one.directions(source, target))}
    every = [one for each in found.values() for one in each]
    if target is None and _languages(one.target for one in every) > 1:
        raise _refusal(InvalidRequest, "tgt_lang", "must be given", manifests)
    if source is None and _languages(one.source for one in every) > 1:
        raise _refusal(InvalidRequest, "src_lang", "must be given", manifests)
    if found:
        return set(found)
    raise _unable(manifests, source, target)


def _unable(manifests: Mapping[str, TranslatorManifest], source: str | None, target: str | None) -> InvalidRequest:
    """The refusal of what no checkpoint translates; it names the code that means nothing, or what is absent."""
    told_both = [one.languages.ids for one in manifests.values() if one.languages]
    pairs = [pair for one in manifests.values() for pair in one.pairs]
    sources, targets = {one.source for one in pairs}.union(*told_both), {one.target for one in pairs}.union(*told_both)
    nowhere = "is translated by no checkpoint"
    if source is not None and meant(source, sources) is None:
        return _refusal(Unable, "src_lang", nowhere, manifests)
    if target is not None and meant(target, targets) is None:
        return _refusal(Unable, "tgt_lang", nowhere, manifests)
    if source is None or target is None:
        absent = "tgt_lang" if target is None else "src_lang"
        return _refusal(InvalidRequest if told_both else Unable, absent, "must be given", manifests)
    if _languages((source, target)) == 1:
        return _refusal(InvalidRequest, "tgt_lang", "must be another language than src_lang", manifests)
    return _refusal(Unable, "tgt_lang", nowhere, manifests)


def _refusal(
    kind: type[InvalidRequest], field: str, must: str, manifests: Mapping[str, TranslatorManifest]
) -> InvalidRequest:
    return kind.of_field(f"parameters.{field}", f"{must}; there are {_listed(manifests.values())}")


def _languages(codes: Iterable[str]) -> int:
    """How many languages these codes are of. One written in two scripts counts as two; a code may name no script."""
    scripts = defaultdict[str, set[str]](set)
    for code in codes:
        language = language_of(code)
        named = scripts[language.code if language else code]
        if language and language.script:
            named.add(language.script)
    return sum(max(1, len(each)) for each in scripts.values())


def _listed(manifests: Iterable[TranslatorManifest]) -> str:
    """What is translated, in a few words."""
    pairs, any_of = dict[str, None](), dict[str, None]()
    for one in manifests:
        pairs |= dict.fromkeys(f"{pair.source} to {pair.target}" for pair in one.pairs)
        any_of |= dict.fromkeys(one.languages.ids if one.languages else ())
    parts = [_shortened(list(pairs))] if pairs else []
    parts += [f"each into each other of {_shortened(list(any_of))}"] if any_of else []
    return ", and ".join(parts) or "none yet"


def _shortened(names: Sequence[str]) -> str:
    more = len(names) - MOST_LISTED
    return ", ".join(names[:MOST_LISTED]) + (f" and {more} more" if more > 0 else "")


def wanted_of(parameters: TranslateParameters, rules: GenerationRules, expected_tokens: float) -> Wanted:
    """What a request asks for one sentence, within the tokens that the checkpoint's own rules allow."""
    most = min(parameters.max_new_tokens or rules.max_new_tokens, rules.max_new_tokens)
    return Wanted(parameters.num_beams or rules.num_beams, most, min(max(expected_tokens, 1.0), most))


class TranslationModel:
    """Service times of a checkpoint that translates sentence by sentence, each as many tokens for each of its own.

    Answers teach it the sentences' length, the written tokens for each that was read, and the slowdown.
    """

    max_batch = 1
    joins: StepSharing | None = None

    def __init__(self, manifest: TranslatorManifest) -> None:
        """Takes the profiles, and the lengths of what was verified."""
        self._writing = WritingTimes.of(manifest)
        self.sigma = max(self._writing.encoder.sigma, self._writing.steps.sigma)
        self.slowdown = Slowdown(SLOWDOWN_WEIGHT)
        self._rules = manifest.generation
        self._window_tokens = manifest.max_tokens
        self._written_share = manifest.output_tokens / manifest.input_tokens
        self._sentence_tokens = min(SENTENCE_TOKENS, float(manifest.max_tokens))

    def run_s(self, inputs: int, tokens: int) -> float:
        """Median seconds of the texts, one after the other, each done the cheapest way."""
        return inputs * self._of_text(tokens, _USUAL, 0.0)[1]

    def service_times_s(
        self, tokens: Sequence[int], parameters: Parameters, available_s: float, companions: int = 0
    ) -> tuple[float, float]:
        """Median seconds within the available time, and the least; several texts share the time equally."""
        given = parameters if isinstance(parameters, TranslateParameters) else _USUAL
        each = [self._of_text(one, given, available_s / len(tokens)) for one in tokens]
        return sum(fully_s for fully_s, _ in each), sum(least_s for _, least_s in each)

    def learn(self, tokens: Sequence[int], parameters: Parameters, answer: Answer) -> None:
        """Learns from what was read and written."""
        written = [one for one in answer.generation if one.steps]
        pieces = sum(one.pieces for one in written)
        if not written or not answer.input.kept:
            return
        read = answer.input.kept / pieces
        if not answer.input.truncated and all(one.finish_reason == "stop" for one in written):
            share = sum(one.tokens for one in written) / answer.input.kept
            self._written_share += SMOOTHING * (share - self._written_share)
            self._sentence_tokens += SMOOTHING * (read - self._sentence_tokens)
        if any(one.restored for one in written):
            return  # a part of the time was spared, and nobody knows which
        times = self._writing.for_text(min(ceil(read), self._window_tokens))
        profiled_s = pieces * times.encode_s + sum((one.steps - one.pieces) * _step_s(one, times) for one in written)
        self.slowdown.learn(answer.timings.service_time_s, profiled_s)

    def forget(self) -> None:
        """Resets the slowdown alone; lengths do not depend on the machine."""
        self.slowdown = Slowdown(SLOWDOWN_WEIGHT)

    def first_token_s(self, tokens: Sequence[int], parameters: Parameters, companions: int = 0) -> float:
        """Median seconds until the first word is told: the first sentence is read, and a few steps are run."""
        given = parameters if isinstance(parameters, TranslateParameters) else _USUAL
        read = min(tokens[0], self._window_tokens)
        if given.truncation == "chunk":
            read = min(read, ceil(self._sentence_tokens))
        times = self._writing.for_text(read, self.slowdown.value)
        return times.encode_s + FIRST_STEPS * times.step_s(wanted_of(given, self._rules, 1.0).beams)

    def _of_text(self, tokens: int, parameters: TranslateParameters, available_s: float) -> tuple[float, float]:
        """Median seconds of all of one text, with as many beams as fit, and with one."""
        chunked = parameters.truncation == "chunk"
        pieces = max(1, round(tokens / self._sentence_tokens)) if chunked else 1
        each = min(ceil(tokens / pieces), self._window_tokens)
        times = self._writing.for_text(each, self.slowdown.value)
        wanted = wanted_of(parameters, self._rules, self._written_share * each)
        if parameters.max_new_tokens is not None:  # the limit is of the whole translation
            pieces = min(pieces, ceil(parameters.max_new_tokens / wanted.expected_tokens))
        beams = plan(times, wanted, available_s / pieces).beams
        fully_s = times.encode_s + wanted.expected_tokens * times.step_s(beams)
        return pieces * fully_s, pieces * leanest(times, wanted).expected_s


def _step_s(generation: Generation, times: DecodingTimes) -> float:
    return times.step_s(generation.beams)


TRANSLATE = Task(
    name="translate",
    summary="Translate texts within a latency budget",
    body=TranslateBody,
    read=_read,
    parameters=TranslateParameters,
    output=Translation,
    kinds={"translator": VariantKind(TranslatorManifest, TranslationModel)},
    default_budget_ms=10_000.0,
    niceness=NICENESS,
    finish_reasons=ENDS,
    streams=Streaming(),
    able=_able,
)
