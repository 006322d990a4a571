"""A scenario and its TOML file: arrivals, a mixture of requests, a catalog and the node that serves it.

Fields in `_ms` are as on the wire; other durations are in `_s`. All fields but `name`, `catalog` and `requests` have
defaults.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails

from gateway.catalogs.catalog import PACKAGED, TaskName
from gateway.catalogs.catalog_yaml import shown
from gateway.model.deadline import MAX_BUDGET_MS
from loadtests.workload.files import ScenarioError, read_text

TOKENS_PER_WORD = 1.33
SPECIAL_TOKENS = 2

Name = Annotated[str, Field(min_length=1, max_length=100)]
FileName = Annotated[str, Field(min_length=1)]
Positive = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]


def _rising(span: tuple[float, float]) -> tuple[float, float]:
    if span[0] > span[1]:
        raise ValueError("must be in ascending order")
    return span


Span = Annotated[tuple[Positive, Positive], AfterValidator(_rising)]
"""From and to, both included: values are drawn uniformly between them."""

BudgetMs = Annotated[float, Field(strict=True, gt=0, le=MAX_BUDGET_MS)]
Words = Annotated[float, Field(strict=True, gt=0, le=50_000)]
Cv = Annotated[float, Field(strict=True, ge=0.05, le=20)]
Seconds = Annotated[float, Field(strict=True, ge=0.01, le=86_400)]


def tokens_of(words: float) -> int:
    """The tokens in a text of this many words, including the two special ones."""
    return round(words * TOKENS_PER_WORD) + SPECIAL_TOKENS


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RequestClass(_Frozen):
    """One class of the mixture: its weight `share`, and the properties of its requests.

    `words` is the length of each of `texts` inputs; a CSV profile ignores lengths. `percentile` and `domain` are sent
    as the request's header and parameter. `parameters` are sent besides; the simulator does not know what they mean.
    """

    share: Positive = 1.0
    task: TaskName = "classify"
    budget_ms: Annotated[tuple[BudgetMs, BudgetMs], AfterValidator(_rising)]
    words: Annotated[tuple[Words, Words], AfterValidator(_rising)] = (20.0, 20.0)
    texts: Annotated[int, Field(strict=True, ge=1, le=128)] = 1
    mode: Literal["best-effort", "strict"] = "best-effort"
    percentile: Annotated[float, Field(strict=True, ge=50, le=99.9)] = 95.0
    domain: Name | None = None
    parameters: dict[Name, StrictStr | StrictBool | StrictInt | StrictFloat | tuple[StrictStr, ...]] = Field(
        default_factory=dict
    )

    def __hash__(self) -> int:
        """Equal classes have equal hashes, though their parameters have none."""
        return hash(self.model_dump_json())


class CatalogSource(_Frozen):
    """The variants' source: a catalog (packaged or a file), or a CSV of measured samples.

    `profile` has the columns `variant,quality,batch,latency_ms`, one row a sample; a relative path starts at the
    scenario's folder. Its variants serve `task`, or each one of `tasks`, which a further column `task` names; a catalog
    names its tasks itself.
    """

    manifests: FileName | None = None
    profile: FileName | None = None
    task: TaskName = "classify"
    tasks: tuple[TaskName, ...] = ()

    @property
    def served(self) -> tuple[str, ...]:
        """The tasks that the variants of a profile serve."""
        return self.tasks or (self.task,)

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.manifests is None) == (self.profile is None):
            raise ValueError("exactly one of manifests and profile is required")
        return self


class NodeModel(_Frozen):
    """The node: each run keeps one of `cores` busy; all variants are loaded on all of them.

    A request takes `overhead_ms` outside queue and engine. If the gateway shares the cores, each request offered takes
    `overhead_core_ms` of their time at its arrival, refused or not, and each that runs `served_core_ms` more at the
    start of its run; `others_cores` are never free.
    """

    cores: Annotated[int, Field(strict=True, ge=1, le=256)] = 2
    overhead_ms: NotNegative = 1.0
    overhead_core_ms: NotNegative = 0.0
    served_core_ms: NotNegative = 0.0
    others_cores: NotNegative = 0.0


class IngressModel(_Frozen):
    """The number of gateway processes on the node, and the delay of their reports on it."""

    count: Annotated[int, Field(strict=True, ge=1, le=64)] = 1
    report_delay_ms: NotNegative = 0.3


class Step(_Frozen):
    """A change of the offered rate at `start_s` to `factor` times the scenario's."""

    start_s: NotNegative
    factor: NotNegative


