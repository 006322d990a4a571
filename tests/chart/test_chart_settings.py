"""Settings that chart and code share are equal: Ray's switches, arguments, ports, paths, periods and versions."""

from __future__ import annotations

import itertools
import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from rendered_chart import CHART, FULLNAME, ROOT, Document, Rendered, chart, render

from deployments.serve import kubernetes
from deployments.serve.environment import cluster_environment
from gateway.api import app
from gateway.api.openapi import openapi_document
from gateway.catalogs.catalog import load_catalog
from gateway.model.tier import Tier
from gateway.tasks import TASKS

RAYS_OWN = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # raised when Ray is imported
PREPARE = re.compile(r"punctual prepare --catalog (\S+) --cache (\S+)")


@pytest.fixture(scope="module")
def made() -> Rendered:
    """The chart with its default values."""
    return render()


def ray_containers(made: Rendered) -> list[Document]:
    """The Ray containers of the head and of each group."""
    return [pod["spec"]["containers"][0] for pod in made.pods()]


def test_every_process_has_rays_switches(made: Rendered) -> None:
    """The head and all workers have every variable of `cluster_environment`, and a writable HOME."""
    for container in ray_containers(made):
        assert {one["name"]: one["value"] for one in container["env"]} == {**cluster_environment(), "HOME": "/tmp"}


def test_the_application_takes_the_arguments(made: Rendered) -> None:
    """The application's arguments are valid, and each path in them is mounted in every pod."""
    (application,) = made.serve_config()["applications"]
    assert application["import_path"] == f"{kubernetes.__name__}:{kubernetes.build.__name__}"
    assert (application["name"], application["route_prefix"]) == ("punctual", None)
    arguments = kubernetes.Arguments.model_validate(application["args"])
    assert arguments.tier_resources
    for container in ray_containers(made):
        mounted = {mount["mountPath"] for mount in container["volumeMounts"]}
        for folder in (Path(arguments.catalog).parent, arguments.cache, arguments.transport_certificates):
            assert str(folder) in mounted


def test_what_is_prepared_is_what_is_served(made: Rendered) -> None:
    """The init container prepares the application's own catalog in the application's own cache."""
    arguments = made.serve_config()["applications"][0]["args"]
    for pod in made.pods():
        (prepare,) = pod["spec"]["initContainers"]
        found = PREPARE.search(prepare["args"][0])
        assert found is not None
        assert found.groups() == (arguments["catalog"], arguments["cache"])


def test_a_baked_image_is_served_as_it_is() -> None:
    """With a baked image nothing is prepared or mounted, and its cache is where the Dockerfile bakes variants."""
    made = render({"cache": {"kind": "image"}})
    baked = made.serve_config()["applications"][0]["args"]["cache"]
    assert f"--cache {baked}" in (ROOT / "Dockerfile").read_text()
    for pod in made.pods():
        assert "initContainers" not in pod["spec"]
        assert baked not in {mount["mountPath"] for mount in pod["spec"]["containers"][0]["volumeMounts"]}


@RAYS_OWN
def test_tiers_are_the_gateways_and_their_resource_is_what_replicas_ask_for(made: Rendered) -> None:
    """The chart has a group for each tier of the catalog, which offers the resource that replicas reserve."""
    from deployments.serve.graph import TIER_SHARE, tier_resource

    tiers = {entry.tier for entry in load_catalog("starter").checkpoints}
    assert set(made.workers) == {tier.value for tier in tiers}
    for name, group in made.workers.items():
        offered = yaml.safe_load(group["rayStartParams"]["resources"].strip("'"))
        assert offered == {tier_resource(Tier(name)): 1}
    assert 64 * TIER_SHARE <= 1
    assert made.cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


@RAYS_OWN
def test_a_pod_outlives_its_replicas(made: Rendered) -> None:
    """A pod's drain deadline exceeds the time that replicas take to retire, and its grace period exceeds both."""
    from deployments.serve.checkpoint import TransportSettings

    nowhere = Path("/nowhere")
    transport = TransportSettings(nowhere, nowhere, linger_s=kubernetes.LINGER_S, drain_s=kubernetes.DRAIN_S)
    for pod in made.pods():
        stop = " ".join(pod["spec"]["containers"][0]["lifecycle"]["preStop"]["exec"]["command"])
        deadline_s = int(re.findall(r"(?:sleep|--deadline-remaining-seconds) (\d+)", stop)[0])
        assert transport.retiring_s < deadline_s < pod["spec"]["terminationGracePeriodSeconds"]
    delay_s = made.one("RayService")["spec"]["rayClusterDeletionDelaySeconds"]
    assert delay_s > load_catalog("starter").budget_s("summarize")


