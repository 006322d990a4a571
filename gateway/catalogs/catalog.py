"""The catalog: every checkpoint the gateway serves, the default budgets and the limits, read from one YAML file.

It knows what an operator may write, and reports what is wrong by file, line and field. It does not know whether a
source can be had: fetching and checking weights is the exporters' task.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator
from enum import StrEnum
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from pydantic import model_validator as check_model
from pydantic_core import PydanticCustomError

from gateway.catalogs.catalog_yaml import ACROSS, CatalogError, Place, in_words, read_document, shown
from gateway.model.deadline import MAX_BUDGET_MS
from gateway.model.manifest import Precision
from gateway.model.tier import Tier
from gateway.tasks import TASKS

MOST_REPLICAS = 64
"""Most replicas of one checkpoint."""

Replicas = Annotated[int, Field(strict=True, ge=1, le=MOST_REPLICAS)]
Delay = Annotated[float, Field(strict=True, ge=0, le=86_400, allow_inf_nan=False)]
Timeout = Annotated[float, Field(strict=True, gt=0, le=86_400, allow_inf_nan=False)]


def _fill_in_replicas(given: Any) -> Any:
    """Fills in `replicas` of a checkpoint with autoscaling, where absent, with `min_replicas`.

    Invalid fields are left as they are, for validation to report.
    """
    match given:
        case {"replicas": _}:
            return given
        case {"autoscaling": {"min_replicas": int(least)}} if least is not True and 1 <= least <= MOST_REPLICAS:
            return {**given, "replicas": least}
    return given


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Ingress(_Frozen):
    """The gateway processes that divide the requests among them, and the cores that each reserves."""

    replicas: int = Field(default=1, strict=True, ge=1, le=16)
    cpus: float = Field(default=1.0, strict=True, gt=0, allow_inf_nan=False)


class Autoscaling(_Frozen):
    """How the number of a checkpoint's replicas follows its load.

    There are enough replicas if each is busy for at most `target_busy_share` of its time and has at most
    `target_backlog_ms` of admitted work (by default half the default budget of its task). More are started once there
    have been too few for `upscale_delay_s` seconds. Some are retired once fewer have sufficed, with room to spare, for
    `downscale_delay_s` seconds.
    """

    min_replicas: Replicas = 1
    max_replicas: Replicas
    target_busy_share: float = Field(default=0.6, strict=True, gt=0, lt=1, allow_inf_nan=False)
    target_backlog_ms: Annotated[float, Field(strict=True, gt=0, le=60_000, allow_inf_nan=False)] | None = None
    upscale_delay_s: Delay = 5.0
    downscale_delay_s: Delay = 300.0

    @field_validator("max_replicas")
    @classmethod
    def _most_is_not_below_least(cls, most: int, info: ValidationInfo) -> int:
        if most < info.data.get("min_replicas", 1):
            raise ValueError("must be at least min_replicas")
        return most


__all__ = ["Catalog", "CatalogEntry", "CatalogError", "EngineName", "Limits", "Quality", "Tier", "load_catalog"]

PACKAGED = ("starter", "hub")
"""Catalogs that come with the gateway, by the name that `load_catalog` takes."""

_STARTER = "starter:"
_HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*", re.ASCII)
_REVISION = re.compile(r"[0-9a-f]{40}", re.ASCII)
_SLUG = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*", re.ASCII)


class EngineName(StrEnum):
    """The engine that runs a variant; `auto` means the fastest on the host where the variant is made."""

    AUTO = "auto"
    ONNX = "onnx"
    OPENVINO = "openvino"
    TORCH = "torch"


class SourceKind(StrEnum):
    """Where a checkpoint's weights come from: made by the exporters, a folder on this host, or the Hub."""

    STARTER = "starter"
    FOLDER = "folder"
    HUB = "hub"


def _slug(value: str) -> str:
    if not _SLUG.fullmatch(value) or len(value) > 63:
        raise ValueError("must be at most 63 lower-case letters, digits and single hyphens")
    return value


Slug = Annotated[str, AfterValidator(_slug)]
Text = Annotated[str, Field(min_length=1, max_length=300)]
Count = Annotated[int, Field(strict=True, ge=1)]
BudgetMs = Annotated[float, Field(strict=True, gt=0, le=MAX_BUDGET_MS, allow_inf_nan=False)]


def _task(name: str) -> str:
    if name not in TASKS:
        *others, last = map(repr, TASKS)
        raise ValueError(f"must be {', '.join(others)} or {last}")
    return name


