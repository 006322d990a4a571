"""The application as a RayService runs it, on a cluster of two nodes: built, upgraded in place, scaled by its load."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import yaml
from certificates import Authority
from live import free_port
from prometheus_client.parser import text_string_to_metric_families

from deployments.serve.kubernetes import LINGER_S

pytestmark = pytest.mark.ray

CLUSTER = Path(__file__).parents[1] / "served_cluster.py"
EVERY_S = 0.05
AUTOSCALING = {
    "max_replicas": 2,
    "target_busy_share": 0.02,  # a load that two busy cores still make besides
    "upscale_delay_s": 0.0,
    "downscale_delay_s": 2.0,
}


@dataclass(frozen=True)
class Cluster:
    """A running cluster: where HAProxy answers, and the arguments that the application is built with."""

    url: str
    process: subprocess.Popen[str]
    arguments: dict[str, object]
    folder: Path

    def deploy(self, catalog: Path) -> None:
        """Gives Serve the config with this catalog; what runs already is upgraded."""
        self._ask(json.dumps({**self.arguments, "catalog": str(catalog)}))

    def standing(self) -> dict[str, object]:
        """What Serve says of the application."""
        return self._ask("")

    def running(self, deployment: str) -> int:
        """How many replicas of a deployment run."""
        running = self.standing().get("running")
        return int(running.get(deployment, 0)) if isinstance(running, dict) else 0

    def _ask(self, line: str) -> dict[str, object]:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        return read_answer(self.process)


def read_answer(process: subprocess.Popen[str]) -> dict[str, object]:
    """The next line of JSON; Ray may write others."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("{"):
            answer: dict[str, object] = json.loads(line)
            return answer
    raise AssertionError("the cluster ended")


def until(holds: Callable[[], bool], within_s: float) -> None:
    """Returns once it holds; fails the test if that takes too long."""
    give_up_s = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < give_up_s, f"not within {within_s:.0f} s"
        time.sleep(0.3)


def classifiers(catalog: Path, name: str, **fields: object) -> Path:
    """A catalog of the two small classifiers beside the given one, `slow` with further fields; where it lies."""
    document = yaml.safe_load(catalog.read_text())
    entries = [entry for entry in document["checkpoints"] if entry["task"] == "classify"]
    entries[0].update(fields)
    ingress = {"replicas": 2 if fields else 1}
    path = catalog.parent / f"{name}.yaml"
    path.write_text(yaml.safe_dump({"name": name, "ingress": ingress, "checkpoints": entries}))
    return path


@pytest.fixture(scope="module")
def cluster(small_catalog: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster to which the first catalog is deployed."""
    folder = tmp_path_factory.mktemp("cluster")
    catalog, cache = small_catalog
    before = classifiers(catalog, "before")
    prepare = [sys.executable, "-m", "punctual", "prepare", "--catalog", str(before), "--cache", str(cache)]
    subprocess.run(prepare, check=True, stdout=subprocess.DEVNULL)
    certificates = Authority.made().write(folder / "certificates")
    port = free_port()
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, str(CLUSTER), str(port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            bufsize=1,
        )
    assert process.stdin is not None and process.stdout is not None
    arguments = {"cache": str(cache), "transport_certificates": str(certificates.folder), "tier_resources": True}
    made = Cluster(f"http://127.0.0.1:{port}", process, arguments, catalog.parent)
    try:
        read_answer(process)
        made.deploy(before)
        until(lambda: is_ready(made.url), 120)
        yield made
    finally:
        with process.stdout:
            process.stdin.close()
            process.wait(timeout=90)


def is_ready(url: str) -> bool:
    """Whether `/readyz` says so."""
    try:
        return httpx.get(f"{url}/readyz", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


async def meanwhile(url: str, every_s: float, act: Callable[[], None]) -> Counter[object]:
    """Requests in an open loop while something is done, to one checkpoint and the other; what became of them."""
    ends: Counter[object] = Counter()
    done = asyncio.Event()

    async def one(client: httpx.AsyncClient, number: int) -> None:
        pinned = {"X-Checkpoint": ("slow", "fast")[number % 2]}
        try:
            answer = await client.post("/classify", json={"inputs": "a good film"}, headers=pinned)
        except httpx.TransportError as error:
            ends[type(error).__name__] += 1
        else:
            ends[200 if answer.status_code == 200 else answer.text] += 1

    async def arrivals() -> None:
        limits = httpx.Limits(max_keepalive_connections=0)  # a client's own race with a closing server is not ours
        async with httpx.AsyncClient(base_url=url, timeout=20, limits=limits) as client, asyncio.TaskGroup() as group:
            number = 0
            while not done.is_set():
                group.create_task(one(client, number))
                number += 1
                await asyncio.sleep(every_s)

    arriving = asyncio.create_task(arrivals())
    await asyncio.to_thread(act)
    done.set()
    await arriving
    return ends


def counted(url: str) -> dict[str, float]:
    """How many requests each ingress has counted, by its name in one scrape."""
    sums: dict[str, float] = {}
    for family in text_string_to_metric_families(httpx.get(f"{url}/metrics", timeout=10).text):
        for sample in family.samples:
            if sample.name == "punctual_requests_total":
                replica = sample.labels["replica"]
                sums[replica] = sums.get(replica, 0.0) + sample.value
    return sums


def test_checkpoints_of_every_node_answer(cluster: Cluster) -> None:
    """Each tier's replicas run on nodes of its own; the ingress reaches those of its node and those of the other."""
    for checkpoint in ("slow", "fast"):
        answer = httpx.post(
            f"{cluster.url}/classify", json={"inputs": "a good film"}, headers={"X-Checkpoint": checkpoint}
        )
        assert (answer.status_code, answer.headers["x-checkpoint"]) == (200, checkpoint)


def test_an_application_that_cannot_be_built_leaves_the_old_one_serving(
    cluster: Cluster, small_catalog: tuple[Path, Path]
) -> None:
    """A catalog whose variants are not prepared is refused with the command that makes them."""
    cluster.deploy(classifiers(small_catalog[0], "unprepared", threads=2))
    until(lambda: cluster.standing()["status"] == "DEPLOY_FAILED", 60)
    assert "punctual prepare --catalog" in str(cluster.standing()["said"])
    assert is_ready(cluster.url)


def test_an_upgrade_in_place_loses_no_request(cluster: Cluster, small_catalog: tuple[Path, Path]) -> None:
    """Every process is replaced while requests come in, and one ingress by two: each request is answered."""
    after = classifiers(small_catalog[0], "after", autoscaling=AUTOSCALING)

    def upgrade() -> None:
        time.sleep(1)
        cluster.deploy(after)
        until(lambda: cluster.standing()["status"] == "RUNNING" and cluster.running("gateway") == 2, 90)
        time.sleep(LINGER_S + 3)  # until the old have gone

    ends = asyncio.run(meanwhile(cluster.url, EVERY_S, upgrade))
    assert set(ends) == {200}, ends
    assert ends[200] > 100
    assert is_ready(cluster.url)


def test_any_ingress_tells_the_metrics_of_all(cluster: Cluster) -> None:
    """Requests that two ingresses divide between them are counted once each, whichever is asked."""
    before = counted(cluster.url)
    for _ in range(40):
        assert httpx.post(f"{cluster.url}/classify", json={"inputs": "a good film"}).status_code == 200
    for _ in range(4):
        now = counted(cluster.url)
        more = {replica: now[replica] - before.get(replica, 0.0) for replica in now}
        assert sum(more.values()) == 40
        assert len(more) == 2 and min(more.values()) > 0, more


def test_replicas_follow_the_load_and_lose_no_request(cluster: Cluster) -> None:
    """A load makes a second replica appear, and its end removes one, while requests go on being answered."""
    until(lambda: cluster.running("slow") == 1, 60)

    def grow() -> None:
        until(lambda: cluster.running("slow") == 2, 60)
        time.sleep(6)  # until the ingresses have found it

    def shrink() -> None:
        until(lambda: cluster.running("slow") == 1, 60)
        time.sleep(LINGER_S + 2)

    grown = asyncio.run(meanwhile(cluster.url, 0.005, grow))
    shrunk = asyncio.run(meanwhile(cluster.url, 0.5, shrink))
    assert set(grown) == set(shrunk) == {200}, (grown, shrunk)
