"""Who may reach the pods by the chart's NetworkPolicies, and what Prometheus scrapes.

`allowed` evaluates the policies: a pod that some policy selects accepts only what one of them allows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest
from custom_resources import faults
from rendered_chart import NAMESPACE, Document, Rendered, production, render

HTTP, DASHBOARD, GCS, TRANSPORT = 8000, 8265, 6379, 40123
NAME = "kubernetes.io/metadata.name"


@dataclass(frozen=True)
class Pod:
    """A pod as policies see it: its labels, and those of its namespace."""

    labels: Mapping[str, str]
    namespace: Mapping[str, str] = field(default_factory=lambda: {NAME: NAMESPACE})


def ray_pod(made: Rendered, kind: str) -> Pod:
    """The head or a worker, with the labels that KubeRay adds (`labelPod` in its pod.go)."""
    template = made.head if kind == "head" else next(iter(made.workers.values()))["template"]
    added = {"ray.io/is-ray-node": "yes", "ray.io/node-type": kind, "app.kubernetes.io/name": "kuberay"}
    return Pod({**added, **template["metadata"]["labels"]})


def selects(selector: Document, labels: Mapping[str, str]) -> bool:
    """Whether the labels satisfy the selector; an empty selector is satisfied by any."""
    asked: Mapping[str, str] = selector.get("matchLabels", {})
    return asked.items() <= labels.items()


def admits(peer: Document, source: Pod) -> bool:
    """Whether the peer of a rule matches that pod; without a namespaceSelector, only in the policy's own namespace."""
    if "namespaceSelector" in peer:
        if not selects(peer["namespaceSelector"], source.namespace):
            return False
    elif source.namespace[NAME] != NAMESPACE:
        return False
    return selects(peer.get("podSelector", {}), source.labels)


def allowed(made: Rendered, source: Pod, target: Pod, port: int) -> bool:
    """Whether the policies allow a connection from one pod to the other's port."""
    policies = [
        one["spec"] for one in made.of_kind("NetworkPolicy") if selects(one["spec"]["podSelector"], target.labels)
    ]
    rules = [rule for policy in policies for rule in policy["ingress"]]
    return not policies or any(
        ("ports" not in rule or port in [one["port"] for one in rule["ports"]])
        and ("from" not in rule or any(admits(peer, source) for peer in rule["from"]))
        for rule in rules
    )


STRANGER = Pod({"app": "other"}, {NAME: "elsewhere"})
NEIGHBOUR = Pod({"app": "other"})
OPERATOR = Pod({"app.kubernetes.io/name": "kuberay-operator"}, {NAME: "kuberay-system"})
PROXY = Pod({"app": "nginx"}, {NAME: "ingress-nginx"})
PROMETHEUS = Pod({"app": "prometheus"}, {NAME: "monitoring"})


@pytest.fixture(params=["default", "production"])
def made(request: pytest.FixtureRequest) -> Rendered:
    """The chart with either set of values."""
    return render(production() if request.param == "production" else {})


@pytest.mark.parametrize("port", [GCS, DASHBOARD, TRANSPORT, 8404, 10001, 30000, 52365])
@pytest.mark.parametrize("target", ["head", "worker"])
def test_rays_ports_are_for_the_releases_own_pods(made: Rendered, target: str, port: int) -> None:
    """Only the release's own pods reach Ray's ports, whose servers unpickle what they receive."""
    pod = ray_pod(made, target)
    for source in (STRANGER, NEIGHBOUR, PROXY, PROMETHEUS):
        assert not allowed(made, source, pod, port)
    for own in ("head", "worker"):
        assert allowed(made, ray_pod(made, own), pod, port)


def test_the_operator_reaches_the_dashboard_of_the_head_alone(made: Rendered) -> None:
    """The operator reaches the head's dashboard, where it submits the Serve config, and nothing else."""
    assert allowed(made, OPERATOR, ray_pod(made, "head"), DASHBOARD)
    assert not allowed(made, OPERATOR, ray_pod(made, "head"), GCS)
    assert not allowed(made, OPERATOR, ray_pod(made, "worker"), DASHBOARD)


def test_requests_come_from_where_the_values_say() -> None:
    """Requests are accepted from everywhere, or only from the peers, Prometheus and test pod if values name peers."""
    for source in (STRANGER, NEIGHBOUR):
        assert allowed(render(), source, ray_pod(render(), "worker"), HTTP)
    made = render(production())
    test = Pod(made.one("Pod")["metadata"]["labels"])
    for source in (PROXY, PROMETHEUS, test):
        assert allowed(made, source, ray_pod(made, "worker"), HTTP)
    for source in (STRANGER, NEIGHBOUR):
        assert not allowed(made, source, ray_pod(made, "worker"), HTTP)
    assert not allowed(made, test, ray_pod(made, "worker"), TRANSPORT), "it is of the release, but runs no Ray"


def test_another_release_in_the_namespace_is_a_stranger() -> None:
    """Pods of another release in the namespace do not reach this release's Ray."""
    made = render()
    other = ray_pod(made, "worker")
    other = Pod({**other.labels, "app.kubernetes.io/instance": "another"})
    assert not allowed(made, other, ray_pod(made, "worker"), TRANSPORT)


def test_what_is_scraped_counts_everything_once() -> None:
    """Prometheus scrapes the Service, one target, so that every process is counted once."""
    made = render({"scrapeConfig": {"enabled": True, "job": "gateway"}, "service": {"port": 81}})
    (static,) = made.one("ScrapeConfig")["spec"]["staticConfigs"]
    service = made.one("RayService")["spec"]["serveService"]
    namespace = made.one("RayService")["metadata"]["namespace"]
    assert static["targets"] == [f"{service['metadata']['name']}.{namespace}.svc:81"]
    assert static["labels"] == {"job": "gateway", "namespace": namespace}


def test_native_histograms_come_beside_the_classic_ones() -> None:
    """Native histograms are scraped beside the classic ones if the values say so."""
    switches = ("convertClassicHistogramsToNHCB", "scrapeClassicHistograms")
    for asked in (False, True):
        monitor = render({"scrapeConfig": {"enabled": True, "nativeHistograms": asked}}).one("ScrapeConfig")
        assert [monitor["spec"].get(switch, False) for switch in switches] == [asked, asked]
        assert not faults(monitor)


def test_the_budget_of_disruptions_is_for_workers() -> None:
    """The disruption budget keeps all workers but one, and does not select the head."""
    for most in (1, 4):
        made = render({"tiers": {"realtime": {"pods": most}}})
        budget = made.one("PodDisruptionBudget")["spec"]
        assert budget["minAvailable"] == sum(group["replicas"] for group in made.workers.values()) - 1
        assert selects(budget["selector"], ray_pod(made, "worker").labels)
        assert not selects(budget["selector"], ray_pod(made, "head").labels)
