"""Scenarios as read from their files, and the errors of faulty files."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

import pytest

from gateway.catalogs.catalog import load_catalog
from loadtests.errors import LoadTestError
from loadtests.workload.arrivals import offered_of
from loadtests.workload.files import MOST_BYTES, ScenarioError
from loadtests.workload.scenario import MADE_UP, SHIPPED, Scenario, read_scenario
from loadtests.workload.variants import catalog_of, variants_of

LEAST = """\
name = "mine"
[catalog]
manifests = "starter"
[[requests]]
budget_ms = [50, 100]
"""


def read(folder: Path, text: str | bytes) -> Scenario:
    """The scenario of this text, read as `s.toml`."""
    path = folder / "s.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_scenario(path)


def faults(folder: Path, text: str | bytes) -> list[str]:
    """The lines of the error for this text, each without the file's name."""
    with pytest.raises(ScenarioError) as refused:
        read(folder, text)
    lines = str(refused.value).splitlines()
    assert all(re.match(re.escape(f"{folder / 's.toml'}:"), line) for line in lines)
    return [line.removeprefix(f"{folder / 's.toml'}").lstrip(": ") for line in lines]


def test_what_a_scenario_leaves_out_has_its_default(tmp_path: Path) -> None:
    """A scenario needs only a name, a catalog and a class of requests with a budget; the rest has defaults."""
    made = read(tmp_path, LEAST)
    assert (made.name, made.loads, made.cvs) == ("mine", (1.0,), (1.0,))
    assert made.requests[0].budget_ms == (50.0, 100.0)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_scenario_is_read_by_its_name(name: str) -> None:
    """A shipped scenario is read by its name, and its catalog serves all its classes."""
    made = read_scenario(name)
    assert made.name == name and made.about
    assert read_scenario(Path(name)) == made
    assert catalog_of(made) or variants_of(made)


def test_every_shipped_file_has_a_name_to_read_it_by() -> None:
    """Every shipped file is in the list of shipped scenarios."""
    data = Path(str(files("loadtests").joinpath("workload", "data")))
    assert {path.relative_to(data).with_suffix("").as_posix() for path in data.rglob("*.toml")} == set(SHIPPED)


@pytest.mark.parametrize("name", ["example-profile", "example-trace", *MADE_UP])
def test_a_shipped_example_plays_as_it_is(name: str) -> None:
    """A shipped example needs nothing prepared, because its variants and its trace are shipped with it."""
    made = read_scenario(name)
    few = made.model_copy(update={"seconds": 1.0})
    assert offered_of(few, variants_of(few), min(made.loads), 1.0, 1)


def test_the_grids_mix_their_budgets_alike() -> None:
    """In every grid, 60 % of a task's requests have 50 to 100 ms, 30 % 200 to 500 ms, and 10 % 1 to 5 s."""
    for name in ("grid-classify", "grid-summarize", "grid-both"):
        made = read_scenario(name)
        assert made.loads == (0.3, 0.6, 1.0, 1.5, 2.0, 3.0) and made.cvs == (1.0, 4.0)
        for task in made.tasks:
            of_task = [asked for asked in made.requests if asked.task == task]
            whole = sum(asked.share for asked in of_task)
            assert {asked.budget_ms: asked.share / whole for asked in of_task} == {
                (50.0, 100.0): pytest.approx(0.6),
                (200.0, 500.0): pytest.approx(0.3),
                (1000.0, 5000.0): pytest.approx(0.1),
            }


def test_paths_are_seen_from_the_scenarios_own_folder(tmp_path: Path) -> None:
    """Relative paths start at the scenario's own folder; absolute ones stay as they are."""
    profile = LEAST.replace('manifests = "starter"', 'profile = "deep/p.csv"')
    made = read(tmp_path, profile + '[arrivals]\nprocess = "trace"\ntrace = "/t.csv"\n')
    assert made.catalog.profile == str(tmp_path / "deep/p.csv")
    assert made.arrivals.trace == "/t.csv"
    own = read(tmp_path, LEAST.replace('"starter"', '"own.yaml"'))
    assert own.catalog.manifests == str(tmp_path / "own.yaml")
    assert read(tmp_path, LEAST).catalog.manifests == "starter"