def test_one_port_from_the_service_to_the_ingress() -> None:
    """The HTTP port is set once and used by the ingresses, containers, the probe and policies."""
    made = render({"http": {"port": 8123}})
    (application,) = made.serve_config()["applications"]
    assert (application["args"]["host"], application["args"]["port"]) == ("0.0.0.0", 8123)  # noqa: S104  # a pod's own
    assert made.serve_config()["proxy_location"] == "Disabled"
    for container in ray_containers(made):
        assert {"name": "serve", "containerPort": 8123} in container["ports"]
    for group in made.workers.values():
        probe = group["template"]["spec"]["containers"][0]["readinessProbe"]["exec"]["command"]
        assert "/dev/tcp/127.0.0.1/8123" in probe[-1]
    (_, open_to_all) = made.one("NetworkPolicy", FULLNAME)["spec"]["ingress"]
    assert open_to_all == {"ports": [{"protocol": "TCP", "port": 8123}]}
    assert made.one("RayService")["spec"]["serveService"]["spec"]["ports"][0]["targetPort"] == "serve"


def test_paths_are_the_gateways_own(made: Rendered) -> None:
    """The probed and scraped paths are among those that the gateway answers."""
    paths = openapi_document(TASKS.values())["paths"]
    assert isinstance(paths, dict)
    probes = chart().values["probes"]
    scrape = render({"scrapeConfig": {"enabled": True}}).one("ScrapeConfig")["spec"]
    assert {probes["readyPath"], probes["alivePath"], scrape["metricsPath"]} <= {*paths, *app.PROBES}


def test_an_ingress_that_ends_leaves_the_service_first() -> None:
    """A retired ingress serves on until its pod's readiness probe has failed, and ends within the pod's drain."""
    probes = chart().values["probes"]
    noticed_s = probes["failureThreshold"] * (probes["periodSeconds"] + probes["timeoutSeconds"])
    assert noticed_s < kubernetes.LEAVE_S
    assert chart().values["drain"]["deadlineSeconds"] > kubernetes.LEAVE_S + kubernetes.DRAIN_S


@pytest.mark.parametrize(("replicas", "pods", "ingresses"), [(1, 1, 3), (1, 3, 5), (5, 1, 5)])
def test_each_pod_has_an_ingress(replicas: int, pods: int, ingresses: int) -> None:
    """There are as many ingresses as pods at least, since a pod without one is never ready."""
    made = render({"catalog": {"ingress": {"replicas": replicas}}, "tiers": {"realtime": {"pods": pods}}})
    (application,) = made.serve_config()["applications"]
    assert application["args"]["ingresses"] == ingresses


def test_versions_are_those_that_are_tested(made: Rendered) -> None:
    """The chart's Ray version is the locked one, and its default image is of the project's version."""
    assert made.cluster["rayVersion"] == version("ray")
    assert f"ray=={version('ray')} \\\n" in (ROOT / "requirements" / "serve.txt").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert chart().metadata["appVersion"] == project["version"]


def test_the_user_is_the_images(made: Rendered) -> None:
    """Pods run as the user that owns the files in the image."""
    dockerfile = (ROOT / "Dockerfile").read_text()
    found = re.search(r"--uid (\d+)", dockerfile)
    assert found is not None
    for pod in made.pods():
        security = pod["spec"]["securityContext"]
        assert security["runAsUser"] == security["runAsGroup"] == security["fsGroup"] == int(found[1])


def test_every_value_is_explained() -> None:
    """Every value at the top of values.yaml has a comment above it or beside it."""
    lines = (CHART / "values.yaml").read_text().splitlines()
    silent = [
        line
        for before, line in itertools.pairwise(lines)
        if re.match(r"\w+:", line) and "#" not in line and not before.startswith("#")
    ]
    assert silent == []
