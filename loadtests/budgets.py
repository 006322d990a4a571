"""`punctual bench budgets`: real texts, one at a time, each with a budget drawn between a tenth of a second and five.

Latency is the client's own. That no engine step began too late is read from the replicas' logs of their steps.
"""

from __future__ import annotations

import asyncio
import importlib.util
import math
import os
import random
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

import uvloop
from rich.console import Console
from rich.progress import Progress

from deployments.engines.host import read_host
from deployments.replica.summarize.step_log import VARIABLE, Entry, Step, read_log
from exporters.rouge import mean_rouge_l
from gateway.catalogs.catalog import Catalog
from loadtests.bench.peers.servers import gateway
from loadtests.client import Client, http_client
from loadtests.offered_load import Clock
from loadtests.summary_answers import PATH, Summarised, Unsummarised, summary_headers, summary_of
from loadtests.summary_errors import NoSummarizer, ScorerMissing
from loadtests.summary_texts import SHIPPED, HeldoutText, TextFiles, mixed_texts, summarize_body

PATIENCE_S = 35.0
"""How long beyond the longest budget an answer is waited for: the gateway itself gives up after 30 s."""


@dataclass(frozen=True)
class BudgetSettings:
    """How many texts, half of each kind, and the range of their budgets in seconds."""

    texts: int = 200
    least_s: float = 0.1
    most_s: float = 5.0
    seed: int = 13
    files: TextFiles = SHIPPED


@dataclass(frozen=True)
class Asked:
    """One request as it was drawn."""

    request_id: str
    text: HeldoutText
    budget_s: float


@dataclass(frozen=True)
class Ended:
    """One request: what came of it, after how many seconds, and the steps that were run for it by its replica's log.

    `steps` is None where no log names it, `rouge_l` (0 to 1, against the reference) where there is no answer.
    """

    asked: Asked
    outcome: Summarised | Unsummarised
    latency_s: float
    steps: tuple[Step, ...] | None = None
    rouge_l: float | None = None

    @property
    def in_time(self) -> bool:
        """Whether the client had its answer within the budget."""
        return isinstance(self.outcome, Summarised) and self.latency_s <= self.asked.budget_s


@dataclass(frozen=True)
class BudgetReport:
    """Every request of a run, on what host, of which summarizers in the catalog's order."""

    settings: BudgetSettings
    host: str
    checkpoints: tuple[str, ...]
    ended: tuple[Ended, ...]
    lasted_s: float


def budgets(catalog: Catalog, variants: Mapping[str, Path], settings: BudgetSettings, console: Console) -> BudgetReport:
    """Serves the catalog with the log of steps on, asks, and scores the answers. Minutes. Raises LoadTestError."""
    names = tuple(entry.name for entry in catalog.of_task("summarize"))
    if not names:
        raise NoSummarizer(f"the catalog {catalog.name} has no summarizer")
    if importlib.util.find_spec("rouge_score") is None:
        raise ScorerMissing("the answers are scored by rouge-score: `pip install rouge-score`")
    drawn = draw(settings)
    started = perf_counter()
    with tempfile.TemporaryDirectory(prefix="loadtests-") as folder:
        with ExitStack() as while_up:
            with console.status("starting the gateway"):
                while_up.enter_context(logging_steps(Path(folder)))
                server = while_up.enter_context(gateway(catalog, variants))
            ended = _over_http(server.url, drawn, settings, console)
        entries = read_log(Path(folder))
    with console.status("scoring the answers"):
        ended = scored(with_steps(ended, entries))
    return BudgetReport(settings, read_host().kind, names, tuple(ended), perf_counter() - started)


def draw(settings: BudgetSettings) -> list[Asked]:
    """The requests in their order, budgets log-uniform over the range. Equal seeds, equal requests. Raises NoTexts."""
    texts = mixed_texts(settings.texts, settings.seed, settings.files)
    chance = random.Random(settings.seed)
    least, most = math.log(settings.least_s), math.log(settings.most_s)
    run = f"{chance.getrandbits(32):08x}"
    return [Asked(f"budgets-{run}-{at}", text, math.exp(chance.uniform(least, most))) for at, text in enumerate(texts)]


@contextmanager
def logging_steps(folder: Path) -> Iterator[None]:
    """A gateway that is started within writes its log of steps into the folder."""
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = str(folder)
    try:
        yield
    finally:
        del os.environ[VARIABLE]
        if before is not None:
            os.environ[VARIABLE] = before


async def asked_in_turn(
    client: Client, drawn: Sequence[Asked], clock: Clock, show: Callable[[Ended], None]
) -> list[Ended]:
    """One request after the other, each shown when it has ended."""
    found = []
    for asked in drawn:
        body, headers = summarize_body(asked.text), summary_headers(asked.budget_s, asked.request_id)
        sent_s = clock()
        outcome = await summary_of(client, body, headers)
        found.append(Ended(asked, outcome, clock() - sent_s))
        show(found[-1])
    return found


def with_steps(ended: Sequence[Ended], entries: Sequence[Entry]) -> list[Ended]:
    """Each with the steps that were logged under its id, if any were; a text that was tried twice has all of them."""
    steps: dict[str, tuple[Step, ...]] = {}
    for entry in entries:
        steps[entry.request_id] = steps.get(entry.request_id, ()) + entry.steps
    return [replace(one, steps=steps.get(one.asked.request_id)) for one in ended]


def scored(ended: Sequence[Ended]) -> list[Ended]:
    """Each answer with its ROUGE-L against the reference."""
    return [
        replace(one, rouge_l=mean_rouge_l([one.outcome.text], [one.asked.text.reference]))
        if isinstance(one.outcome, Summarised)
        else one
        for one in ended
    ]


def _over_http(url: str, drawn: Sequence[Asked], settings: BudgetSettings, console: Console) -> list[Ended]:
    with Progress(console=console) as bar, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        line = bar.add_task("asking", total=len(drawn))
        late = 0

        def show(one: Ended) -> None:
            nonlocal late
            late += not one.in_time
            bar.update(line, advance=1, description=f"asking, {late} not in time")

        async def run() -> list[Ended]:
            async with http_client(f"{url}{PATH}", settings.most_s + PATIENCE_S) as client:
                return await asked_in_turn(client, drawn, perf_counter, show)

        return runner.run(run())
