"""A scrape of the application: silent processes are named, concurrent scrapes are one, states are read aside."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

from fakes import FakeClock
from scraped import samples, total
from waiting import until

from deployments.serve.scraping import STATES_AGE_S, ApplicationScrape, DeploymentStates, Status
from gateway.observability.metrics import Process

READ_WITHIN_S = 60.0


class Application:
    """Deployments whose processes answer as set; counts how often each is asked."""

    def __init__(self, within_s: float = 10.0, **answers: Sequence[object | None]) -> None:
        self.answers = answers
        self.asked = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.clock = FakeClock()
        self.statuses: list[Status] = []
        self.reads = 0
        self.stuck: threading.Event | None = None
        self.states = DeploymentStates(self.read, ("slow",), self.clock, within_s)
        self.scrape = ApplicationScrape(list(answers), self.ask, self.states, self.clock)

    async def ask(self, deployment: str) -> Sequence[object | None]:
        """Answers as set."""
        self.asked += 1
        await self.gate.wait()
        return self.answers[deployment]

    def read(self) -> list[Status]:
        """The statuses, once `stuck` is set."""
        self.reads += 1
        if self.stuck is not None:
            assert self.stuck.wait(60)
        return self.statuses

    async def up(self) -> dict[tuple[str, str], float]:
        """The value of `punctual_replica_up`, by deployment and name."""
        found = samples(await self.scrape.gather(), "punctual_replica_up")
        return {(one["deployment"], one["replica"]): value for one, value in found}


def told(replica: str, deployment: str = "slow") -> Process:
    """A process that answers."""
    return Process(replica, deployment, f"# HELP x_total X.\n# TYPE x_total counter\nx_total {len(replica)}\n")


async def test_a_silent_replica_is_named_as_it_was_known() -> None:
    """A silent replica is down under the name it had, until it answers or no process of its deployment is silent."""
    application = Application(slow=[told("s-1"), told("s-2")], gateway=[told("g-1", "gateway")])
    everybody = {("slow", "s-1"): 1.0, ("slow", "s-2"): 1.0, ("gateway", "g-1"): 1.0}
    assert await application.up() == everybody
    application.answers["slow"] = [None, told("s-1")]
    assert await application.up() == everybody | {("slow", "s-2"): 0.0}
    assert len(samples(await application.scrape.gather(), "x_total")) == 2
    application.answers["slow"] = [told("s-2"), told("s-1")]
    assert await application.up() == everybody
    application.answers["slow"] = [told("s-1")]
    assert await application.up() == {("slow", "s-1"): 1.0, ("gateway", "g-1"): 1.0}


async def test_a_deployment_without_anybody_is_down_and_not_absent() -> None:
    """A deployment without processes is down under the names it had, or unnamed, and never absent."""
    application = Application(slow=[])
    assert await application.up() == {("slow", ""): 0.0}
    application.answers["slow"] = [told("s-1"), None]
    assert await application.up() == {("slow", "s-1"): 1.0, ("slow", ""): 0.0}
    application.answers["slow"] = []
    assert await application.up() == {("slow", "s-1"): 0.0}


async def test_scrapes_that_come_while_one_is_under_way_share_it() -> None:
    """Scrapes that come while one is under way share it, even if one of them leaves; the next asks anew."""
    application = Application(slow=[told("s-1")], fast=[told("f-1", "fast")])
    application.gate.clear()
    scrapes = [asyncio.create_task(application.scrape.gather()) for _ in range(5)]
    await until(lambda: application.asked == 2)
    scrapes[0].cancel()
    application.gate.set()
    texts = await asyncio.gather(*scrapes, return_exceptions=True)
    assert application.asked == 2 and isinstance(texts[0], asyncio.CancelledError) and len(set(texts[1:])) == 1
    await application.scrape.gather()
    assert application.asked == 4


def status(state: str, message: str = "") -> Status:
    """The status of the deployment `slow`."""
    return Status("slow", state, {"running": 1}, message)


async def scraped_state(application: Application) -> tuple[float, float]:
    """If the deployment is healthy and if its self-test failed, once the states have been read."""
    await application.scrape.gather()
    await until(lambda: application.states._reading is None)
    text = await application.scrape.gather()
    async with asyncio.timeout(READ_WITHIN_S):
        while application.statuses and not total(
            text, "punctual_deployment_state", deployment="slow", state=application.statuses[0].state
        ):
            text = await application.scrape.gather()
    healthy = total(text, "punctual_deployment_state", deployment="slow", state="healthy")
    return healthy, total(text, "punctual_checkpoint_self_test_failed", checkpoint="slow")


async def test_a_failed_self_test_is_told_until_the_checkpoint_is_healthy() -> None:
    """A failed self-test is reported until the checkpoint is healthy, even after Ray Serve's message has changed."""
    application = Application(slow=[told("s-1")])
    rejected = "deployments.replica.variant.VariantRejected: slow: model.onnx: expected sha256 1, got 2"
    history = [("healthy", ""), ("updating", rejected), ("unhealthy", "retrying"), ("healthy", "")]
    for at, (state, message) in enumerate(history):
        application.statuses = [status(state, message)]
        application.clock.advance(1.01 * STATES_AGE_S)
        failed = at in (1, 2)
        assert await scraped_state(application) == (float(state == "healthy"), float(failed)), at
        assert application.reads == at + 1


async def test_a_controller_that_hangs_holds_no_scrape_up() -> None:
    """A controller that hangs holds up no scrape for longer than a replica would, and is not asked twice at once."""
    application = Application(within_s=0.05, slow=[told("s-1")])
    application.stuck = threading.Event()
    application.statuses = [status("healthy")]
    for _ in range(3):
        text = await application.scrape.gather()
        assert samples(text, "punctual_deployment_state") == [] and samples(text, "x_total")
        application.clock.advance(1.01 * STATES_AGE_S)
    assert application.reads == 1
    application.stuck.set()
    assert await scraped_state(application) == (1.0, 0.0)


async def test_states_that_cannot_be_read_are_told_as_they_were() -> None:
    """States that cannot be read are reported as they were last."""
    application = Application(slow=[told("s-1")])
    application.statuses = [status("healthy")]
    assert await scraped_state(application) == (1.0, 0.0)
    application.statuses = []
    application.clock.advance(1.01 * STATES_AGE_S)
    await application.scrape.gather()
    await until(lambda: application.reads == 2)
    assert await scraped_state(application) == (1.0, 0.0)
