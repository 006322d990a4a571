"""The application as a RayService runs it, on a cluster of two nodes: built, upgraded in place, autoscaled."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
import pytest
import yaml
from certificates import Authority
from live import free_port, mark_of
from prometheus_client.parser import text_string_to_metric_families
from waiting import wait_until

pytestmark = pytest.mark.ray

CLUSTER = Path(__file__).parents[1] / "support" / "served_cluster.py"
EVERY_S = 0.05
MOST_AT_ONCE = 16
WITHIN_S = 240.0
"""How long replicas may take to come and go, on a busy machine too."""
AUTOSCALING = {
    "max_replicas": 2,
    "target_busy_share": 0.002,  # ten requests a second exceed it, one every 2 s does not, on a busy machine too
    "upscale_delay_s": 0.0,
    "downscale_delay_s": 2.0,
}


@dataclass(frozen=True)
class Cluster:
    """A running cluster: where its ingresses answer, and the arguments that the application is built with."""

    url: str
    process: subprocess.Popen[str]
    arguments: dict[str, object]
    session: str
    deployed: list[Path] = field(default_factory=list)

    def deploy(self, catalog: Path) -> None:
        """Gives Serve the config with this catalog; what runs already is upgraded."""
        self.deployed.append(catalog)
        self._ask(json.dumps({**self.arguments, "catalog": str(catalog)}))

    def standing(self) -> dict[str, object]:
        """What Serve says of the application."""
        return self._ask("")

    def settled(self, **replicas: int) -> bool:
        """True if these replicas of some deployments run, and none of any starts or stops."""
        standing = self.standing()
        running = standing.get("running")
        return (
            isinstance(running, dict)
            and (standing["status"], standing["moving"]) == ("RUNNING", 0)
            and all(running.get(name) == count for name, count in replicas.items())
        )

    def _ask(self, line: str) -> dict[str, object]:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        return read_answer(self.process)


def read_answer(process: subprocess.Popen[str]) -> dict[str, object]:
    """The next line of JSON."""
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, "the cluster ended"
    answer: dict[str, object] = json.loads(line)
    return answer


def classifiers(catalog: Path, name: str, **fields: object) -> Path:
    """The path of a catalog with the two small classifiers, `slow` with the given fields."""
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
            [sys.executable, str(CLUSTER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            bufsize=1,
        )
    assert process.stdin is not None and process.stdout is not None
    arguments = {
        "cache": str(cache),
        "transport_certificates": str(certificates.folder),
        "port": port,
        "tier_resources": True,
    }
    try:
        made = Cluster(f"http://127.0.0.1:{port}", process, arguments, str(read_answer(process)["folder"]))
        made.deploy(before)
        wait_until(lambda: is_ready(made.url), WITHIN_S)
        yield made
    finally:
        with process.stdout:
            process.stdin.close()
            process.wait(timeout=240)


def ingresses(cluster: Cluster) -> list[psutil.Process]:
    """The processes of the cluster's ingresses; Ray puts the deployment's name into their titles."""
    return [
        process
        for process in psutil.process_iter()
        if mark_of(process) == cluster.session and "ServeReplica:punctual:gateway" in " ".join(process.cmdline())
    ]


def is_ready(url: str) -> bool:
    """True if `/readyz` says so."""
    try:
        return httpx.get(f"{url}/readyz", timeout=60).status_code == 200
    except httpx.TransportError:
        return False


async def meanwhile(url: str, every_s: float, act: Callable[[Counter[object]], None]) -> Counter[object]:
    """The outcomes of requests in an open loop, to both checkpoints in turn, while `act` runs.

    At most `MOST_AT_ONCE` are under way, so that a slow machine is asked less often.
    """
    ends: Counter[object] = Counter()
    done, places = asyncio.Event(), asyncio.Semaphore(MOST_AT_ONCE)

    async def one(client: httpx.AsyncClient, number: int) -> None:
        pinned = {"X-Checkpoint": ("slow", "fast")[number % 2]}
        try:
            answer = await client.post("/classify", json={"inputs": "a good film"}, headers=pinned)
        except httpx.TransportError as error:
            ends[type(error).__name__] += 1
        else:
            ends[200 if answer.status_code == 200 else answer.text] += 1
        finally:
            places.release()

    async def arrivals() -> None:
        limits = httpx.Limits(max_keepalive_connections=0)  # a client's own race with a closing server is not ours
        async with httpx.AsyncClient(base_url=url, timeout=60, limits=limits) as client, asyncio.TaskGroup() as group:
            for number in itertools.count():
                await places.acquire()
                group.create_task(one(client, number))
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(done.wait(), every_s)
                    return

    arriving = asyncio.create_task(arrivals())
    await asyncio.to_thread(act, ends)
    done.set()
    await arriving
    return ends


def counted(url: str) -> dict[str, float]:
    """The requests that each ingress has counted, by its name in one scrape."""
    sums: dict[str, float] = {}
    for family in text_string_to_metric_families(httpx.get(f"{url}/metrics", timeout=60).text):
        for sample in family.samples:
            if sample.name == "punctual_requests_total":
                replica = sample.labels["replica"]
                sums[replica] = sums.get(replica, 0.0) + sample.value
    return sums


def linked_to(url: str, checkpoint: str) -> int:
    """The number of replicas of a checkpoint that the answering ingress has found."""
    document = httpx.get(f"{url}/checkpoints", timeout=60).json()
    (found,) = [one for one in document["checkpoints"] if one["name"] == checkpoint]
    replicas: int = found["load"]["replicas_up"]
    return replicas


def test_checkpoints_of_every_node_answer(cluster: Cluster) -> None:
    """The ingress reaches checkpoints on its own node and on the other one."""
    for checkpoint in ("slow", "fast"):
        pinned = {"X-Checkpoint": checkpoint}
        answer = httpx.post(f"{cluster.url}/classify", json={"inputs": "a good film"}, headers=pinned, timeout=60)
        assert (answer.status_code, answer.headers["x-checkpoint"]) == (200, checkpoint)


@pytest.fixture(scope="module")
def upgraded(cluster: Cluster, small_catalog: tuple[Path, Path]) -> Counter[object]:
    """The outcomes of requests while the cluster was upgraded in place to the second catalog."""
    after = classifiers(small_catalog[0], "after", autoscaling=AUTOSCALING)

    def upgrade(ends: Counter[object]) -> None:
        wait_until(lambda: ends.total() > 20, WITHIN_S)
        cluster.deploy(after)
        wait_until(lambda: cluster.settled(gateway=2), WITHIN_S)
        told = ends.total()
        wait_until(lambda: ends.total() > told + 40, WITHIN_S)

    return asyncio.run(meanwhile(cluster.url, EVERY_S, upgrade))


def test_an_upgrade_in_place_loses_no_request(cluster: Cluster, upgraded: Counter[object]) -> None:
    """An upgrade in place answers every request, though each process and the ingress are replaced."""
    assert set(upgraded) == {200}, upgraded
    assert upgraded[200] > 60
    assert is_ready(cluster.url)


@pytest.fixture(scope="module")
def refused(cluster: Cluster, upgraded: Counter[object], small_catalog: tuple[Path, Path]) -> dict[str, object]:
    """What Serve said of a catalog without prepared variants; the one before it is deployed again."""
    good = cluster.deployed[-1]
    cluster.deploy(classifiers(small_catalog[0], "unprepared", threads=2))
    wait_until(lambda: cluster.standing()["status"] == "DEPLOY_FAILED", WITHIN_S)
    standing = {**cluster.standing(), "ready": is_ready(cluster.url)}
    cluster.deploy(good)
    wait_until(cluster.settled, WITHIN_S)
    return standing


def test_an_application_that_cannot_be_built_leaves_the_old_one_serving(refused: dict[str, object]) -> None:
    """A catalog without prepared variants is refused with the command for them, and the old application serves on."""
    assert "punctual prepare --catalog" in str(refused["said"])
    assert refused["ready"]


@pytest.mark.usefixtures("upgraded")
def test_any_ingress_tells_the_metrics_of_all(cluster: Cluster) -> None:
    """Any of two ingresses reports the requests of both, each counted once."""
    before = counted(cluster.url)
    for _ in range(40):
        asked = httpx.post(f"{cluster.url}/classify", json={"inputs": "a good film"}, timeout=60)
        assert asked.status_code == 200
    for _ in range(4):
        now = counted(cluster.url)
        more = {replica: now[replica] - before.get(replica, 0.0) for replica in now}
        assert sum(more.values()) == 40
        assert len(more) == 2 and min(more.values()) > 0, more


@pytest.mark.usefixtures("upgraded")
def test_a_killed_ingress_of_two_costs_only_what_it_held(cluster: Cluster) -> None:
    """Of two ingresses, one that is killed costs only the requests that it held, and another takes its place."""
    before = ingresses(cluster)
    assert len(before) == 2

    def kill(ends: Counter[object]) -> None:
        wait_until(lambda: ends.total() > 20, WITHIN_S)
        before[0].kill()
        told = ends.total()
        wait_until(lambda: ends.total() > told + 100, WITHIN_S)
        wait_until(lambda: cluster.settled(gateway=2), WITHIN_S)

    ends = asyncio.run(meanwhile(cluster.url, EVERY_S, kill))
    assert ends.total() - ends[200] <= MOST_AT_ONCE, ends
    assert set(ends) <= {200, "ReadError", "RemoteProtocolError", "ConnectError"}, ends
    wait_until(lambda: len(ingresses(cluster)) == 2, WITHIN_S)


@pytest.mark.usefixtures("refused")
def test_replicas_follow_the_load_and_lose_no_request(cluster: Cluster) -> None:
    """A load starts a second replica and its end retires one, and every request is answered.

    Also after a catalog that was refused, and the same one deployed again.
    """
    wait_until(lambda: cluster.settled(slow=1), WITHIN_S, lambda: str(cluster.standing()))

    def linked() -> bool:
        """True if both ingresses, asked several times, have found two replicas."""
        return {linked_to(cluster.url, "slow") for _ in range(8)} == {2}

    def grow(ends: Counter[object]) -> None:
        wait_until(lambda: cluster.settled(slow=2), WITHIN_S, lambda: str(cluster.standing()))
        wait_until(linked, WITHIN_S)

    def shrink(ends: Counter[object]) -> None:
        wait_until(lambda: cluster.settled(slow=1), WITHIN_S, lambda: str(cluster.standing()))

    grown = asyncio.run(meanwhile(cluster.url, 0.005, grow))
    shrunk = asyncio.run(meanwhile(cluster.url, 1.0, shrink))
    assert set(grown) == set(shrunk) == {200}, (grown, shrunk)
