"""The catalog in the chart's values: it equals the gateway's, is checked field by field, and its replicas fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from rendered_chart import FULLNAME, Document, Rendered, chart, production, render
from tried import tried

from gateway.catalogs.catalog import Catalog, load_catalog
from gateway.model.deadline import MAX_BUDGET_MS
from gateway.model.tier import Tier


def catalog_in(made: Rendered, folder: Path) -> Catalog:
    """The catalog as the gateway reads it in a pod."""
    written = folder / "catalog.yaml"
    written.write_text(made.one("ConfigMap", f"{FULLNAME}-catalog")["data"]["catalog.yaml"])
    return load_catalog(written)


def test_the_default_catalog_is_the_starter_catalog(tmp_path: Path) -> None:
    """The chart's default catalog equals the starter catalog in every field."""
    assert catalog_in(render(), tmp_path) == load_catalog("starter")


def test_the_production_catalog_is_valid(tmp_path: Path) -> None:
    """The catalog of the production example is valid."""
    catalog = catalog_in(render(production()), tmp_path)
    assert catalog.ingress.replicas == 2
    assert all(entry.autoscaling for entry in catalog.checkpoints)


def test_large_limits_stay_whole_numbers(tmp_path: Path) -> None:
    """Large limits stay whole numbers, though Helm prints numbers as floats such as 1e+09."""
    values = {"catalog": {"limits": {"max_body_bytes": 1_000_000_000}}}
    assert catalog_in(render(values), tmp_path).limits.max_body_bytes == 1_000_000_000


def test_a_new_catalog_makes_new_pods_and_the_same_one_does_not() -> None:
    """A changed catalog changes its digest in every pod template, so that KubeRay makes new pods."""

    def digests(rendered: Rendered) -> set[str]:
        return {pod["metadata"]["annotations"]["checksum/catalog"] for pod in rendered.pods()}

    made = render()
    changed = render({"catalog": {"defaults": {"budget_ms": {"classify": 999}}}})
    assert len(digests(made)) == 1
    assert digests(made) == digests(render({"service": {"port": 81}}))
    assert digests(made).isdisjoint(digests(changed))


Field = dict[str, Any]


def test_the_schema_knows_the_fields_of_a_catalog() -> None:
    """The chart's schema has exactly the catalog's fields, and requires the ones that pydantic requires."""
    schema = chart().schema
    assert schema is not None
    definitions = Catalog.model_json_schema()
    _same_fields(schema["properties"]["catalog"], definitions, definitions["$defs"])
    budget = schema["properties"]["catalog"]["properties"]["defaults"]["properties"]["budget_ms"]
    assert budget["additionalProperties"]["maximum"] == MAX_BUDGET_MS


def _same_fields(ours: Field, theirs: Field, definitions: Field) -> None:
    """Walks both schemas side by side, through pydantic's references and its optional and repeated objects."""
    theirs = next((one for one in theirs.get("anyOf", ()) if one.get("type") != "null"), theirs)
    if "$ref" in theirs:
        theirs = definitions[theirs["$ref"].removeprefix("#/$defs/")]
    if theirs.get("type") == "array":
        _same_fields(ours["items"], theirs["items"], definitions)
    elif theirs.get("type") == "object" and "properties" not in theirs:
        assert ours["additionalProperties"] == theirs["additionalProperties"]
    elif theirs.get("type") == "object":
        assert ours["additionalProperties"] is False
        assert set(ours["properties"]) == set(theirs["properties"])
        assert set(ours.get("required", ())) == set(theirs.get("required", ()))
        for name, field in theirs["properties"].items():
            _same_fields(ours["properties"][name], field, definitions)
    elif "enum" in theirs:
        assert set(ours["enum"]) == set(theirs["enum"])


CHECKPOINT = st.fixed_dictionaries(
    {
        "tier": st.sampled_from(list(Tier)),
        "cpus": st.sampled_from([0.5, 1, 2, 3.5]),
        "replicas": st.integers(1, 5),
        "most": st.none() | st.integers(5, 9),
    }
)


@tried(0.25)
@given(drawn=st.lists(CHECKPOINT, min_size=1, max_size=5), ingresses=st.integers(1, 6), autoscaler=st.booleans())
def test_there_is_room_for_every_replica(drawn: list[Document], ingresses: int, autoscaler: bool) -> None:
    """The pods of a tier have room for every replica that a catalog names, and for the ingresses."""
    one = load_catalog("starter").checkpoints[0].model_dump(mode="json", exclude_none=True)
    checkpoints = []
    for at, given_ in enumerate(drawn):
        number: Document = {"replicas": given_["replicas"]}
        if given_["most"] is not None:
            number = {"autoscaling": {"min_replicas": given_["replicas"], "max_replicas": given_["most"]}}
        entry = {name: value for name, value in one.items() if name not in ("replicas", "niceness")}
        checkpoints.append({**entry, "name": f"c{at}", "tier": given_["tier"].value, "cpus": given_["cpus"], **number})
    catalog = {"ingress": {"replicas": ingresses, "cpus": 1.5}, "checkpoints": checkpoints}
    workers = render({"catalog": catalog, "autoscaler": {"enabled": autoscaler}}).workers
    spare = 0.0
    for name, group in workers.items():
        limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
        assert group["rayStartParams"]["num-cpus"] == str(limits["cpu"])
        own = [entry for entry in drawn if entry["tier"] == name]
        spare += group["replicas"] * (limits["cpu"] - sum(entry["cpus"] for entry in own))
        assert sum(entry["cpus"] for entry in own) < limits["cpu"], "one replica of each fits into one pod"
        assert group["maxReplicas"] == max(entry["most"] or entry["replicas"] for entry in own)
        assert group["minReplicas"] == (max(entry["replicas"] for entry in own) if autoscaler else group["maxReplicas"])
    assert spare >= ingresses * 1.5
