"""`/generate`: a prompt or a conversation in, what a decoder-only checkpoint writes next out.

Bodies are those of Hugging Face's text generation. A conversation is a list of messages, which the checkpoint that
answers turns into its prompt, by its own template.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeAlias

from msgspec import Struct, to_builtins
from pydantic import BaseModel, ConfigDict, Discriminator, Field, JsonValue, StringConstraints, Tag

from gateway.model.errors import InvalidRequest
from gateway.model.manifest import GoldenSummary, VariantManifest
from gateway.model.messages import Delta, Parameters
from gateway.model.profile import ProfileDocument
from gateway.tasks.base import (
    BY_ANOTHER_NAME,
    CONVERSATION,
    MANY,
    ONE,
    OPTIONS,
    Event,
    Ignored,
    ListOf,
    Options,
    StreamedBody,
    Streaming,
    Strict,
    Task,
    Text,
    VariantKind,
)
from gateway.tasks.decoding import MOST_TOGETHER, DecodingTimes, Wanted, WritingTimes, leanest, plan
from gateway.tasks.service_time import StepSharing
from gateway.tasks.writing import ENDS, NICENESS, WritingModel

MOST_NEW_TOKENS = 4096
"""Most new tokens that a request may ask for."""

MOST_STOPS, MOST_STOP_CHARACTERS = 16, 200
"""Texts at which a request may have its answer end, and the characters of each."""

MESSAGE_TOKENS = 8
"""Tokens that a template adds to each message, for forecasts: ChatML's marks, role and line ends make 5 to 7."""

Role: TypeAlias = Literal["system", "user", "assistant"]


class Message(Strict):
    """One message of a conversation."""

    role: Role = Field(description="who says it")
    content: Text = Field(description="what is said")


def _form(inputs: object) -> str | None:
    """The union tag of `inputs`: a text, a list of texts, or a list that begins with a message."""
    if isinstance(inputs, str):
        return ONE
    if isinstance(inputs, list):
        return CONVERSATION if inputs and isinstance(inputs[0], dict) else MANY
    return None


Prompts = Annotated[
    Annotated[Text, Tag(ONE)]
    | Annotated[ListOf[Text], Tag(MANY)]
    | Annotated[ListOf[Message], Field(min_length=1), Tag(CONVERSATION)],
    Discriminator(
        _form,
        custom_error_type="text_type",
        custom_error_message="Input should be a text, a list of texts, or a list of messages",
    ),
]

Stop = Annotated[str, StringConstraints(min_length=1, max_length=MOST_STOP_CHARACTERS)]
Stops: TypeAlias = Annotated[ListOf[Stop], Field(max_length=MOST_STOPS)]


