"""Laws of the application that a RayService builds: its arguments, what it refuses, and what every pod must have."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from certificates import Authority
from small_variants import write_variant

from deployments.replica.prepared import NotPrepared, note_prepared, prepared_variants
from deployments.serve import environment, kubernetes
from deployments.serve.kubernetes import BuildError, arguments_of, build
from gateway.catalogs.catalog import Catalog, CatalogError, load_catalog

CATALOG = """\
name: two
ingress: {replicas: 3, cpus: 0.5}
checkpoints:
  - name: small
    task: classify
    tier: realtime
    family: sum
    source: starter:small
    cpus: 2
    replicas: 2
    quality: {metric: accuracy, value: 80.0, data_set: none, reference: none}
    licence: MIT
  - name: large
    task: classify
    tier: quality
    family: sum
    source: starter:large
    autoscaling: {min_replicas: 2, max_replicas: 5}
    quality: {metric: accuracy, value: 90.0, data_set: none, reference: none}
    licence: MIT
"""


@pytest.fixture
def arguments(tmp_path: Path) -> dict[str, Any]:
    """Correct arguments, except that no variant is prepared yet."""
    (tmp_path / "catalog.yaml").write_text(CATALOG)
    Authority.made().write(tmp_path / "certificates")
    paths = {"catalog": "catalog.yaml", "cache": "cache", "transport_certificates": "certificates"}
    return {name: str(tmp_path / path) for name, path in paths.items()}


def prepared(arguments: dict[str, Any]) -> Catalog:
    """The catalog, with its variants noted as prepared."""
    catalog, cache = load_catalog(arguments["catalog"]), Path(arguments["cache"])
    for entry in catalog.checkpoints:
        folder = cache / "variants" / entry.name / "onnx-fp32"
        write_variant(folder)
        note_prepared(cache, entry, folder)
    return catalog


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"catalog": ""}, "args.catalog: String should have at least 1 character"),
        ({"cache": 5}, "args.cache: "),
        ({"acces_log": "-"}, "args.acces_log: Extra inputs are not permitted"),
        ({"tier_resources": "perhaps"}, "args.tier_resources: Input should be a valid boolean"),
        ({"transport_certificates": "/no"}, "args.transport_certificates: /no/ca.crt: No such file or directory"),
    ],
)
def test_a_wrong_argument_is_named(arguments: dict[str, Any], change: dict[str, Any], fault: str) -> None:
    """A wrong argument is named, with what is wrong with it."""
    with pytest.raises(BuildError, match=fault):
        arguments_of({**arguments, **change})


def test_a_missing_argument_is_named(arguments: dict[str, Any]) -> None:
    """All missing arguments without a default are named at once."""
    with pytest.raises(BuildError) as refused:
        arguments_of({})
    assert [line.partition(":")[0] for line in str(refused.value).splitlines()] == [
        f"args.{name}" for name in arguments
    ]


def test_certificates_that_would_let_nobody_in_are_refused(arguments: dict[str, Any]) -> None:
    """Expired certificates are refused before a pod is placed, and no message or setting quotes a file."""
    folder = Path(arguments["transport_certificates"])
    body = (folder / "tls.key").read_text().splitlines()[1]
    assert body not in repr(arguments_of(arguments))
    Authority.made().write(folder, expired=True)
    with pytest.raises(BuildError, match=r"args\.transport_certificates: .*certificate has expired") as refused:
        arguments_of(arguments)
    assert (folder / "tls.key").read_text().splitlines()[1] not in str(refused.value)


def test_a_faulty_catalog_is_told_by_its_lines(arguments: dict[str, Any]) -> None:
    """A faulty catalog is refused in the words of `punctual catalog check`."""
    Path(arguments["catalog"]).write_text(CATALOG.replace("replicas: 3", "replicas: 0"))
    with pytest.raises(CatalogError, match=r"catalog\.yaml:2: ingress\.replicas: must be at least 1"):
        build(arguments)


def test_what_is_not_prepared_is_named_with_the_command(arguments: dict[str, Any]) -> None:
    """A variant that is not prepared is named, with the command that makes it."""
    with pytest.raises(NotPrepared) as refused:
        build(arguments)
    catalog, cache = arguments["catalog"], arguments["cache"]
    assert str(refused.value) == (
        f"{cache} holds no variant of small, large; run: punctual prepare --catalog {catalog} --cache {cache}"
    )


def test_prepared_variants_are_found_by_what_decides_on_them(arguments: dict[str, Any]) -> None:
    """A variant must be prepared anew for another source or precision or if its folder is lost, not for more cores."""
    catalog, cache = prepared(arguments), Path(arguments["cache"])
    found = prepared_variants(catalog, "c", cache)
    assert found == {name: cache / "variants" / name / "onnx-fp32" for name in ("small", "large")}
    path = Path(arguments["catalog"])
    for change, missing in (
        (("cpus: 2", "cpus: 4"), None),
        (("starter:small", "starter:other"), "small"),
        (("starter:large", "starter:large\n    precision: [fp32]"), "large"),
    ):
        path.write_text(CATALOG.replace(*change))
        if missing is None:
            assert prepared_variants(load_catalog(path), "c", cache) == found
        else:
            with pytest.raises(NotPrepared, match=f"no variant of {missing};"):
                prepared_variants(load_catalog(path), "c", cache)
    next(found["small"].glob("manifest.json")).unlink()
    with pytest.raises(NotPrepared, match="no variant of small;"):
        prepared_variants(catalog, "c", cache)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Ray's own warning, on import
def test_the_graph_is_as_the_catalog_says(arguments: dict[str, Any]) -> None:
    """The graph has the catalog's processes, cores and tiers, and new replicas are ready before old ones go."""
    prepared(arguments)
    from ray.serve._private.build_app import build_app

    built = build_app(build({**arguments, "tier_resources": True, "access_log": "off"}), name="punctual")
    graph = {deployment.name: deployment for deployment in built.deployments}
    assert set(graph) == {"small", "large", "gateway"}
    assert built.ingress_deployment_name == "gateway"
    small, large, ingress = (graph[name] for name in ("small", "large", "gateway"))
    assert (small.num_replicas, ingress.num_replicas) == (2, 3)
    scaling = large._deployment_config.autoscaling_config
    assert scaling is not None
    assert (scaling.min_replicas, scaling.max_replicas) == (2, 5)
    options = {name: deployment.ray_actor_options or {} for name, deployment in graph.items()}
    assert options["small"]["num_cpus"] == 2
    assert options["small"]["resources"] == {"tier-realtime": 0.001}
    assert options["large"]["resources"] == {"tier-quality": 0.001}
    assert options["gateway"]["num_cpus"] == 0.5
    assert options["gateway"]["runtime_env"]["env_vars"] == {"PUNCTUAL_ACCESS_LOG": "off"}
    for deployment in graph.values():
        config = deployment._deployment_config
        assert config.max_surge_percent == 100
        assert config.graceful_shutdown_timeout_s > kubernetes.LINGER_S + kubernetes.DRAIN_S


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_replicas_outlive_the_look_that_finds_their_successors() -> None:
    """A retired replica runs until each ingress has looked for its successor."""
    from deployments.serve.checkpoint import TransportSettings
    from deployments.transport.client import SETTLED_S

    assert kubernetes.LINGER_S > SETTLED_S
    transport = TransportSettings(Path("/folder"), Path("/certificates"), linger_s=1.0, drain_s=2.0)
    assert transport.retiring_s >= 5.0
    assert not any(isinstance(value, bytes) for value in asdict(transport).values())


def test_a_host_of_its_own_has_every_switch_of_a_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`punctual serve` sets the switches of a cluster, except those that are set already."""
    own = "RAY_worker_niceness"
    monkeypatch.setattr(os, "environ", {own: "3"})
    environment.configure(tmp_path)
    cluster = environment.cluster_environment()
    differing = {name for name, value in cluster.items() if os.environ[name] != value}
    assert differing == {own}
    assert os.environ.get(own) == "3"
    assert not [name for name, value in cluster.items() if str(tmp_path) in value]