class ArrivalModel(_Frozen):
    """The arrival process. Its rate is `load` times the quality tier's capacity, or `rate_per_s` if given.

    `poisson`, or `gamma` with interarrival times of the run's coefficient of variation `cv`. Both may have a shape:
    `steps` (jumps) or `ramp` (from one factor to another over the run). The processes `step` and `ramp` are `gamma`
    with that shape required. `trace` replays the rates of a CSV with the columns `start_s,rate_per_s`, scaled to the
    run's mean rate if loads or `rate_per_s` are given, else as recorded. A shape begins after the warm-up, which has
    the shape's first rate.
    """

    process: Literal["poisson", "gamma", "step", "ramp", "trace"] = "gamma"
    rate_per_s: Positive | None = None
    steps: tuple[Step, ...] = ()
    ramp: tuple[NotNegative, NotNegative] | None = None
    trace: FileName | None = None

    @model_validator(mode="after")
    def _one_shape(self) -> Self:
        given = {name for name in ("steps", "ramp", "trace") if getattr(self, name)}
        needed = {"step": "steps", "ramp": "ramp", "trace": "trace"}.get(self.process)
        if needed and needed not in given:
            raise ValueError(f"{needed} is required, since process is {self.process}")
        if len(given) > 1:
            raise ValueError("at most one of steps, ramp and trace may be given")
        if self.trace and needed != "trace":
            raise ValueError(f"trace is for the process trace, and process is {self.process}")
        return self

    @model_validator(mode="after")
    def _some_rate(self) -> Self:
        if any(left.start_s >= right.start_s for left, right in pairwise(self.steps)):
            raise ValueError("steps must be in the order of start_s, no two at once")
        idle = bool(self.steps) and self.steps[0].start_s == 0 and not any(step.factor for step in self.steps)
        if idle or (self.ramp and not any(self.ramp)):
            raise ValueError("steps or ramp must have a factor of more than 0")
        return self


class Scenario(_Frozen):
    """One experiment: every load × coefficient of variation × seed is a run of `seconds` after a warm-up of `warmup_s`.

    `loads` are multiples of the rate at which the best variant alone keeps every core busy.
    """

    name: Name
    about: str = ""
    seconds: Seconds = 30.0
    warmup_s: Annotated[float, Field(strict=True, ge=0, le=86_400)] = 3.0
    seeds: Annotated[tuple[Annotated[int, Field(strict=True)], ...], Field(min_length=1)] = (1, 2, 3)
    loads: Annotated[tuple[Positive, ...], Field(min_length=1)] = (1.0,)
    cvs: Annotated[tuple[Cv, ...], Field(min_length=1)] = (1.0,)
    catalog: CatalogSource
    node: NodeModel = NodeModel()
    ingress: IngressModel = IngressModel()
    arrivals: ArrivalModel = ArrivalModel()
    requests: Annotated[tuple[RequestClass, ...], Field(min_length=1)]

    @property
    def tasks(self) -> frozenset[str]:
        """The tasks of the requests."""
        return frozenset(asked.task for asked in self.requests)

    @property
    def as_recorded(self) -> bool:
        """True if a trace is replayed at its own rates, since neither loads nor a rate are given."""
        said = "loads" in self.model_fields_set or self.arrivals.rate_per_s is not None
        return self.arrivals.trace is not None and not said

    @model_validator(mode="after")
    def _runs_differ(self) -> Self:
        if self.arrivals.rate_per_s and len(self.loads) > 1:
            raise ValueError("loads: only one where arrivals.rate_per_s is given, which is the rate of every run")
        if self.arrivals.process == "poisson" and set(self.cvs) != {1.0}:
            raise ValueError("cvs: must be [1] where arrivals.process is poisson; gamma has others")
        return self

    @model_validator(mode="after")
    def _tasks_are_served(self) -> Self:
        if self.catalog.profile:
            for at, asked in enumerate(self.requests):
                if asked.task not in self.catalog.served:
                    named = "catalog.tasks" if self.catalog.tasks else "catalog.task"
                    raise ValueError(
                        f"requests.{at}.task: must be {' or '.join(self.catalog.served)}, as the profile's {named}"
                    )
        return self