class GenerateBodyParameters(Strict):
    """The `parameters` of `POST /generate`: those of Hugging Face's text generation."""

    max_new_tokens: Annotated[int, Field(ge=1, le=MOST_NEW_TOKENS)] | None = Field(
        default=None, description="at most; budget and window may leave fewer. Where absent, the checkpoint's own"
    )
    min_new_tokens: Annotated[int, Field(ge=0, le=MOST_NEW_TOKENS)] | None = Field(
        default=None, description="at least, where budget and window let it"
    )
    do_sample: bool | None = Field(
        default=None,
        description="true draws each token, false takes the likeliest. Where absent: drawn if temperature, top_k or "
        "top_p is given, else as the checkpoint's own configuration has it",
    )
    temperature: Annotated[float, Field(ge=0, le=100)] | None = Field(
        default=None, description="below 1 likely tokens are drawn more often; 0 takes the likeliest"
    )
    top_k: Annotated[int, Field(ge=0, le=1_000_000)] | None = Field(
        default=None, description="tokens are drawn from so many of the likeliest; 0 from all"
    )
    top_p: Annotated[float, Field(gt=0, le=1)] | None = Field(
        default=None, description="tokens are drawn from the likeliest that make up this probability together"
    )
    repetition_penalty: Annotated[float, Field(ge=0.01, le=10)] | None = Field(
        default=None, description="above 1, tokens of the prompt and of the answer so far become less likely"
    )
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = Field(
        default=None, description="taken off a token's logit as often as the answer has it"
    )
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = Field(
        default=None, description="taken off a token's logit once the answer has it"
    )
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = Field(
        default=None, description="makes draws repeatable on one checkpoint; without it each answer is another"
    )
    stop: Stops | None = Field(
        default=None, description="texts at which the answer ends; the one that was met is left out"
    )
    stop_sequences: Stops | None = Field(default=None, description="read as stop", json_schema_extra=BY_ANOTHER_NAME)
    return_full_text: bool | None = Field(
        default=None, description="true puts the prompt before what was written. A conversation is never repeated"
    )
    truncate: Annotated[int, Field(ge=1, lt=2**63)] | None = Field(
        default=None,
        description="keeps so many of a prompt's last tokens; without it a prompt over the window is a 413",
    )
    domain: Annotated[str, StringConstraints(min_length=1, max_length=63)] | None = Field(
        default=None, description="what is written about: checkpoints made for that domain are candidates too"
    )
    details: Annotated[bool, Field(json_schema_extra=BY_ANOTHER_NAME)] | None = Field(
        default=None, description="false alone: the query ?details=true tells more"
    )
    decoder_input_details: Literal[False] | None = Field(
        default=None, description="false alone: no token of the prompt is scored", json_schema_extra=BY_ANOTHER_NAME
    )
    best_of: Annotated[int, Field(ge=1, le=1)] | None = Field(
        default=None, description="1 alone: one answer is written", json_schema_extra=BY_ANOTHER_NAME
    )
    num_return_sequences: Annotated[int, Field(ge=1, le=1)] | None = Field(
        default=None, description="1 alone: an input has one answer", json_schema_extra=BY_ANOTHER_NAME
    )
    num_beams: Annotated[int, Field(ge=1, le=1)] | None = Field(
        default=None, description="1 alone: answers are not searched for", json_schema_extra=BY_ANOTHER_NAME
    )
    typical_p: Annotated[float, Field(ge=1, le=1)] | None = Field(
        default=None, description="1 alone: tokens are not chosen by typicality", json_schema_extra=BY_ANOTHER_NAME
    )
    watermark: Literal[False] | None = Field(
        default=None, description="false alone: answers are not marked", json_schema_extra=BY_ANOTHER_NAME
    )
    use_cache: Ignored[bool] = None

    def ignored(self, path: str = "") -> Iterator[str]:
        """The other name of `stop` too, where that counts."""
        yield from super().ignored(path)
        if self.stop and self.stop_sequences is not None:
            yield f"{path}stop_sequences"


_EXAMPLES: list[JsonValue] = [
    {
        "inputs": [
            {"role": "user", "content": "Name three things that are worth packing for a week in the mountains."}
        ],
        "parameters": {"max_new_tokens": 60},
    },
    {
        "inputs": "The best way to learn a new language is",
        "parameters": {"max_new_tokens": 30, "temperature": 0.7, "top_p": 0.9, "seed": 7},
    },
    {
        "inputs": [
            {"role": "system", "content": "You answer in one short sentence."},
            {"role": "user", "content": "Why is the sky blue?"},
        ],
        "parameters": {"max_new_tokens": 40, "stop": ["\n"]},
    },
]
"""Bodies that the contract shows and the console offers; written for Punctual."""


class GenerateBody(StreamedBody):
    """The body of `POST /generate`: the Hugging Face Inference API's for text generation, or a conversation."""

    model_config = ConfigDict(json_schema_extra={"examples": _EXAMPLES})

    inputs: Prompts = Field(description="a prompt, a list of prompts, or the messages of a conversation")
    parameters: GenerateBodyParameters | None = Field(default=None, description="how the answer is written")
    options: Options = OPTIONS

    def texts(self) -> Sequence[str]:
        """The prompts, or what each message says."""
        if isinstance(self.inputs, str):
            return (self.inputs,)
        return [one if isinstance(one, str) else one.content for one in self.inputs]

    def place_of(self, at: int) -> tuple[str, int | None]:
        """A conversation is one text, and too long as a whole."""
        return ("inputs", None) if self.roles() else super().place_of(at)

    def roles(self) -> tuple[Role, ...]:
        """Who says each message; empty for prompts."""
        if isinstance(self.inputs, str):
            return ()
        return tuple(one.role for one in self.inputs if not isinstance(one, str))

    @staticmethod
    def inputs_of(texts: Sequence[str]) -> object:
        """A single text as itself, several as a list."""
        return texts[0] if len(texts) == 1 else list(texts)


class GenerateParameters(Parameters, frozen=True, array_like=True, tag="generate"):
    """How an answer is written; None is the checkpoint's own choice.

    `max_new_tokens` is an upper limit: budget and window may allow less. Where `roles` are given, the texts are the
    messages of one conversation, and have one answer.
    """

    max_new_tokens: int | None = None
    min_new_tokens: int = 0
    sample: bool | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    repetition_penalty: float | None = None
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    full_text: bool = False
    truncate: int | None = None
    roles: tuple[Role, ...] = ()

    @property
    def shared(self) -> int:
        """A conversation is one text to answer, whatever the number of its messages."""
        return max(len(self.roles) - 1, 0)

    def answered(self, tokens: Sequence[int]) -> Sequence[int]:
        """The tokens of each prompt. That of a conversation has all messages, and what a template adds to them."""
        return (sum(tokens) + MESSAGE_TOKENS * (len(tokens) + 1),) if self.roles else tokens


