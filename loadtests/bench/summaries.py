"""Summaries asked for over HTTP: the held-out texts, requests with drawn budgets, and what is kept of each answer.

LoadTestError
├── NoTexts       the held-out texts are missing
└── NoSummarizer  the catalog has none, or not the one asked for
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

from exporters.texts import SOFTWARE
from exporters.texts import SUMMARIES as PAPERS
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
    """The held-out texts are not there; the message says where they were looked for."""


class NoSummarizer(LoadTestError):
    """The catalog has no summarizer that could be measured; the message says which it was asked for."""


class Kind(StrEnum):
    """What a text is: a scientific paper's introduction, or a package's description."""

    PAPERS = "papers"
    SOFTWARE = "software"


@dataclass(frozen=True)
class HeldoutText:
    """A text and the summary to compare with."""

    kind: Kind
    text: str
    reference: str

    @property
    def body(self) -> bytes:
        """The body of `POST /summarize`, as an ordinary client writes it."""
        parameters = {"parameters": {"domain": "software"}} if self.kind is Kind.SOFTWARE else {}
        return json.dumps({"inputs": self.text, **parameters}, ensure_ascii=False).encode()


@dataclass(frozen=True)
class TextFiles:
    """Where the texts of both kinds lie, as JSON lines with `text` and `summary`."""

    papers: Path = PAPERS
    software: Path = SOFTWARE


SHIPPED = TextFiles()
"""Those that travel with the code."""


@dataclass(frozen=True)
class Asked:
    """One request: its text, its budget in seconds, and the checkpoint that it is pinned to, if any."""

    request_id: str
    text: HeldoutText
    budget_s: float
    checkpoint: str | None = None


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


@dataclass(frozen=True)
class Ended:
    """One request, what came of it, and after how many seconds by the client's clock."""

    asked: Asked
    outcome: Summarised | Unsummarised
    latency_s: float

    @property
    def in_time(self) -> bool:
        """Whether the client had its answer within the budget."""
        return isinstance(self.outcome, Summarised) and self.latency_s <= self.asked.budget_s


def mixed_texts(count: int, seed: int, files: TextFiles = SHIPPED) -> list[HeldoutText]:
    """This many texts in a mixed order, half of each kind. If a kind has too few, all of them over and over.

    Equal seeds, equal texts. Raises NoTexts.
    """
    chance = random.Random(seed)
    papers = _drawn(Kind.PAPERS, files.papers, count - count // 2, chance)
    software = _drawn(Kind.SOFTWARE, files.software, count // 2, chance)
    return chance.sample([*papers, *software], count)


def longest_papers(count: int, files: TextFiles = SHIPPED) -> list[HeldoutText]:
    """The papers' introductions with the most characters, the longest first. Raises NoTexts."""
    return sorted(_read(Kind.PAPERS, files.papers), key=lambda one: len(one.text), reverse=True)[:count]


def requests_of(
    texts: Sequence[HeldoutText], budgets_s: tuple[float, float], seed: int, checkpoints: Sequence[str | None] = (None,)
) -> list[Asked]:
    """One request for each text, budgets log-uniform over the range, pinned to the checkpoints in turn.

    Equal seeds, equal requests.
    """
    chance = random.Random(seed)
    run = f"{chance.getrandbits(32):08x}"
    least, most = (math.log(budget_s) for budget_s in budgets_s)
    return [
        Asked(f"bench-{run}-{at}", text, math.exp(chance.uniform(least, most)), checkpoint)
        for at, (text, checkpoint) in enumerate(zip(texts, cycle(checkpoints), strict=False))
    ]


def summarizers(catalog: Catalog) -> tuple[str, ...]:
    """The names of a catalog's summarizers, in its order. Raises NoSummarizer."""
    names = tuple(entry.name for entry in catalog.of_task("summarize"))
    if not names:
        raise NoSummarizer(f"the catalog {catalog.name} has no summarizer")
    return names


@contextmanager
def served(catalog: Catalog, variants: Mapping[str, Path], console: Console) -> Iterator[str]:
    """Serves the catalog by a gateway, at the URL that is yielded. Raises ServerFailed."""
    with ExitStack() as while_up:
        with console.status("starting the gateway"):
            url = while_up.enter_context(gateway(catalog, variants)).url
        yield url


async def asked_in_turn(client: Client, requests: Sequence[Asked], clock: Clock) -> AsyncIterator[Ended]:
    """Asks for one summary after the other."""
    for asked in requests:
        headers = {BUDGET: f"{asked.budget_s * 1000:.3f}", REQUEST_ID: asked.request_id}
        if asked.checkpoint:
            headers[CHECKPOINT] = asked.checkpoint
        sent_s = clock()
        outcome = await summary_of(client, asked.text.body, headers)
        yield Ended(asked, outcome, clock() - sent_s)


async def summary_of(client: Client, body: bytes, headers: Mapping[str, str]) -> Summarised | Unsummarised:
    """Posts one text to `PATH` of a gateway, which is where the client posts."""
    try:
        return read_summary(await client.post(body, headers))
    except (NoReply, Hung) as error:
        return Unsummarised(str(error))


def read_summary(reply: Reply) -> Summarised | Unsummarised:
    """What an answer says of its one text."""
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


def _drawn(kind: Kind, path: Path, count: int, chance: random.Random) -> list[HeldoutText]:
    texts = _read(kind, path)
    found: list[HeldoutText] = []
    while len(found) < count:
        found += chance.sample(texts, min(len(texts), count - len(found)))
    return found


def _read(kind: Kind, path: Path) -> list[HeldoutText]:
    try:
        rows = [msgspec.json.decode(line, type=_Row) for line in path.read_bytes().split(b"\n") if line]
    except FileNotFoundError:
        raise NoTexts(f"{path}: the held-out texts are missing") from None
    except msgspec.DecodeError as error:
        raise NoTexts(f"{path}: not lines with a text and a summary: {error}") from None
    if not rows:
        raise NoTexts(f"{path}: it holds no text")
    return [HeldoutText(kind, row.text, row.summary) for row in rows]
