"""The catalog: what it promises once loaded, and how it reports a faulty file."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from gateway.catalogs.catalog import Catalog, CatalogError, EngineName, SourceKind, load_catalog, parse_catalog
from gateway.model.manifest import Precision
from gateway.model.tier import Tier

ONE = """\
name: mine
checkpoints:
  - name: small
    task: classify
    tier: realtime
    family: BERT
    source: starter:small
    quality:
      metric: accuracy
      value: 87.5
      data_set: SST-2
      reference: measured
    licence: MIT
"""
SECOND = ONE[ONE.index("  - name") :].replace("name: small", "name: large").replace("87.5", "91")


def load(text: str, folder: Path = Path("/models")) -> Catalog:
    """Return the catalog of a text, as if it were in `c.yaml`."""
    return parse_catalog(text.encode(), file="c.yaml", folder=folder)


def faults(text: str | bytes) -> list[str]:
    """Return the lines of the error that a text is refused with."""
    with pytest.raises(CatalogError) as refused:
        parse_catalog(text if isinstance(text, bytes) else text.encode(), file="c.yaml", folder=Path("/models"))
    return str(refused.value).splitlines()


@pytest.mark.parametrize("name", ["starter", "hub"])
def test_shipped_catalogs_load(name: str) -> None:
    """Every shipped catalog loads."""
    catalog = load_catalog(name)
    assert catalog.name == name
    assert catalog.checkpoints


@pytest.mark.parametrize("name", ["starter", "hub"])
def test_shipped_catalogs_offer_a_choice(name: str) -> None:
    """A shipped catalog offers several tiers for every task of several checkpoints; the best has the highest.

    Those of a domain do not count, nor does the one language model that there is.
    """
    catalog = load_catalog(name)
    for task in catalog.tasks:
        general = [entry for entry in catalog.of_task(task) if entry.domain is None]
        if len(general) < 2:
            assert task in ("generate", "tokens")
            continue
        tiers = {entry.tier for entry in general}
        assert len(tiers) > 1
        best = max(general, key=lambda entry: entry.quality.standing)
        assert best.tier is max(tiers, key=lambda tier: tier.rank)


def test_hub_sources_are_pinned() -> None:
    """A source on the Hub is pinned to a full commit, so that every download has equal weights."""
    for entry in load_catalog("hub").checkpoints:
        assert entry.kind is SourceKind.HUB
        assert entry.revision is not None
        assert len(entry.revision) == 40


def test_sound_defaults() -> None:
    """An entry's variant and resources, the budgets and the limits have defaults."""
    catalog = load(ONE)
    entry = catalog.checkpoints[0]
    assert (entry.engine, entry.precision) == (EngineName.AUTO, (Precision.INT8, Precision.FP32, Precision.BF16))
    assert (entry.replicas, entry.cpus, entry.threads, entry.niceness) == (1, 1.0, 1, 0)
    assert (entry.kind, entry.revision, entry.domain) == (SourceKind.STARTER, None, None)
    assert catalog.budget_s("classify") == 1.0
    assert catalog.budget_s("summarize") == 10.0
    assert catalog.limits.max_body_bytes == 1 << 20
    assert catalog.limits.max_inputs == 128
    assert catalog.limits.max_input_chars == 200_000


def test_checkpoints_are_found_by_task_and_name() -> None:
    """Checkpoints are found by task, in the catalog's order, and by name; an absent one is no error."""
    catalog = load(ONE + SECOND)
    assert catalog.tasks == ("classify",)
    assert [entry.name for entry in catalog.of_task("classify")] == ["small", "large"]
    assert catalog.of_task("summarize") == ()
    assert catalog.by_name("large") is catalog.checkpoints[1]
    assert catalog.by_name("other") is None


def test_tiers_are_ordered() -> None:
    """The tiers are ordered `realtime`, `balanced`, `quality`."""
    assert Tier.REALTIME.rank < Tier.BALANCED.rank < Tier.QUALITY.rank


def test_folders_are_seen_from_the_catalog(tmp_path: Path) -> None:
    """A relative folder is relative to the catalog, wherever the gateway is started."""
    path = tmp_path / "c.yaml"
    path.write_text(ONE.replace("starter:small", "./weights"))
    entry = load_catalog(path).checkpoints[0]
    assert entry.kind is SourceKind.FOLDER
    assert Path(entry.source) == tmp_path / "weights"
    assert load(ONE.replace("starter:small", "/srv/weights")).checkpoints[0].source == "/srv/weights"


