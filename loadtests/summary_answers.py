"""One summary asked for over HTTP with its details, and what a measurement keeps of the answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
from msgspec import Struct

from gateway.api.headers import BUDGET, CHECKPOINT, REQUEST_ID
from gateway.model.messages import FinishReason
from gateway.tasks.summarize import Summary
from loadtests.client import Client, Hung, NoReply, Reply

PATH = "/summarize?details=true"


@dataclass(frozen=True)
class Summarised:
    """An answer: its text, who wrote it, why it ended, and what was run for it.

    `lead` says that the source's first sentence stands in for a summary. In seconds: the engine's time for it, and the
    whole of it by the gateway's clock.
    """

    text: str
    checkpoint: str
    finish_reason: FinishReason
    beams: int
    steps: int
    lead: bool
    service_time_s: float
    gateway_s: float


@dataclass(frozen=True)
class Unsummarised:
    """A text that got no summary, and why."""

    why: str


async def summary_of(client: Client, body: bytes, headers: Mapping[str, str]) -> Summarised | Unsummarised:
    """Posts one text to where the client posts, `PATH` of a gateway."""
    try:
        return read_summary(await client.post(body, headers))
    except (NoReply, Hung) as error:
        return Unsummarised(str(error))


def summary_headers(
    budget_s: float | None = None, request_id: str | None = None, pinned: str | None = None
) -> dict[str, str]:
    """The headers that say this much; the budget to a microsecond."""
    given = {
        BUDGET: None if budget_s is None else f"{budget_s * 1000:.3f}",
        REQUEST_ID: request_id,
        CHECKPOINT: pinned,
    }
    return {name: value for name, value in given.items() if value is not None}


def read_summary(reply: Reply) -> Summarised | Unsummarised:
    """What an answer says of its one text."""
    if reply.status != 200:
        return Unsummarised(f"{reply.status} {_code(reply)}".strip())
    try:
        details = msgspec.json.decode(reply.body, type=_Details)
        (output,), (generation,) = details.outputs, details.generation
    except (msgspec.DecodeError, ValueError):
        return Unsummarised("the answer is no summary with details")
    return Summarised(
        text=output.summary_text,
        checkpoint=details.routing.checkpoint,
        finish_reason=generation.finish_reason,
        beams=generation.beams,
        steps=generation.steps,
        lead=generation.lead,
        service_time_s=details.timings_ms.infer / 1000,
        gateway_s=details.timings_ms.total / 1000,
    )


class _Routing(Struct):
    checkpoint: str


class _Timings(Struct):
    infer: float
    total: float


class _Generation(Struct):
    finish_reason: FinishReason
    beams: int
    steps: int
    lead: bool


class _Details(Struct):
    outputs: list[Summary]
    routing: _Routing
    timings_ms: _Timings
    generation: list[_Generation]


class _Problem(Struct):
    code: str


def _code(reply: Reply) -> str:
    try:
        return msgspec.json.decode(reply.body, type=_Problem).code
    except msgspec.DecodeError:
        return "without a code"