_USUAL = GenerateParameters()


class GeneratedText(Struct, frozen=True):
    """What was written. Encodes as the object on the wire."""

    generated_text: str


def _read(body: GenerateBody) -> tuple[GenerateParameters, str | None]:
    """The parameters, and the domain. Raises InvalidRequest for a minimum over its maximum, or details."""
    given = body.parameters or GenerateBodyParameters()
    most, least = given.max_new_tokens, given.min_new_tokens or 0
    if most is not None and least > most:
        raise InvalidRequest.of_field(
            "parameters.min_new_tokens", f"must be at most the {most} new tokens that are allowed"
        )
    if given.details:
        raise InvalidRequest.of_field("parameters.details", "must be false: ask for details by ?details=true")
    drawn = (given.temperature, given.top_k, given.top_p)
    sample = (
        given.do_sample if given.do_sample is not None else (True if any(one is not None for one in drawn) else None)
    )
    return GenerateParameters(
        max_new_tokens=most,
        min_new_tokens=least,
        sample=False if given.temperature == 0 else sample,
        temperature=given.temperature or None,
        top_k=given.top_k,
        top_p=given.top_p,
        repetition_penalty=given.repetition_penalty,
        frequency_penalty=given.frequency_penalty or 0.0,
        presence_penalty=given.presence_penalty or 0.0,
        seed=given.seed,
        stop=tuple(given.stop or given.stop_sequences or ()),
        full_text=given.return_full_text is True,
        truncate=given.truncate,
        roles=body.roles(),
    ), given.domain


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class WritingRules(_Frozen):
    """How a checkpoint writes unless a request says otherwise: the fields used of its `generation_config.json`.

    `max_new_tokens` is the most that it writes where a request names no number. Sampling is off where `sample` is
    false; `top_k` 0 and `top_p` 1 leave all tokens to be drawn.
    """

    eos_token_ids: tuple[int, ...]
    max_new_tokens: int = Field(ge=1)
    sample: bool = False
    temperature: float = Field(default=1.0, gt=0)
    top_k: int = Field(default=0, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    repetition_penalty: float = Field(default=1.0, gt=0)


class NextTokenVerification(_Frozen):
    """How a decoder-only variant compares with its source, token by token, each after the same tokens before it.

    Over `tokens` tokens of `texts` texts: `agreement` is the share of places where both find the same token likeliest.
    `nats` and `source_nats` are the mean negative log-likelihoods of the texts' own tokens, in nats; `nats_ceiling` is
    the most that the variant may lose.
    """

    texts: int = Field(ge=1)
    tokens: int = Field(ge=1)
    data_set: str
    agreement: float = Field(ge=0, le=1)
    agreement_floor: float = Field(ge=0, le=1)
    nats: float = Field(ge=0)
    source_nats: float = Field(ge=0)
    nats_ceiling: float = Field(ge=0)


class CausalManifest(VariantManifest):
    """The manifest of a decoder-only checkpoint, which writes on from a prompt token by token.

    `max_tokens` are of prompt and answer together. `profile` has the prompt with the first new token, at batch size 1;
    `step_profile` each later step, by rows as batch size and by tokens before it. `output_tokens` is the mean length
    that it writes if not limited. `chat_template` says that it knows conversations: the file `chat_template.jinja` is
    among its files. Where there are `control_codes`, words with their token ids, every prompt must begin with one.
    Golden texts are prompts as they are, special tokens not read, and need none.
    """

    kind: Literal["causal"] = "causal"
    generation: WritingRules
    output_tokens: float = Field(gt=0)
    chat_template: bool = False
    control_codes: dict[str, int] = Field(default_factory=dict)
    verification: NextTokenVerification
    self_test: tuple[GoldenSummary, ...] = Field(min_length=1)
    step_profile: ProfileDocument

    @property
    def agreement(self) -> float:
        """The share of places where both find the same token likeliest."""
        return self.verification.agreement

    def details(self) -> dict[str, object]:
        """How it writes, its mean length, whether it knows conversations, its control codes, and what a step takes."""
        codes = {"control_codes": sorted(self.control_codes)} if self.control_codes else {}
        return codes | {
            "generation": self.generation.model_dump(mode="json"),
            "output_tokens": round(self.output_tokens, 1),
            "chat_template": self.chat_template,
            "step_ms": self.step_profile.cells_ms(),
        }


def wanted_tokens(
    parameters: GenerateParameters, rules: WritingRules, output_tokens: float, prompt_tokens: int, window: int
) -> Wanted:
    """What a request asks of a checkpoint after a prompt, within the window that both share."""
    asked = rules.max_new_tokens if parameters.max_new_tokens is None else parameters.max_new_tokens
    most = max(1, min(asked, window - prompt_tokens))
    return Wanted(1, most, min(max(output_tokens, parameters.min_new_tokens), most))


class CausalModel(WritingModel):
    """Service times of a decoder-only checkpoint: it reads each prompt at once, and writes as the budget allows.

    Texts step together, also those of several requests.
    """

    usual = _USUAL
    max_batch = MOST_TOGETHER

    def __init__(self, manifest: CausalManifest) -> None:
        super().__init__(WritingTimes.of(manifest), manifest.output_tokens)
        self._window_tokens = manifest.max_tokens
        self._rules = manifest.generation
        self.joins = StepSharing(self._reading_s, self._pace)

    def first_token_s(self, tokens: Sequence[int], parameters: Parameters, companions: int = 0) -> float:
        """Median seconds until the first token is told: the first prompt is read, and one step is run."""
        given = parameters if isinstance(parameters, GenerateParameters) else _USUAL
        first = parameters.answered(tokens)[0]
        times = self._times(min(first, given.truncate or first, self._window_tokens))
        return times.encode_s + times.step_s(min(1 + companions, MOST_TOGETHER))

    def _together(
        self, lengths: Sequence[int], parameters: Parameters, available_s: float, companions: int = 0
    ) -> tuple[float, float]:
        """Median seconds of texts that step together: as done within the available time, and the least.

        Their prompts are read one after the other. Steps count as those in the middle of the longest answer, since each
        takes longer than the one before.
        """
        given = parameters if isinstance(parameters, GenerateParameters) else _USUAL
        read = [min(one, given.truncate or one, self._window_tokens) for one in lengths]
        longest, rows = max(read), min(len(read) + companions, MOST_TOGETHER)
        wanted = wanted_tokens(given, self._rules, self._output_tokens, longest, self._window_tokens)
        midway = self._times(min(longest + round(self._output_tokens / 2), self._window_tokens))
        reading_s = sum(self._times(one).encode_s for one in read)
        times = DecodingTimes(reading_s, lambda beams: midway.step_s(rows))
        return plan(times, wanted, available_s).expected_s, leanest(times, wanted).expected_s

    def _reading_s(self, tokens: int) -> float:
        return self._times(min(tokens, self._window_tokens)).encode_s

    def _pace(self, rows: int) -> float:
        steps, tokens = self._writing.steps, self._window_tokens // 2
        return steps.median_s(min(rows, MOST_TOGETHER), tokens) / steps.median_s(1, tokens)

    def _midway(self, kept: int, tokens: int) -> int:
        return min(kept + tokens // 2, self._window_tokens)

    def _forced(self, parameters: Parameters) -> bool:
        return isinstance(parameters, GenerateParameters) and parameters.min_new_tokens > self._output_tokens

    def _wanted(self, parameters: Parameters) -> Wanted:
        given = parameters if isinstance(parameters, GenerateParameters) else _USUAL
        return wanted_tokens(given, self._rules, self._output_tokens, 1, self._window_tokens)


def _delta_event(body: GenerateBody, delta: Delta) -> Event:
    """A delta, also as Hugging Face's clients read it: for them it is a token, whose number nobody uses."""
    return Event({"index": delta.index, "text": delta.text, "token": _token(delta.text)})


def _done_event(body: GenerateBody, details: Mapping[str, object]) -> Sequence[Event]:
    """The end: the details, and what those clients look for in their last token."""
    outputs: Any = to_builtins(details["outputs"])
    last = {"index": 0, "token": _token("", special=True), "generated_text": outputs[0]["generated_text"]}
    return (Event({**details, **last}, "done"),)


def _token(text: str, *, special: bool = False) -> dict[str, object]:
    return {"id": -1, "text": text, "logprob": None, "special": special}


GENERATE = Task(
    name="generate",
    summary="Continue a text, or a conversation, within a latency budget",
    body=GenerateBody,
    read=_read,
    parameters=GenerateParameters,
    output=GeneratedText,
    kinds={"causal": VariantKind(CausalManifest, CausalModel)},
    default_budget_ms=10_000.0,
    niceness=NICENESS,
    finish_reasons=ENDS,
    streams=Streaming(_delta_event, _done_event),
    openai=dict.fromkeys(("chat", "completions"), GenerateBodyParameters.model_fields),
)
