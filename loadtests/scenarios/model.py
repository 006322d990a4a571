"""A scenario: arrivals, a mixture of requests, a catalog and the node that serves it. What its TOML file holds.

Units as people write them (`_ms` where the wire has milliseconds, `_s` else); everything has a default but `name`,
`catalog` and `requests`. It knows the limits of every field, and refuses to know files: `reading` reads them.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal, Self, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from gateway.model.deadline import MAX_BUDGET_MS

TOKENS_PER_WORD = 1.33
SPECIAL_TOKENS = 2

Task: TypeAlias = Literal["classify", "summarize"]
Name = Annotated[str, Field(min_length=1, max_length=100)]
FileName = Annotated[str, Field(min_length=1)]
Positive = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]


def _rising(span: tuple[float, float]) -> tuple[float, float]:
    if span[0] > span[1]:
        raise ValueError("must go from the less to the more")
    return span


Span = Annotated[tuple[Positive, Positive], AfterValidator(_rising)]
"""From and to, both included: values are drawn evenly between them."""

BudgetMs = Annotated[float, Field(strict=True, gt=0, le=MAX_BUDGET_MS)]
Words = Annotated[float, Field(strict=True, gt=0, le=50_000)]
Cv = Annotated[float, Field(strict=True, ge=0.05, le=20)]
Seconds = Annotated[float, Field(strict=True, ge=0.01, le=86_400)]


def tokens_of(words: float) -> int:
    """The tokens of a text of so many words, those that mark its ends included."""
    return round(words * TOKENS_PER_WORD) + SPECIAL_TOKENS


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RequestClass(_Frozen):
    """One part of the mixture: `share` of the requests (the shares are weights), and what they are like.

    `words` is the length of each of `texts` inputs; a catalog from a CSV profile does not know lengths. `percentile`
    is how sure the gateway must be, `domain` what the texts are about: both as the request's header and parameter.
    """

    share: Positive = 1.0
    task: Task = "classify"
    budget_ms: Annotated[tuple[BudgetMs, BudgetMs], AfterValidator(_rising)]
    words: Annotated[tuple[Words, Words], AfterValidator(_rising)] = (20.0, 20.0)
    texts: Annotated[int, Field(strict=True, ge=1, le=128)] = 1
    mode: Literal["best-effort", "strict"] = "best-effort"
    percentile: Annotated[float, Field(strict=True, ge=50, le=99.9)] = 95.0
    domain: Name | None = None


class CatalogSource(_Frozen):
    """Either the manifests of a packaged catalog (or a catalog file), or a plain CSV of measured samples.

    `profile` has the columns `variant,quality,batch,latency_ms`, one row a sample; a relative path is seen from the
    scenario's own folder. Its variants serve `task`, which the manifests of a catalog say themselves.
    """

    manifests: FileName | None = None
    profile: FileName | None = None
    task: Task = "classify"

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.manifests is None) == (self.profile is None):
            raise ValueError("exactly one of manifests and profile is required")
        return self


class NodeModel(_Frozen):
    """Where the variants run: each run keeps one of `cores` busy; all variants are loaded on all of them.

    A request takes `overhead_ms` outside queue and engine. Where the gateway shares the cores, each that is offered
    takes `overhead_core_ms` of their time when it comes, refused or not, and each that runs `served_core_ms` more when
    its run begins; `others_cores` are never free.
    """

    cores: Annotated[int, Field(strict=True, ge=1, le=256)] = 2
    overhead_ms: NotNegative = 1.0
    overhead_core_ms: NotNegative = 0.0
    served_core_ms: NotNegative = 0.0
    others_cores: NotNegative = 0.0


class IngressModel(_Frozen):
    """How many gateway processes share the node, and how old what they hear of it is."""

    count: Annotated[int, Field(strict=True, ge=1, le=64)] = 1
    report_delay_ms: NotNegative = 0.3


class Step(_Frozen):
    """From `start_s` on, the offered rate is `factor` times the scenario's."""

    start_s: NotNegative
    factor: NotNegative


class ArrivalModel(_Frozen):
    """How requests arrive. The rate is `load` times the quality tier's capacity, or `rate_per_s` where that is given.

    `poisson`; `gamma`, whose gaps have the coefficient of variation `cv` of the run; both are shaped in time by
    `steps` (jumps) or `ramp` (from one factor to another over the run), and `step` and `ramp` are `gamma` with a shape
    that must be there. `trace` replays the rates of a CSV with the columns `start_s,rate_per_s`: scaled so that their
    mean is the run's rate where loads or `rate_per_s` are given, else as they are. A shape begins with the counted
    part of the run; the warm-up has the rate that it begins with.
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
    """One experiment: every load × coefficient of variation × seed is a run of `seconds`, after `warmup_s` uncounted.

    `loads` are in multiples of the rate at which the best variant alone keeps every core busy.
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
        """The tasks that its requests ask for."""
        return frozenset(asked.task for asked in self.requests)

    @property
    def as_recorded(self) -> bool:
        """Whether a trace is replayed at its own rates: neither loads nor a rate say otherwise."""
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
                if asked.task != self.catalog.task:
                    raise ValueError(f"requests.{at}.task: must be {self.catalog.task}, as the profile's catalog.task")
        return self