TaskName = Annotated[str, AfterValidator(_task)]


class Quality(_Frozen):
    """A published or measured score of a checkpoint: `value` in points from 0 to 100; higher is better.

    `reference` says where the score was published or how it was measured. `rank` orders checkpoints whose scores do not
    compare.
    """

    metric: Text
    value: float = Field(strict=True, ge=0, le=100, allow_inf_nan=False)
    data_set: Text
    reference: Text
    rank: Annotated[int, Field(strict=True, ge=1)] | None = None

    @property
    def standing(self) -> float:
        """Orders the checkpoints of one task, higher is better: the rank if given, else the value."""
        return self.value if self.rank is None else float(self.rank)


class CatalogEntry(_Frozen):
    """One checkpoint: its name and promise, where it comes from, and how it runs.

    `also` names further tasks that the same replicas serve. `precision` lists what may be served, in order of
    preference: the first whose variant passes verification is. With
    the engine `auto`, a later one goes first if it is clearly faster on this host. `cpus` is what a replica reserves
    and `threads` what one run of its engine uses; a replica runs `cpus / threads` batches at once.
    `niceness` is its operating system priority (19 yields most). If absent, classifiers have 0, realtime summarizers 5
    and other summarizers 19. With `autoscaling`, `replicas` is its minimum. `past_mb` is the most megabytes that a
    replica holds of keys and values of the texts that it writes; if absent, an eighth of the memory of its host. With
    `prefixes`, what texts under way leave of it has what was read, for prompts that begin alike and equal sources, and
    equal texts under way are written once.
    """

    name: Slug
    task: TaskName
    also: tuple[TaskName, ...] = Field(default=(), validate_default=True)
    tier: Tier
    family: Text
    source: Text
    revision: str | None = Field(default=None, validate_default=True)
    engine: EngineName = EngineName.AUTO
    precision: tuple[Precision, ...] = Field(default=(Precision.INT8, Precision.FP32, Precision.BF16), min_length=1)
    replicas: Replicas = 1
    autoscaling: Autoscaling | None = None
    cpus: float = Field(default=1.0, strict=True, gt=0, allow_inf_nan=False)
    threads: int = Field(default=1, strict=True, ge=1, le=256)
    niceness: Annotated[int, Field(strict=True, ge=0, le=19)] | None = Field(default=None, validate_default=True)
    past_mb: Count | None = None
    prefixes: Annotated[bool, Field(strict=True)] = True
    quality: Quality
    licence: Text
    domain: Slug | None = None

    _least = check_model(mode="before")(_fill_in_replicas)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Every task that it serves, its first before the others."""
        return (self.task, *self.also)

    @property
    def slots(self) -> int:
        """The number of batches a replica runs at once: as many as fit its processors, at least one."""
        return max(1, int(self.cpus // self.threads))

    @property
    def most_replicas(self) -> int:
        """The largest number of replicas it may have."""
        return self.autoscaling.max_replicas if self.autoscaling else self.replicas

    @property
    def kind(self) -> SourceKind:
        """Where the source is."""
        return _kind(self.source)

    @field_validator("also")
    @classmethod
    def _one_kind_serves_all(cls, also: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        task = info.data.get("task")
        if task is None:
            return also
        if len({task, *also}) <= len(also):
            raise ValueError("must name tasks other than `task`, each once")
        for other in also:
            if not TASKS[other].kinds.keys() & TASKS[task].kinds.keys():
                raise ValueError(f"no kind of checkpoint serves both {task!r} and {other!r}")
        return also

    @field_validator("source")
    @classmethod
    def _source_is_known(cls, source: str, info: ValidationInfo) -> str:
        """Makes a folder absolute, relative to the catalog's own folder (the context of the validation)."""
        match _kind(source):
            case SourceKind.STARTER:
                _slug(source.removeprefix(_STARTER))
                return source
            case SourceKind.HUB:
                return source
            case SourceKind.FOLDER if source.startswith(("./", "../", "/")):
                return str(Path(info.context or Path.cwd(), source))
        raise ValueError("must be starter:NAME, the Hub's OWNER/NAME, or a folder beginning with ./, ../ or /")

    @field_validator("revision")
    @classmethod
    def _revision_fits_source(cls, revision: str | None, info: ValidationInfo) -> str | None:
        source = info.data.get("source")
        if source is None:
            return revision
        if _kind(source) is not SourceKind.HUB:
            if revision is not None:
                raise ValueError("is only for a source on the Hub")
        elif revision is None or not _REVISION.fullmatch(revision):
            raise ValueError("must be the full commit of the Hub's repository, 40 hexadecimal digits")
        return revision

    @field_validator("niceness")
    @classmethod
    def _niceness_by_task_and_tier(cls, niceness: int | None, info: ValidationInfo) -> int:
        """Fills in the niceness by task and tier: long work yields to work that has milliseconds to lose."""
        task, tier = info.data.get("task"), info.data.get("tier")
        if niceness is not None or task is None or tier is None:
            return niceness or 0
        return TASKS[task].niceness.get(tier, 0)

    @field_validator("precision")
    @classmethod
    def _precisions_differ(cls, precision: tuple[Precision, ...]) -> tuple[Precision, ...]:
        if len(set(precision)) < len(precision):
            raise ValueError("must name each precision once")
        return precision


