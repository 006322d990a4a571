"""The page about scenarios has valid examples and explains every field."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from loadtests.workload.arrivals import read_trace
from loadtests.workload.scenario import (
    SHIPPED,
    ArrivalModel,
    CatalogSource,
    IngressModel,
    NodeModel,
    RequestClass,
    Scenario,
    Step,
    read_scenario,
)
from loadtests.workload.variants import read_profile

PAGE = (Path(__file__).resolve().parents[4] / "docs" / "scenarios.md").read_text(encoding="utf-8")


def examples(kind: str) -> list[str]:
    """The code blocks of the page in this language."""
    return re.findall(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL)


def test_the_examples_are_what_they_are_said_to_be(tmp_path: Path) -> None:
    """The examples are read as a scenario, a profile and a trace."""
    file = tmp_path / "example"
    (made,), (profile, trace) = examples("toml"), examples("csv")
    file.write_text(made, encoding="utf-8")
    assert read_scenario(file).name == "mine"
    file.write_text(profile, encoding="utf-8")
    assert [one.name for one in read_profile(file, "classify")] == ["large", "small"]
    file.write_text(trace, encoding="utf-8")
    assert read_trace(file).seconds == 180.0


@pytest.mark.parametrize(
    "model",
    [Scenario, CatalogSource, NodeModel, IngressModel, ArrivalModel, RequestClass, Step],
    ids=lambda m: m.__name__,
)
def test_every_field_is_explained(model: type[BaseModel]) -> None:
    """Every field of a scenario is explained in the page's table; a step's fields appear in an example."""
    for name in model.model_fields:
        in_table = rf"^\| (\*\*)?`\[*{name}\]*`(\*\*)? \|"
        assert re.search(in_table, PAGE, re.MULTILINE) or (model is Step and f"{name} = " in PAGE), name


def test_every_shipped_scenario_is_told_of() -> None:
    """Every shipped scenario is listed by its name."""
    assert all(f"| `{name}` |" in PAGE for name in SHIPPED)
