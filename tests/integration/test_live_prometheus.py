"""A real Prometheus on a gateway under mixed load: every shipped query has data, and attainment is correct."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from live import Live
from programs import program
from waiting import wait_until

from exporters.sources.texts import SUMMARIES
from loadtests.bench.observed import Asked, asked_of
from loadtests.bench.peers.prometheus import Prometheus, now_s, panel_queries, watching

pytestmark = pytest.mark.ray

PAGE: str = json.loads(Path(SUMMARIES).read_text(encoding="utf-8").splitlines()[0])["text"]
SCRAPES = 15
"""The number of scrapes during the load, one a second: enough for every rate."""
CODES = {
    "invalid_request": "invalid",
    "input_too_long": "too_long",
    "budget_infeasible": "infeasible",
    "overloaded": "shed",
    "deadline_exceeded": "expired",
    "checkpoint_unavailable": "unavailable",
    "inference_failed": "failed",
}


@dataclass(frozen=True)
class Kind:
    """One kind of request: its task, its body and its headers."""

    task: str
    body: dict[str, Any]
    headers: dict[str, str] = field(default_factory=dict)


def kind(task: str, inputs: object, budget_ms: float = 5000, parameters: object = None, **headers: str) -> Kind:
    """A request with this budget; keywords are headers, with underscores for hyphens."""
    body = {"inputs": inputs} | ({"parameters": parameters} if parameters else {})
    told = {name.replace("_", "-"): value for name, value in headers.items()}
    return Kind(task, body, {"X-Latency-SLA-Ms": f"{budget_ms:g}", **told})


KINDS = (
    kind("classify", "a good film"),
    kind("classify", ["a good film", "bad plot and the acting was very poor"], 1000),
    kind("classify", "a film", x_checkpoint="fast"),
    kind("classify", "a film", 0.05),  # late: nothing is that fast
    kind("classify", "a film", 0.01, x_sla_mode="strict"),  # infeasible
    kind("classify", "good " * 200),  # truncated
    kind("classify", "good " * 200, parameters={"truncation": "error"}),  # too long
    kind("classify", ""),  # invalid
    kind("summarize", PAGE),
    kind("summarize", PAGE, x_checkpoint="reader"),
    kind("summarize", PAGE, 1, x_sla_mode="strict"),
    kind("summarize", "the river bridge was closed", parameters={"domain": "news"}),
    kind("summarize", PAGE, 0.5, x_sla_percentile="50"),
    kind("summarize", 3),
)


@dataclass(frozen=True)
class Watched:
    """What a Prometheus saw of a load: from its first scrapes to the last, and what was sent meanwhile."""

    prometheus: Prometheus
    began_s: float
    ended_s: float
    settled_s: float
    sent: Counter[tuple[str, str]]

    def values(self, expr: str, at_s: float) -> list[float]:
        """The values of an expression at an instant."""
        return [one.number for one in self.prometheus.ask(expr, at_s)]

    def asked(self) -> Asked:
        """The results of all dashboard queries and rules at the end of the load."""
        return asked_of(self.prometheus.ask, self.prometheus.rules(), panel_queries(), self.ended_s)

    def count(self, *outcomes: str, task: str) -> int:
        """The number of requests of a task with these outcomes, by their answers."""
        return sum(self.sent[task, outcome] for outcome in outcomes)

    def offered(self, task: str) -> int:
        """The number of requests of a task that could be served."""
        of_task = sum(count for (name, _), count in self.sent.items() if name == task)
        return of_task - self.count("invalid", "too_long", task=task)


def outcome_of(answer: httpx.Response) -> str:
    """The outcome of a request, by its answer."""
    if answer.status_code == 200:
        return "in_time" if answer.headers["x-sla-met"] == "true" else "late"
    return CODES[answer.json()["code"]]


async def load(url: str, enough: Callable[[], None]) -> Counter[tuple[str, str]]:
    """Three clients, each sending every kind in rotation, until `enough` returns; counts by task and outcome."""
    sent: Counter[tuple[str, str]] = Counter()
    over = asyncio.Event()

    async def client(first: int) -> None:
        async with httpx.AsyncClient(base_url=url, timeout=60) as made:
            for one in itertools.cycle(KINDS[first:] + KINDS[:first]):
                if over.is_set():
                    return
                answer = await made.post(f"/{one.task}", json=one.body, headers=one.headers)
                sent[one.task, outcome_of(answer)] += 1

    clients = asyncio.gather(*(client(first) for first in (0, 5, 10)))
    await asyncio.to_thread(enough)
    over.set()
    await clients
    return sent


@pytest.fixture(scope="module")
def watched(live: Live) -> Iterator[Watched]:
    """A Prometheus that scraped the gateway before, during and after a load."""
    program("prometheus")
    with watching(live.url) as prometheus:
        began_s = now_s()

        def scrapes() -> float:
            """The number of scrapes so far."""
            return sum(one.number for one in prometheus.ask("count_over_time(punctual_build_info[1h])", now_s()))

        before = scrapes()
        sent = asyncio.run(load(live.url, lambda: wait_until(lambda: scrapes() >= before + SCRAPES)))
        ended_s = now_s()
        prometheus.await_settled()
        yield Watched(prometheus, began_s, ended_s, now_s(), sent)


def test_the_load_was_mixed(watched: Watched) -> None:
    """The load has requests in time, late, refused, invalid and too long, so that the other tests cover all of them."""
    for task, outcome in itertools.product(("classify", "summarize"), ("in_time", "late", "infeasible", "invalid")):
        assert watched.sent[task, outcome] > 0, (task, outcome, watched.sent)
    assert watched.sent["classify", "too_long"] > 0


def test_every_panel_has_data(watched: Watched) -> None:
    """Each query of each dashboard gives a figure at the end of the load."""
    asked = watched.asked()
    assert asked.queries > 60 and not asked.silent_queries


def test_every_rule_is_evaluated_and_records(watched: Watched) -> None:
    """Prometheus evaluates every rule without error, and each recorded series has a figure at the end of the load."""
    asked = watched.asked()
    assert asked.recorded > 25 and not asked.silent_rules and not asked.ailing


@pytest.mark.parametrize("task", ["classify", "summarize"])
def test_each_request_is_counted_once(watched: Watched, task: str) -> None:
    """Prometheus counts, by outcome, exactly the requests that clients sent."""
    for outcome in ("in_time", "late", *CODES.values()):
        total = f'sum(punctual_requests_total{{task="{task}",outcome="{outcome}"}})'
        (before,), (after,) = (watched.values(total, at_s) for at_s in (watched.began_s, watched.settled_s))
        assert after - before == watched.count(outcome, task=task), outcome


@pytest.mark.parametrize("task", ["classify", "summarize"])
def test_attainment_is_what_clients_saw(watched: Watched, task: str) -> None:
    """Attainment and refused share in PromQL are those that clients saw, within a hundredth."""
    seen = {
        "attainment": watched.count("in_time", task=task) / watched.offered(task),
        "refused": watched.count("infeasible", "shed", "unavailable", task=task) / watched.offered(task),
    }
    for name, share in seen.items():
        (told,) = watched.values(f'task:punctual_{name}:ratio_rate5m{{task="{task}"}}', watched.settled_s)
        assert told == pytest.approx(share, abs=0.01), name


def test_quality_that_is_lost_is_accounted_for(watched: Watched) -> None:
    """Effective quality and the losses by cause add up to the quality of the best checkpoint."""
    accounted = (
        "abs((sum by (namespace, job, instance, task) (task:punctual_quality_lost:rate1m)"
        " + task:punctual_effective_quality:rate1m)"
        " / task:punctual_best_quality:max - 1)"
    )
    gaps = watched.values(accounted, watched.settled_s)
    assert len(gaps) == 2 and max(gaps) < 0.01


def test_a_healthy_gateway_pages_nobody_about_its_replicas(watched: Watched) -> None:
    """A healthy gateway raises no alert about its replicas, even under late and refused requests."""
    firing = 'ALERTS{alertname!~"PunctualAttainment.*|PunctualRefusals.*",alertstate="firing"}'
    assert watched.values(f"count({firing}) or vector(0)", watched.settled_s) == [0.0]