def _fixed_task(name: str) -> str:
    if not TASKS[name].fixed_checkpoint:
        raise ValueError(f"is for tasks whose answers do not compare between checkpoints, and {name!r} is none")
    return name


class Defaults(_Frozen):
    """What applies to a request that does not say, by task.

    `budget_ms` is the latency budget in milliseconds. `checkpoint` is who answers a task whose answers do not compare
    between checkpoints; where it is absent, the one of the best quality. `domain` is that of a request which names
    none: checkpoints made for it are then candidates too.
    """

    budget_ms: dict[TaskName, BudgetMs] = Field(default_factory=dict)
    checkpoint: dict[Annotated[TaskName, AfterValidator(_fixed_task)], Slug] = Field(default_factory=dict)
    domain: dict[TaskName, Slug] = Field(default_factory=dict)


class Limits(_Frozen):
    """What one request, and all of them together, may ask for.

    `max_input_chars` is for all texts of one request together, `max_queued_inputs` for each replica. The others are for
    each ingress. A client's address may have half of the connections, so that no client alone locks out the others; a
    proxy in front has one address for all of its clients. A client has `header_timeout_s` seconds to send a request's
    head and then `body_timeout_s` for its body. A connection without a request is closed after `idle_timeout_s`.
    """

    max_body_bytes: Count = 1024 * 1024
    max_inputs: Count = 128
    max_input_chars: Count = 200_000
    max_concurrent_requests: Count = 1024
    max_queued_inputs: Count = 1024
    max_connections: Count = 4096
    max_connections_per_address: Count = 2048
    header_timeout_s: Timeout = 10.0
    body_timeout_s: Timeout = 30.0
    idle_timeout_s: Timeout = 75.0


