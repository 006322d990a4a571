"""A scenario from its TOML file, and every fault of it in words: file, field and limit.

It refuses to know what the scenario leads to: the files it names are read by who needs them.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from gateway.catalogs.catalog import PACKAGED
from gateway.catalogs.catalog_yaml import shown
from loadtests.scenarios.errors import ScenarioError
from loadtests.scenarios.model import Scenario
from loadtests.scenarios.tables import read_text

SHIPPED = (
    "grid-classify",
    "grid-summarize",
    "grid-both",
    "live-classify",
    "live-mixed",
    "live-watched",
    "example-profile",
    "example-trace",
)
"""Scenarios that come with the project, by the name `read_scenario` takes."""

_WORDS = {
    "missing": "is required",
    "greater_than": "must be more than {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than": "must be less than {lt:g}",
    "less_than_equal": "must be at most {le:g}",
    "literal_error": "must be {expected}",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "string_type": "must be text",
    "string_too_short": "must not be empty",
    "string_too_long": "must be at most {max_length} characters",
    "model_type": "must be a table of fields",
    "tuple_type": "must be a list",
    "too_short": "must have at least {min_length}",
    "too_long": "must have at most {max_length}",
}


def read_scenario(name_or_path: Path | str) -> Scenario:
    """A shipped scenario by its name, or the one in a file. Raises ScenarioError naming every fault.

    Relative paths in it are seen from its own folder.
    """
    path = Path(name_or_path)
    if str(name_or_path) in SHIPPED:
        path = Path(str(files("loadtests").joinpath("scenarios", f"{name_or_path}.toml")))
    elif not path.exists():
        raise ScenarioError(f"{path}: there is no such file (shipped scenarios: {', '.join(SHIPPED)})")
    try:
        document = tomllib.loads(read_text(path))
    except RecursionError:
        raise ScenarioError(f"{path}: not TOML that a scenario could be: nested too deep") from None
    except ValueError as error:
        raise ScenarioError(f"{path}: not TOML: {error}") from None
    try:
        scenario = Scenario.model_validate(document)
    except ValidationError as error:
        raise ScenarioError(*(f"{path}: {fault}" for fault in _faults(error.errors(include_url=False)))) from None
    return _seen_from(path.parent, scenario)


def _seen_from(folder: Path, scenario: Scenario) -> Scenario:
    """The same with paths that hold wherever it is played."""
    catalog, arrivals = scenario.catalog, scenario.arrivals
    if catalog.profile is not None:
        catalog = catalog.model_copy(update={"profile": str(folder / catalog.profile)})
    elif catalog.manifests is not None and catalog.manifests not in PACKAGED:
        catalog = catalog.model_copy(update={"manifests": str(folder / catalog.manifests)})
    if arrivals.trace is not None:
        arrivals = arrivals.model_copy(update={"trace": str(folder / arrivals.trace)})
    return scenario.model_copy(update={"catalog": catalog, "arrivals": arrivals})


def _faults(errors: Sequence[ErrorDetails]) -> Iterator[str]:
    """Each fault as `requests.0.budget_ms: what`; a fault across fields names them itself.

    Pydantic also calls a list too short when none of its items is valid: that is left out.
    """
    for error in errors:
        place = error["loc"]
        inside = any(other is not error and other["loc"][: len(place)] == place for other in errors)
        if error["type"] != "too_short" or not inside:
            yield ": ".join(part for part in (".".join(map(str, place)), _message(error)) if part)


def _message(error: ErrorDetails) -> str:
    kind, context = error["type"], error.get("ctx", {})
    if kind == "extra_forbidden":
        known = _fields_at(error["loc"][:-1])
        close = get_close_matches(str(error["loc"][-1]), known, n=1)
        return f"unknown field; did you mean {close[0]}?" if close else f"unknown field; known are {', '.join(known)}"
    if kind == "missing":
        return _WORDS[kind]
    if kind == "value_error":
        across = isinstance(error["input"], dict)
        return f"{context['error']}" if across else f"{context['error']}, got {shown(error['input'])}"
    return f"{_WORDS.get(kind, error['msg']).format_map(context)}, got {shown(error['input'])}"


def _fields_at(place: tuple[int | str, ...]) -> list[str]:
    """The names of the fields that a scenario has at a place."""
    model: type[BaseModel] = Scenario
    for part in place:
        if isinstance(part, str):
            annotation = model.model_fields[part].annotation
            inner = (kind for kind in (annotation, *get_args(annotation)) if isinstance(kind, type))
            model = next((kind for kind in inner if issubclass(kind, BaseModel)), model)
    return list(model.model_fields)
