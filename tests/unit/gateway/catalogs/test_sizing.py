"""How many processes a catalog asks for: of the ingress, and of checkpoints that autoscale."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.catalogs.catalog import Catalog, CatalogEntry, CatalogError, load_catalog, parse_catalog

HEAD = "name: mine\n"
CHECKPOINTS = """\
checkpoints:
  - name: small
    task: classify
    tier: realtime
    family: BERT
    source: starter:small
    quality: {metric: accuracy, value: 87.5, data_set: SST-2, reference: measured}
    licence: MIT
"""


def load(ingress: str = "", entry: str = "") -> Catalog:
    """Return a catalog with these additional lines at its head and in its one entry."""
    content = f"{HEAD}{ingress}{CHECKPOINTS}    {entry}\n".encode()
    return parse_catalog(content, file="c.yaml", folder=Path("/models"))


def small(entry: str) -> CatalogEntry:
    """Return the one entry of such a catalog."""
    return load(entry=entry).checkpoints[0]


def faults(ingress: str = "", entry: str = "") -> list[str]:
    """Return the lines of the error that such a catalog is refused with."""
    with pytest.raises(CatalogError) as refused:
        load(ingress, entry)
    return str(refused.value).splitlines()


def test_one_ingress_and_the_written_replicas_are_the_default() -> None:
    """Without further fields there is one ingress, and replicas do not scale."""
    assert (load().ingress.replicas, load().ingress.cpus) == (1, 1.0)
    fixed = small("replicas: 3")
    assert (fixed.replicas, fixed.most_replicas, fixed.autoscaling) == (3, 3, None)
    assert not any(entry.autoscaling for name in ("starter", "hub") for entry in load_catalog(name).checkpoints)


def test_a_checkpoint_that_autoscales_begins_with_the_least() -> None:
    """A checkpoint that autoscales starts with the fewest replicas and never has more than the most."""
    wide = small("autoscaling: {min_replicas: 2, max_replicas: 5}")
    assert (wide.replicas, wide.most_replicas) == (2, 5)
    assert small("autoscaling: {max_replicas: 5}").replicas == 1
    assert small("autoscaling: {min_replicas: 2, max_replicas: 5}\n    replicas: 2").replicas == 2


@pytest.mark.parametrize(
    ("entry", "fault"),
    [
        ("{min_replicas: 3, max_replicas: 2}", "max_replicas: must be at least min_replicas, got 2"),
        ("{}", "max_replicas: is required"),
        ("{max_replicas: 65}", "max_replicas: must be at most 64, got 65"),
        ("{max_replicas: 64, min_replicas: 65}", "min_replicas: must be at most 64, got 65"),
        ("{max_replicas: 64, min_replicas: true}", "min_replicas: must be a whole number, got True"),
        ("{max_replicas: 64, min_replicas: 0}", "min_replicas: must be at least 1, got 0"),
        ("{max_replicas: 2, target_busy_share: 1}", "target_busy_share: must be less than 1.0, got 1"),
        ("{max_replicas: 2, target_backlog_ms: 0}", "target_backlog_ms: must be more than 0.0, got 0"),
        ("{max_replicas: 2, upscale_delay_s: -1}", "upscale_delay_s: must be at least 0.0, got -1"),
        ("{max_replicas: 2, downscale_delay: 1}", "downscale_delay: unknown field; did you mean downscale_delay_s?"),
    ],
)
def test_what_is_wrong_with_autoscaling_is_said_once(entry: str, fault: str) -> None:
    """A fault in the autoscaling is reported once, by file, line and field."""
    found = faults(entry=f"autoscaling: {entry}")
    assert found[0].startswith(f"c.yaml:10: checkpoints[0].autoscaling.{fault}"), found
    assert not any("replicas: " in line and "autoscaling" not in line for line in found)


def test_replicas_are_written_in_one_place() -> None:
    """A number of replicas is refused beside autoscaling, unless it equals the fewest."""
    assert faults(entry="autoscaling: {max_replicas: 2}\n    replicas: 2") == [
        "c.yaml:11: checkpoints[0].replicas: is autoscaling.min_replicas' to say where there is autoscaling"
    ]


@pytest.mark.parametrize(
    ("ingress", "fault"),
    [
        ("replicas: 17", "replicas: must be at most 16, got 17"),
        ("replicas: 0", "replicas: must be at least 1, got 0"),
        ("cpus: 0", "cpus: must be more than 0.0, got 0"),
        ("cups: 1", "cups: unknown field; did you mean cpus?"),
    ],
)
def test_the_ingress_has_bounds(ingress: str, fault: str) -> None:
    """An ingress out of bounds is refused by file, line and field."""
    assert faults(ingress=f"ingress: {{{ingress}}}\n") == [f"c.yaml:2: ingress.{fault}"]