class Catalog(_Frozen):
    """All checkpoints the gateway serves: at least one, with unique names and comparable scores within a task."""

    name: Slug
    defaults: Defaults = Defaults()
    limits: Limits = Limits()
    ingress: Ingress = Ingress()
    checkpoints: tuple[CatalogEntry, ...] = Field(min_length=1)

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks that at least one checkpoint serves."""
        return tuple(task for task in TASKS if self.of_task(task))

    def of_task(self, task: str) -> tuple[CatalogEntry, ...]:
        """The checkpoints of a task, in the catalog's order; none if the task is not served."""
        return tuple(entry for entry in self.checkpoints if task in entry.tasks)

    def default_checkpoint(self, task: str) -> str | None:
        """Who answers a request without a pin, whatever its budget; None for a task that is routed.

        It may be missing from the catalog that `only` gives: another one's answers would not compare with its.
        """
        if not TASKS[task].fixed_checkpoint:
            return None
        best = max(self.of_task(task), key=lambda one: (one.quality.standing, one.quality.value), default=None)
        return self.defaults.checkpoint.get(task) or (best.name if best else None)

    def best_of_tier(self, task: str, tier: Tier) -> str | None:
        """The checkpoint of the best quality among those of a task that have at least the tier; None if none has."""
        enough = [entry for entry in self.of_task(task) if entry.tier.rank >= tier.rank]
        best = max(enough, key=lambda one: (one.quality.standing, one.quality.value), default=None)
        return best.name if best else None

    def routed(self, task: str) -> tuple[CatalogEntry, ...]:
        """The checkpoints that a request without a pin may get: all of the task, or its default one."""
        default = self.default_checkpoint(task)
        return tuple(entry for entry in self.of_task(task) if default in (None, entry.name))

    def general(self, task: str) -> tuple[CatalogEntry, ...]:
        """The checkpoints that a request without a pin and a domain may get; all of the task if there is none."""
        entries, domains = self.routed(task), (None, self.defaults.domain.get(task))
        return tuple(entry for entry in entries if entry.domain in domains) or entries

    def by_name(self, name: str) -> CatalogEntry | None:
        """The checkpoint of that name, or None."""
        return next((entry for entry in self.checkpoints if entry.name == name), None)

    def only(self, names: Container[str]) -> Catalog:
        """The catalog with only the checkpoints of these names, of which at least one is in it."""
        return self.model_copy(update={"checkpoints": tuple(one for one in self.checkpoints if one.name in names)})

    def budget_s(self, task: str) -> float:
        """The default latency budget of a task, in seconds."""
        return self.defaults.budget_ms.get(task, TASKS[task].default_budget_ms) / 1000

    @check_model(mode="after")
    def _checkpoints_agree(self) -> Self:
        faults = (*self._name_faults(), *self._quality_faults(), *self._replica_faults(), *self._default_faults())
        if faults:
            raise PydanticCustomError(ACROSS, "the checkpoints do not agree", {"faults": faults})
        return self

    def _name_faults(self) -> Iterator[tuple[Place, str]]:
        names = [entry.name for entry in self.checkpoints]
        for at, name in enumerate(names):
            if names.index(name) < at:
                yield ("checkpoints", at, "name"), f"must be unique, got {shown(name)} a second time"

    def _quality_faults(self) -> Iterator[tuple[Place, str]]:
        """Finds scores of one task that do not compare: they need one metric on one data set, or a rank each."""
        for task in self.tasks:
            qualities = [entry.quality for entry in self.of_task(task)]
            ranked = any(quality.rank for quality in qualities)
            measures = {(quality.metric, quality.data_set) for quality in qualities}
            for at, entry in enumerate(self.checkpoints):
                if task in entry.tasks and entry.quality.rank is None and (ranked or len(measures) > 1):
                    why = "another has one" if ranked else "their metrics or data sets differ"
                    yield ("checkpoints", at, "quality", "rank"), f"is required of every {task} checkpoint, since {why}"

    def _default_faults(self) -> Iterator[tuple[Place, str]]:
        for task, name in self.defaults.checkpoint.items():
            names = [entry.name for entry in self.of_task(task)]
            if names and name not in names:  # for a task that nothing serves, as its default budget, it is idle
                yield ("defaults", "checkpoint", task), f"must be one of {', '.join(names)}, got {shown(name)}"

        for task, domain in self.defaults.domain.items():
            domains = sorted({entry.domain for entry in self.of_task(task) if entry.domain is not None})
            if self.of_task(task) and domain not in domains:
                known = f"must be one of {', '.join(domains)}" if domains else "must be absent: no checkpoint has one"
                yield ("defaults", "domain", task), f"{known}, got {shown(domain)}"

    def _replica_faults(self) -> Iterator[tuple[Place, str]]:
        for at, entry in enumerate(self.checkpoints):
            if entry.autoscaling and entry.replicas != entry.autoscaling.min_replicas:
                yield ("checkpoints", at, "replicas"), "is autoscaling.min_replicas' to say where there is autoscaling"


def load_catalog(name_or_path: str | Path) -> Catalog:
    """Loads the packaged catalog `starter` or `hub`, or the one in a file. Raises CatalogError naming every fault."""
    place = files("gateway").joinpath("catalogs", f"{name_or_path}.yaml")
    path = Path(str(place)) if name_or_path in PACKAGED else Path(name_or_path)
    try:
        content = path.read_bytes()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise CatalogError(f"{path}: cannot be read: {reason} (packaged catalogs: {', '.join(PACKAGED)})") from None
    return parse_catalog(content, file=str(path), folder=path.parent)


def parse_catalog(content: bytes, file: str, folder: Path) -> Catalog:
    """Parses the catalog in `content`; source folders are relative to `folder`.

    Raises CatalogError naming every fault.
    """
    document = read_document(content, file)
    try:
        return Catalog.model_validate(document.data, context=folder.absolute())
    except ValidationError as error:
        raise CatalogError(*in_words(document, Catalog, error.errors(include_url=False))) from None


def _kind(source: str) -> SourceKind:
    if source.startswith(_STARTER):
        return SourceKind.STARTER
    return SourceKind.HUB if _HUB_ID.fullmatch(source) else SourceKind.FOLDER