MADE_UP = (
    "made-up/accelerator",
    "made-up/near-qualities",
    "made-up/no-batching",
    "made-up/seconds",
    "made-up/two-tasks",
    "made-up/step",
    "made-up/lists",
    "made-up/one-variant",
    "made-up/tight",
    "made-up/day",
    "made-up/writers",
)
"""The shipped scenarios of made-up catalogs: the policy was not written with these before its eyes."""

SHIPPED = (
    "grid-classify",
    "grid-summarize",
    "grid-both",
    "live-classify",
    "live-mixed",
    "live-embed",
    "live-encoders",
    "live-generate",
    "live-translate",
    "live-watched",
    "hardly-loaded",
    "example-profile",
    "example-trace",
    *MADE_UP,
)
"""The names of the shipped scenarios."""

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
    """Reads a shipped scenario by name, or a file. Raises ScenarioError, which names every fault.

    Relative paths in it start at its folder.
    """
    path = Path(name_or_path)
    if str(name_or_path) in SHIPPED:
        path = Path(str(files("loadtests").joinpath("workload", "data", f"{name_or_path}.toml")))
    elif not path.exists():
        raise ScenarioError(f"{path}: there is no such file (shipped scenarios: {', '.join(SHIPPED)})")
    try:
        document = tomllib.loads(read_text(path))
    except RecursionError:
        raise ScenarioError(f"{path}: not a valid scenario: nested too deep") from None
    except ValueError as error:
        raise ScenarioError(f"{path}: not TOML: {error}") from None
    try:
        scenario = Scenario.model_validate(document)
    except ValidationError as error:
        raise ScenarioError(*(f"{path}: {fault}" for fault in _faults(error.errors(include_url=False)))) from None
    return _seen_from(path.parent, scenario)


def _seen_from(folder: Path, scenario: Scenario) -> Scenario:
    """Resolves the scenario's relative paths against a folder."""
    catalog, arrivals = scenario.catalog, scenario.arrivals
    if catalog.profile is not None:
        catalog = catalog.model_copy(update={"profile": str(folder / catalog.profile)})
    elif catalog.manifests is not None and catalog.manifests not in PACKAGED:
        catalog = catalog.model_copy(update={"manifests": str(folder / catalog.manifests)})
    if arrivals.trace is not None:
        arrivals = arrivals.model_copy(update={"trace": str(folder / arrivals.trace)})
    return scenario.model_copy(update={"catalog": catalog, "arrivals": arrivals})


def _faults(errors: Sequence[ErrorDetails]) -> Iterator[str]:
    """Formats each fault as `requests.0.budget_ms: what`; a fault of several fields names them itself.

    Drops pydantic's extra "too short" fault of a list without a valid item.
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
    """The names of the scenario's fields at a path."""
    model: type[BaseModel] = Scenario
    for part in place:
        if isinstance(part, str):
            annotation = model.model_fields[part].annotation
            inner = (kind for kind in (annotation, *get_args(annotation)) if isinstance(kind, type))
            model = next((kind for kind in inner if issubclass(kind, BaseModel)), model)
    return list(model.model_fields)


def overridden(scenario: Scenario, given: Mapping[str, object]) -> Scenario:
    """The scenario with the fields that are not None replaced. Raises ScenarioError."""
    new = {name: value for name, value in given.items() if value is not None}
    if not new:
        return scenario
    try:
        return Scenario.model_validate(scenario.model_dump(exclude_unset=True) | new)
    except ValidationError as error:
        faults = error.errors(include_url=False)
        raise ScenarioError(
            *(f"--{'.'.join(map(str, one['loc'])) or scenario.name}: {one['msg']}" for one in faults)
        ) from None