HASH = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("name: mine", "nmae: mine", "c.yaml:1: nmae: unknown field; did you mean name?"),
        ("name: mine", "name: mine\nlimit: {}", "c.yaml:2: limit: unknown field; did you mean limits?"),
        ("value: 87.5", "valeu: 87.5", "c.yaml:10: checkpoints[0].quality.valeu: unknown field; did you mean value?"),
        ("value: 87.5", "value: 101", "c.yaml:10: checkpoints[0].quality.value: must be at most 100.0, got 101"),
        ("value: 87.5", "value: .nan", "c.yaml:10: checkpoints[0].quality.value: must be a finite number, got nan"),
        ("value: 87.5", "value: good", "c.yaml:10: checkpoints[0].quality.value: must be a number, got 'good'"),
        ("    licence: MIT\n", "", "c.yaml:3: checkpoints[0].licence: is required"),
        ("licence: MIT", "licence:", "c.yaml:13: checkpoints[0].licence: must be text, got nothing"),
        ("tier: realtime", "tier: fast", "c.yaml:5: checkpoints[0].tier: must be 'realtime', 'balanced' or 'quality'"),
        (
            "task: classify",
            "task: rank",
            "c.yaml:4: checkpoints[0].task: must be 'classify', 'summarize', ",
        ),
        ("name: small", "name: Small_1", "c.yaml:3: checkpoints[0].name: must be at most 63 lower-case letters"),
        ("starter:small", "small", "c.yaml:7: checkpoints[0].source: must be starter:NAME, the Hub's OWNER/NAME, or"),
        ("starter:small", "starter:../x", "c.yaml:7: checkpoints[0].source: must be at most 63 lower-case letters"),
        ("starter:small", "a/b", "c.yaml:3: checkpoints[0].revision: must be the full commit"),
        ("starter:small", "a/b\n    revision: main", "c.yaml:8: checkpoints[0].revision: must be the full commit"),
        (
            "starter:small",
            f"starter:small\n    revision: {HASH}",
            "c.yaml:8: checkpoints[0].revision: is only for a source on the Hub",
        ),
        (
            "licence: MIT",
            "licence: MIT\n    replicas: 65",
            "c.yaml:14: checkpoints[0].replicas: must be at most 64, got",
        ),
        (
            "licence: MIT",
            "licence: MIT\n    replicas: '2'",
            "c.yaml:14: checkpoints[0].replicas: must be a whole number",
        ),
        ("licence: MIT", "licence: MIT\n    cpus: 0", "c.yaml:14: checkpoints[0].cpus: must be more than 0"),
        (
            "licence: MIT",
            "licence: MIT\n    niceness: -5",
            "c.yaml:14: checkpoints[0].niceness: must be at least 0, got",
        ),
        ("licence: MIT", "licence: MIT\n    precision: []", "c.yaml:14: checkpoints[0].precision: must not be empty"),
        (
            "licence: MIT",
            "licence: MIT\n    precision: [int8, int8]",
            "c.yaml:14: checkpoints[0].precision: must name each precision once",
        ),
        (
            "licence: MIT",
            "licence: MIT\n    precision: [fp32, int4]",
            "c.yaml:14: checkpoints[0].precision[1]: must be 'fp32', 'int8', 'int8-weights' or 'bf16', got 'int4'",
        ),
        ("name: mine", "name: mine\nlimits: {max_inputs: 0}", "c.yaml:2: limits.max_inputs: must be at least 1, got 0"),
        (
            "name: mine",
            "name: mine\ndefaults: {budget_ms: {classify: 0}}",
            "c.yaml:2: defaults.budget_ms.classify: must",
        ),
        ("    quality:\n", "    quality: 5\n    q:\n", "c.yaml:8: checkpoints[0].quality: must be a mapping of fields"),
    ],
)
def test_every_fault_names_file_line_and_field(old: str, new: str, fault: str) -> None:
    """A faulty field is reported by file, line and path, with its value and what it must be."""
    assert old in ONE
    assert any(line.startswith(fault) for line in faults(ONE.replace(old, new, 1)))


def test_a_fault_comes_alone() -> None:
    """One mistake is reported as one fault."""
    assert len(faults(ONE.replace("value: 87.5", "value: 101"))) == 1


def test_all_faults_are_reported_at_once() -> None:
    """All faults of a file are reported at once, in the order of its lines."""
    found = faults(ONE.replace("87.5", "-1").replace("task: classify", "task: x").replace("name: mine", "name: M"))
    assert [line.split(":")[1] for line in found] == ["1", "4", "10"]


def test_names_are_unique() -> None:
    """Two checkpoints with one name are refused."""
    found = faults(ONE + SECOND.replace("name: large", "name: small"))
    assert found == ["c.yaml:14: checkpoints[1].name: must be unique, got 'small' a second time"]


