"""Requests for summaries over HTTP: held-out texts, random budgets, and parsed answers.

LoadTestError
├── NoTexts       the held-out texts are missing
└── NoSummarizer  the catalog has no summarizer, or not the named one
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from itertools import cycle
from pathlib import Path

import msgspec
from msgspec import Struct
from rich.console import Console

from exporters.sources.texts import SOFTWARE
from exporters.sources.texts import SUMMARIES as PAPERS
from gateway.catalogs.catalog import Catalog
from gateway.model.deadline import Clock
from gateway.model.messages import FinishReason
from gateway.model.request import BUDGET, CHECKPOINT, REQUEST_ID
from gateway.tasks.summarize import Summary
from loadtests.bench.peers.servers import gateway
from loadtests.client import Client, Hung, NoReply, Reply
from loadtests.errors import LoadTestError

PATH = "/summarize?details=true"


class NoTexts(LoadTestError):
    """The held-out texts are missing or unreadable; the message names the file."""


class NoSummarizer(LoadTestError):
    """The catalog has no summarizer to measure; the message says which was requested."""


class Kind(StrEnum):
    """The kind of a text: a scientific paper's introduction, or a software package's description."""

    PAPERS = "papers"
    SOFTWARE = "software"


@dataclass(frozen=True)
class HeldoutText:
    """A text and its reference summary."""

    kind: Kind
    text: str
    reference: str

    @property
    def body(self) -> bytes:
        """The JSON body of `POST /summarize`."""
        parameters = {"parameters": {"domain": "software"}} if self.kind is Kind.SOFTWARE else {}
        return json.dumps({"inputs": self.text, **parameters}, ensure_ascii=False).encode()


@dataclass(frozen=True)
class TextFiles:
    """The files of both kinds: JSON lines with `text` and `summary`."""

    papers: Path = PAPERS
    software: Path = SOFTWARE


SHIPPED = TextFiles()
"""The files that ship with the code."""


@dataclass(frozen=True)
class Asked:
    """One request: its text, its budget in seconds, and the checkpoint it is pinned to, if any."""

    request_id: str
    text: HeldoutText
    budget_s: float
    checkpoint: str | None = None


@dataclass(frozen=True)
class Summarised:
    """An answer: the summary, its checkpoint, finish reason, and the work done for it.

    `lead` is true if the source's first sentence replaces a summary. `gateway_s` is the total latency by the gateway's
    clock, in seconds.
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
    """A request without a summary, and the reason."""

    why: str


@dataclass(frozen=True)
class Ended:
    """One request, its outcome, and its latency in seconds by the client's clock."""

    asked: Asked
    outcome: Summarised | Unsummarised
    latency_s: float

    @property
    def in_time(self) -> bool:
        """True if the client had its answer within the budget."""
        return isinstance(self.outcome, Summarised) and self.latency_s <= self.asked.budget_s


def mixed_texts(count: int, seed: int, files: TextFiles = SHIPPED) -> list[HeldoutText]:
    """`count` texts in random order, half of each kind. Repeats texts if a kind has too few.

    Equal seeds give equal texts. Raises NoTexts.
    """
    rng = random.Random(seed)
    papers = _sampled(Kind.PAPERS, files.papers, count - count // 2, rng)
    software = _sampled(Kind.SOFTWARE, files.software, count // 2, rng)
    return rng.sample([*papers, *software], count)


def longest_papers(count: int, files: TextFiles = SHIPPED) -> list[HeldoutText]:
    """The `count` longest introductions of papers, longest first. Raises NoTexts."""
    return sorted(_read(Kind.PAPERS, files.papers), key=lambda one: len(one.text), reverse=True)[:count]


def requests_of(
    texts: Sequence[HeldoutText], budgets_s: tuple[float, float], seed: int, checkpoints: Sequence[str | None] = (None,)
) -> list[Asked]:
    """One request per text, with log-uniform budgets, pinned to the checkpoints in turn.

    Equal seeds give equal requests.
    """
    rng = random.Random(seed)
    run = f"{rng.getrandbits(32):08x}"
    least, most = (math.log(budget_s) for budget_s in budgets_s)
    return [
        Asked(f"bench-{run}-{at}", text, math.exp(rng.uniform(least, most)), checkpoint)
        for at, (text, checkpoint) in enumerate(zip(texts, cycle(checkpoints), strict=False))
    ]


def summarizers(catalog: Catalog) -> tuple[str, ...]:
    """The names of the catalog's summarizers, in its order. Raises NoSummarizer."""
    names = tuple(entry.name for entry in catalog.of_task("summarize"))
    if not names:
        raise NoSummarizer(f"the catalog {catalog.name} has no summarizer")
    return names


@contextmanager
def served(catalog: Catalog, variants: Mapping[str, Path], console: Console) -> Iterator[str]:
    """Runs a gateway that serves the catalog. Yields its URL. Raises ServerFailed."""
    with ExitStack() as while_up:
        with console.status("starting the gateway"):
            url = while_up.enter_context(gateway(catalog, variants)).url
        yield url


async def asked_in_turn(client: Client, requests: Sequence[Asked], clock: Clock) -> AsyncIterator[Ended]:
    """Sends one request after another."""
    for asked in requests:
        headers = {BUDGET: f"{asked.budget_s * 1000:.3f}", REQUEST_ID: asked.request_id}
        if asked.checkpoint:
            headers[CHECKPOINT] = asked.checkpoint
        sent_s = clock()
        outcome = await summary_of(client, asked.text.body, headers)
        yield Ended(asked, outcome, clock() - sent_s)


async def summary_of(client: Client, body: bytes, headers: Mapping[str, str]) -> Summarised | Unsummarised:
    """Posts one body with a client whose URL ends in `PATH`."""
    try:
        return read_summary(await client.post(body, headers))
    except (NoReply, Hung) as error:
        return Unsummarised(str(error))


def read_summary(reply: Reply) -> Summarised | Unsummarised:
    """Parses the answer to a request with one text."""
    if reply.status != 200:
        return Unsummarised(f"{reply.status} {_code(reply)}")
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


class _Row(Struct):
    text: str
    summary: str


def _sampled(kind: Kind, path: Path, count: int, rng: random.Random) -> list[HeldoutText]:
    texts = _read(kind, path)
    found: list[HeldoutText] = []
    while len(found) < count:
        found += rng.sample(texts, min(len(texts), count - len(found)))
    return found


def _read(kind: Kind, path: Path) -> list[HeldoutText]:
    try:
        rows = [msgspec.json.decode(line, type=_Row) for line in path.read_bytes().split(b"\n") if line]
    except FileNotFoundError:
        raise NoTexts(f"{path}: the held-out texts are missing") from None
    except msgspec.DecodeError as error:
        raise NoTexts(f"{path}: not lines with a text and a summary: {error}") from None
    if not rows:
        raise NoTexts(f"{path}: the file holds no text")
    return [HeldoutText(kind, row.text, row.summary) for row in rows]