def test_a_trace_is_replayed_as_recorded_unless_a_rate_is_asked_for(tmp_path: Path) -> None:
    """A trace is replayed as recorded unless the file gives loads or a rate."""
    trace = LEAST + '[arrivals]\nprocess = "trace"\ntrace = "t.csv"\n'
    assert read(tmp_path, trace).as_recorded
    assert not read(tmp_path, "loads = [1.0]\n" + trace).as_recorded
    assert not read(tmp_path, trace + "rate_per_s = 5\n").as_recorded
    assert not read(tmp_path, LEAST).as_recorded


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ("budget_ms = [0, 100]", "requests.0.budget_ms.0: must be more than 0, got 0"),
        ("budget_ms = [50, 600001]", "requests.0.budget_ms.1: must be at most 600000, got 600001"),
        ("budget_ms = [50, nan]", "requests.0.budget_ms.1: must be at most 600000, got nan"),
        ("budget_ms = [100, 50]", "requests.0.budget_ms: must be in ascending order, got [100, 50]"),
        ("budget_ms = [50]", "requests.0.budget_ms.1: is required"),
        ("budget_ms = [1, 2, 3]", "requests.0.budget_ms: must have at most 2, got [1, 2, 3]"),
        ("budget_ms = 50", "requests.0.budget_ms: must be a list, got 50"),
        ('budget_ms = ["50", 100]', "requests.0.budget_ms.0: must be a number, got '50'"),
        ("budget_ms = [true, 100]", "requests.0.budget_ms.0: must be a number, got True"),
        ("share = inf", "requests.0.share: must be a finite number, got inf"),
        ("share = -1", "requests.0.share: must be more than 0, got -1"),
        ("texts = 129", "requests.0.texts: must be at most 128, got 129"),
        ("texts = 1.5", "requests.0.texts: must be a whole number, got 1.5"),
        ("percentile = 99.99", "requests.0.percentile: must be at most 99.9, got 99.99"),
        ('mode = "lax"', "requests.0.mode: must be 'best-effort' or 'strict', got 'lax'"),
        ("budgets_ms = 5", "requests.0.budgets_ms: unknown field; did you mean budget_ms?"),
        ("words = [1, 1e9]", "requests.0.words.1: must be at most 50000, got 1000000000.0"),
        ("task = 1979-05-27", "requests.0.task: must be text, got datetime.date(1979, 5, 27)"),
        (
            "task = 'rank'",
            "requests.0.task: must be 'classify', 'summarize', 'embed', 'similarity' or 'zero-shot', got 'rank'",
        ),
    ],
)
def test_a_fault_names_its_field_and_its_limit(tmp_path: Path, field: str, said: str) -> None:
    """A faulty value of a request class is refused with its field and its limit."""
    text = LEAST.replace("budget_ms = [50, 100]", field) if field.startswith("budget_ms") else f"{LEAST}{field}\n"
    assert said in faults(tmp_path, text)


@pytest.mark.parametrize(
    ("top", "end", "said"),
    [
        ("loads = []", "", "loads: must have at least 1, got []"),
        ("cvs = [0.01]", "", "cvs.0: must be at least 0.05, got 0.01"),
        ("seconds = 0", "", "seconds: must be at least 0.01, got 0"),
        ("seconds = 1e400", "", "seconds: must be at most 86400, got inf"),
        ("seeds = [1.5]", "", "seeds.0: must be a whole number, got 1.5"),
        ("node = 5", "", "node: must be a table of fields, got 5"),
        ("sedes = [1]", "", "sedes: unknown field; did you mean seeds?"),
        ("", "[node]\ncores = 0", "node.cores: must be at least 1, got 0"),
        ("", "[node]\noverhead_ms = nan", "node.overhead_ms: must be a finite number, got nan"),
        ("", "[ingress]\nwidth = 3", "ingress.width: unknown field; known are count, report_delay_ms"),
        ("", "[arrivals]\nprocess = 'ramp'", "arrivals: ramp is required, since process is ramp"),
        ("", "[arrivals]\ntrace = 't.csv'", "arrivals: trace is for the process trace, and process is gamma"),
        ("", "[arrivals]\nramp = [0, 0]", "arrivals: steps or ramp must have a factor of more than 0"),
        (
            "",
            "[arrivals]\nramp = [1, 2]\nsteps = [{start_s = 1, factor = 2}]",
            "arrivals: at most one of steps, ramp and trace may be given",
        ),
        (
            "",
            "[arrivals]\nsteps = [{start_s = 1, factor = 2}, {start_s = 1, factor = 3}]",
            "arrivals: steps must be in the order of start_s, no two at once",
        ),
        (
            "loads = [1, 2]",
            "[arrivals]\nrate_per_s = 5",
            "loads: only one where arrivals.rate_per_s is given, which is the rate of every run",
        ),
        (
            "cvs = [1, 4]",
            "[arrivals]\nprocess = 'poisson'",
            "cvs: must be [1] where arrivals.process is poisson; gamma has others",
        ),
    ],
)
def test_what_contradicts_itself_is_refused(tmp_path: Path, top: str, end: str, said: str) -> None:
    """Contradictory fields are refused; none is silently ignored."""
    assert faults(tmp_path, f"{top}\n{LEAST}{end}\n") == [said]