def test_scores_that_do_not_compare_need_ranks() -> None:
    """The checkpoints of a task share one metric on one data set, or all have ranks."""
    assert faults(ONE + SECOND.replace("SST-2", "IMDb")) == [
        f"c.yaml:{line}: checkpoints[{at}].quality.rank: is required of every classify checkpoint, since their metrics "
        "or data sets differ"
        for at, line in ((0, 8), (1, 19))
    ]
    half = faults(ONE + SECOND.replace("value: 91", "value: 91\n      rank: 2"))
    assert half[0].endswith("is required of every classify checkpoint, since another has one")
    ranked = (ONE + SECOND.replace("SST-2", "IMDb")).replace("metric:", "rank: 3\n      metric:")
    assert [entry.quality.standing for entry in load(ranked).checkpoints] == [3.0, 3.0]
    assert load(ONE + SECOND.replace("SST-2", "XSum").replace("classify", "summarize")).tasks == (
        "classify",
        "summarize",
    )


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "c.yaml:1: the file is empty"),
        ("name: a\nname: b", "c.yaml:2: name: is written twice"),
        ("name: a\nlimits:\n  max_inputs: 1\n  max_inputs: 2", "c.yaml:4: limits.max_inputs: is written twice"),
        ("name: a\ncheckpoints: [", "c.yaml:2: not YAML: while parsing a flow node"),
        ("name: a\n\tb: c", "c.yaml:2: not YAML: while scanning for the next token"),
        ("a: &x 1\nb: *x", "c.yaml:2: not YAML: aliases are not part of a catalog"),
        ("[" * 1000, "c.yaml:1: not YAML: nested more than 16 deep"),
        ("a: 1\n---\nb: 1", "c.yaml:2: not YAML: expected a single document"),
        ("a: 1\nb: !!python/name:os.system x", "c.yaml:2: b: must not bear a YAML tag"),
        ("a: 2001-99-99", "c.yaml:1: a: is not a value that YAML can hold"),
        ("a: =", "c.yaml:1: a: must be quoted, got ="),
        ("1: a", "c.yaml:1: a field's name must be text, got '1'"),
        ("- a", "c.yaml:1: must be a mapping of fields"),
        (b"name: a\nb: \xff", "c.yaml:2: the file must be UTF-8 text"),
        ("name: a\nb: \x07", "c.yaml:2: not YAML: special characters are not allowed"),
        ('a: "\\U00110000"', "c.yaml:1: not YAML: chr()"),
        ("name: a\ncheckpoints: []", "c.yaml:2: checkpoints: must not be empty"),
    ],
)
def test_broken_yaml_is_a_fault_with_a_line(text: str | bytes, fault: str) -> None:
    """Invalid YAML, or YAML beyond what a catalog needs, is refused by line."""
    assert faults(text)[0].startswith(fault)


@pytest.mark.parametrize("path", ["/no/such/catalog.yaml", "/", "nul\0l"])
def test_a_file_that_cannot_be_read_is_a_fault(path: str) -> None:
    """A catalog that cannot be read is reported with the names of the shipped catalogs."""
    with pytest.raises(CatalogError, match=r"cannot be read: .* \(packaged catalogs: starter, hub\)"):
        load_catalog(path)


def loads_or_is_refused(content: bytes) -> None:
    """Check that the bytes are a valid catalog or are refused with faults."""
    refusal: tuple[str, ...] = ()
    try:
        parse_catalog(content, file="c.yaml", folder=Path("/models"))
    except CatalogError as refused:
        refusal = refused.args
    assert all(re.match(r"c\.yaml:[1-9][0-9]*: ", line) for line in refusal)


@given(st.binary() | st.text().map(lambda text: text.encode(errors="replace")))
def test_arbitrary_bytes_never_crash_it(content: bytes) -> None:
    """Arbitrary bytes are a valid catalog or are refused."""
    loads_or_is_refused(content)


leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates()
trees = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=6,
)
FIELDS = sorted({*Catalog.model_fields, *type(load(ONE).checkpoints[0]).model_fields, "value", "metric", "budget_ms"})


@given(st.dictionaries(st.sampled_from(FIELDS), trees, max_size=5))
def test_arbitrary_yaml_never_crashes_it(tree: dict[str, object]) -> None:
    """Arbitrary YAML under the known fields is a valid catalog or is refused."""
    loads_or_is_refused(yaml.safe_dump(tree, allow_unicode=True).encode(errors="replace"))


@given(st.integers(0, len(ONE)), st.integers(0, 20), st.text("abc:-[]{}&*!|>'\"#% \n\t01.", max_size=8))
def test_a_slip_of_the_keyboard_never_crashes_it(at: int, cut: int, typed: str) -> None:
    """A catalog with a few changed characters is a valid catalog or is refused."""
    loads_or_is_refused((ONE[:at] + typed + ONE[at + cut :]).encode())
