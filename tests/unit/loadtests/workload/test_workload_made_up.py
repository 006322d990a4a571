"""The made-up catalogs: their files are what their figures give, and they are as different as they are said to be."""

from __future__ import annotations

import pickle
from importlib.resources import files
from pathlib import Path

import pytest

from loadtests.workload.files import ScenarioError
from loadtests.workload.made_up import CATALOGS, write
from loadtests.workload.scenario import MADE_UP, read_scenario
from loadtests.workload.variants import SampledTimes, read_profile, variants_of

FOLDER = Path(str(files("loadtests").joinpath("workload", "data", "made-up")))
TWO_TASKS = """variant,quality,batch,latency_ms,task
reader,90,1,5,classify
writer,40,1,50,summarize
"""


def test_the_files_are_those_that_the_figures_give(tmp_path: Path) -> None:
    """Writing the profiles again gives the files of the repository, to the byte."""
    write(tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        f"{name}.csv": (FOLDER / f"{name}.csv").read_text() for name in CATALOGS
    }
    assert {f"made-up/{name}" for name in CATALOGS} == set(MADE_UP)


@pytest.mark.parametrize("name", sorted(CATALOGS))
def test_a_median_is_that_of_its_figures(name: str) -> None:
    """A batch of n texts takes the fixed time and n times that of one text, by the median of its samples."""
    for variant in variants_of(read_scenario(f"made-up/{name}")):
        made = next(one for one in CATALOGS[name] if one.name == variant.name)
        assert (variant.quality, variant.task, variant.max_batch) == (made.quality, made.task, made.max_batch)
        assert variant.median_s(1, 20) == pytest.approx((made.fixed_ms + made.each_ms) / 1000, rel=1e-3)
        assert isinstance(variant.times, SampledTimes) and 0 < variant.times.sigma < 0.5


def test_they_differ_in_what_a_policy_may_rest_on() -> None:
    """Together they have runs from 0.4 ms to 1 s, strong and no batching, one to five variants, and near qualities."""
    scenarios = {name: read_scenario(name) for name in MADE_UP}
    variants = {name: variants_of(one) for name, one in scenarios.items()}
    alone_s = [one.median_s(1, 20) for of in variants.values() for one in of]
    assert min(alone_s) == pytest.approx(0.0004) and max(alone_s) == pytest.approx(1.0)
    gains = [one.median_s(1, 20) / one.cheapest_s(20) for of in variants.values() for one in of]
    assert min(gains) == 1.0 and max(gains) > 7
    assert {len(of) for of in variants.values()} >= {1, 2, 3, 4, 5}
    assert {cv for one in scenarios.values() for cv in one.cvs} >= {1.0, 2.0, 3.0, 4.0}
    spans = [max(one.quality for one in of) - min(one.quality for one in of) for of in variants.values()]
    assert any(0 < span < 1 for span in spans) and max(spans) >= 40
    assert sum(len(one.tasks) > 1 for one in scenarios.values()) == 1
    assert sum(any(one.joins for one in of) for of in variants.values()) == 1
    assert sum(bool(one.arrivals.steps) for one in scenarios.values()) == 1
    assert sum(one.arrivals.trace is not None for one in scenarios.values()) == 1
    assert sum(any(asked.texts > 1 for asked in one.requests) for one in scenarios.values()) == 1


def test_texts_of_a_profile_with_reading_share_steps(tmp_path: Path) -> None:
    """A column `reading_ms` says for how long a text holds up others; steps take what is left of a run."""
    path = tmp_path / "p.csv"
    head = "variant,quality,batch,latency_ms,reading_ms\n"
    path.write_text(f"{head}writer,60,1,110,10\nwriter,60,4,240,10\nreader,50,1,5,\n")
    writer, reader = read_profile(path, "generate")
    assert writer.joins is not None and reader.joins is None and writer.max_batch == 4
    assert writer.joins.reading_s(20) == pytest.approx(0.010)
    assert [writer.joins.pace(texts) for texts in (1, 4)] == pytest.approx([1.0, 2.0])
    assert pickle.loads(pickle.dumps(writer)).joins.pace(4) == pytest.approx(2.0)
    for rows, fault in (
        ("writer,60,4,240,60", "must be less than latency_ms / 4"),
        ("writer,60,1,110,-1", "must be a number"),
    ):
        path.write_text(f"{head}{rows}\n")
        with pytest.raises(ScenarioError, match=rf"p\.csv:2: reading_ms: {fault}"):
            read_profile(path, "generate")
    path.write_text(f"{head}writer,60,1,110,10\nwriter,60,2,150,11\n")
    with pytest.raises(ScenarioError, match=r"p\.csv:3: reading_ms: must be as in line 2 for writer"):
        read_profile(path, "generate")


def test_a_profile_of_several_tasks_names_that_of_each_variant(tmp_path: Path) -> None:
    """A column `task` gives each variant its task, the best of each first; without it the profile is refused."""
    path = tmp_path / "p.csv"
    path.write_text(TWO_TASKS)
    both = read_profile(path, "classify", "summarize")
    assert [(one.name, one.task, one.tier) for one in both] == [
        ("reader", "classify", "quality"),
        ("writer", "summarize", "quality"),
    ]
    with pytest.raises(ScenarioError, match=r"p\.csv:3: task: must be classify or count, as the scenario's"):
        read_profile(path, "classify", "count")
    path.write_text(TWO_TASKS + "writer,40,2,90,classify\n")
    with pytest.raises(ScenarioError, match=r"p\.csv:4: task: must be summarize, as line 3 says of writer"):
        read_profile(path, "classify", "summarize")
    path.write_text("variant,quality,batch,latency_ms\nreader,90,1,5\n")
    with pytest.raises(ScenarioError, match="the header lacks task"):
        read_profile(path, "classify", "summarize")
