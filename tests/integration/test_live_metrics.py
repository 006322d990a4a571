"""The scrape of a running gateway: it has every process, counts every request once, and satisfies promtool."""

from __future__ import annotations

import signal
import subprocess
from collections import Counter

import httpx
import pytest
from live import Live, await_ready, hang_up, underway
from loaded_gateway import under_load
from programs import program
from prometheus_client.parser import text_string_to_metric_families
from waiting import wait_until

pytestmark = pytest.mark.ray

BODY = {"inputs": "a good film"}
PROCESSES = ("gateway", "slow", "fast", "reader", "ranker", "writer")


def scraped(url: str) -> dict[str, list[tuple[dict[str, str], float]]]:
    """Labels and values by the name of the sample."""
    families = text_string_to_metric_families(httpx.get(f"{url}/metrics", timeout=60).text)
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for sample in (sample for family in families for sample in family.samples):
        found.setdefault(sample.name, []).append((dict(sample.labels), sample.value))
    return found


def outcomes(url: str) -> Counter[str]:
    """Requests so far by outcome, over all processes."""
    counted: Counter[str] = Counter()
    for labels, value in scraped(url)["punctual_requests_total"]:
        counted[labels["outcome"]] += int(value)
    return counted


def silent(url: str) -> list[str]:
    """The deployments of the processes that did not answer."""
    return [labels["deployment"] for labels, value in scraped(url)["punctual_replica_up"] if not value]


def await_all_up(url: str) -> None:
    """Returns once every process answers."""
    wait_until(lambda: not silent(url))


def test_promtool_has_nothing_to_say(live: Live) -> None:
    """The scrape passes `promtool check metrics` without output, after requests of either task."""
    promtool = program("promtool")
    httpx.post(f"{live.url}/classify", json=BODY, timeout=60).raise_for_status()
    httpx.post(f"{live.url}/summarize", json={"inputs": "It rained. We went home."}, timeout=60).raise_for_status()
    text = httpx.get(f"{live.url}/metrics", timeout=60).content
    checked = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, check=False)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, b"")


def test_every_process_is_in_it(live: Live) -> None:
    """Every process answers the scrape, is named in its samples, and stands beside the cluster's view of it."""
    await_all_up(live.url)
    found = scraped(live.url)
    up = {(labels["deployment"], labels["replica"]): value for labels, value in found["punctual_replica_up"]}
    assert sorted(name for name, _ in up) == sorted(PROCESSES) and set(up.values()) == {1.0}
    assert {labels["replica"] for labels, _ in found["punctual_replica_self_test_passed"]} < {name for _, name in up}
    assert all(0.9 <= value <= 1 for _, value in found["punctual_replica_self_test_agreement_ratio"])
    healthy = [labels["deployment"] for labels, value in found["punctual_deployment_state"] if value]
    assert sorted(healthy) == sorted(PROCESSES)
    assert {value for _, value in found["punctual_checkpoint_self_test_failed"]} == {0.0}
    assert [labels["catalog"] for labels, _ in found["punctual_build_info"]] == ["small"]


def test_each_request_is_counted_once_through_a_replicas_death(live: Live) -> None:
    """Each request is counted once by its outcome, even while a replica is killed under load."""
    before = outcomes(live.url)
    with httpx.Client(base_url=live.url, timeout=60) as client:
        sent = [client.post("/classify", json=BODY).status_code for _ in range(5)]
        sent += [client.post("/classify", content=b"nonsense").status_code for _ in range(2)]
        terms = {"X-SLA-Mode": "strict", "X-Latency-SLA-Ms": "0.001"}
        sent += [client.post("/classify", json=BODY, headers=terms).status_code for _ in range(3)]
    assert Counter(sent) == {200: 5, 400: 2, 422: 3}
    pages = [f"It rained all of day {day}, and nobody went out. " * 30 for day in range(128)]  # writing takes seconds
    hang_up(live, "/summarize", {"inputs": pages}, X_Checkpoint="writer")
    statuses = under_load(live, live.replica("slow"), lambda statuses: statuses.total() > 200)
    await_ready(live)
    wait_until(lambda: underway(live) == 0)
    counted = outcomes(live.url)
    counted.subtract(before)
    assert counted["invalid"] == 2 and counted["infeasible"] == 3 and counted["cancelled"] == 1
    assert counted["in_time"] + counted["late"] == 5 + statuses[200]
    assert counted.total() == 11 + statuses.total()


def test_a_replica_that_hangs_is_named_and_silences_nobody(live: Live) -> None:
    """A replica that hangs is named as down and delays no other in the scrape, and is up again when it goes on."""
    hanging = live.replica("ranker")
    await_all_up(live.url)
    hanging.send_signal(signal.SIGSTOP)
    try:
        found = scraped(live.url)
        up = {labels["deployment"]: value for labels, value in found["punctual_replica_up"]}
        assert up == dict.fromkeys(PROCESSES, 1.0) | {"ranker": 0.0}
        assert any(labels["deployment"] == "ranker" and labels["replica"] for labels, _ in found["punctual_replica_up"])
    finally:
        hanging.send_signal(signal.SIGCONT)
    await_all_up(live.url)