def test_a_catalog_is_one_thing_and_serves_what_is_asked(tmp_path: Path) -> None:
    """A catalog is either manifests or a profile, and a profile serves the task of every class."""
    assert faults(tmp_path, LEAST.replace('manifests = "starter"', "")) == [
        "catalog: exactly one of manifests and profile is required"
    ]
    both = LEAST.replace('manifests = "starter"', 'manifests = "starter"\nprofile = "p.csv"')
    assert faults(tmp_path, both) == ["catalog: exactly one of manifests and profile is required"]
    other = LEAST.replace('manifests = "starter"', 'profile = "p.csv"') + 'task = "summarize"\n'
    assert faults(tmp_path, other) == ["requests.0.task: must be classify, as the profile's catalog.task"]
    both = other.replace("[[requests]]", 'tasks = ["classify", "summarize"]\n[[requests]]')
    assert read(tmp_path, both).catalog.served == ("classify", "summarize")


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    """All faults of a file are reported at once."""
    said = faults(tmp_path, LEAST.replace('name = "mine"', "seconds = -1") + "share = 0\n")
    assert {line.split(":")[0] for line in said} == {"name", "seconds", "requests.0.share"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "name: is required"),
        (b"name = ", "not TOML: Invalid value (at end of document)"),
        (b"name = 'a'\nname = 'b'", "not TOML: Cannot overwrite a value (at "),
        (b"a = " + b"[" * 5000, "not a valid scenario: nested too deep"),
        (b"a = " + b"9" * 5000, "not TOML: Exceeds the limit (4300 digits) for integer string conversion"),
        (b"\n\xff\xfe", "2: the file must be UTF-8 text"),
        (b"#" * (MOST_BYTES + 1), "must be at most 32 MiB"),
    ],
    ids=["empty", "half", "twice", "deep", "long", "binary", "large"],
)
def test_a_file_that_is_no_scenario_is_said_to_be_none(tmp_path: Path, content: bytes, said: str) -> None:
    """A file that is no scenario is refused with one line, whatever it contains."""
    assert any(line.startswith(said) for line in faults(tmp_path, content))


def test_what_cannot_be_read_is_told_by_its_name(tmp_path: Path) -> None:
    """A missing file or a folder is refused by its name; a mistyped name lists the shipped scenarios."""
    with pytest.raises(
        LoadTestError, match=r"grid-clasify: there is no such file \(shipped scenarios: grid-classify, "
    ):
        read_scenario("grid-clasify")
    with pytest.raises(ScenarioError, match="cannot be read: Is a directory"):
        read_scenario(tmp_path)
    with pytest.raises(ScenarioError, match="no such file"):
        read_scenario("a\0b")


def test_only_what_is_asked_for_need_be_prepared() -> None:
    """Only the checkpoints of the scenario's tasks need be prepared."""
    made = catalog_of(read_scenario("grid-classify"))
    assert made is not None
    assert made.checkpoints == load_catalog("starter").of_task("classify")
    both = catalog_of(read_scenario("grid-both"))
    assert both is not None and both.tasks == ("classify", "summarize")
    vectors = catalog_of(read_scenario("live-embed"))
    assert vectors is not None and vectors.checkpoints == load_catalog("starter").of_task("embed")
    assert catalog_of(read_scenario("example-profile")) is None
