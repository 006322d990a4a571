"""What is published of tasks, families and checkpoints: `knowledge.yaml`, read and checked once.

It knows what papers and model cards say. It does not know what this host measured or serves.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cache
from importlib.resources import files
from typing import Literal, Self, TypeAlias

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from gateway.advising.shape import Shape

Purpose: TypeAlias = str
"""What a task or an architecture does with a text: understand, generate or transform it."""

Architecture: TypeAlias = Literal["encoder", "decoder", "encoder-decoder"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TaskFacts(_Frozen):
    """What a task asks of a checkpoint. `compare_by` is the scale that checkpoints of it are compared by, or none."""

    does: Purpose
    title: str
    compare_by: str


class ArchitectureFacts(_Frozen):
    """What an architecture is for, and why."""

    does: Purpose
    why: str


class FamilyFacts(_Frozen):
    """A family, and what distinguishes it in a few words. `facts` names the source."""

    architecture: Architecture
    why: str
    facts: str


class PublicCheckpoint(_Frozen):
    """One published checkpoint, and the catalogs' sources that were fine-tuned from it; see `knowledge.yaml`."""

    name: str
    family: str
    hub: str | None = None
    derived: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()
    nothing_else: bool = False
    shape: Shape
    languages: tuple[str, ...] = Field(min_length=1)
    language_count: int | None = Field(default=None, ge=1)
    domain: str | None = None
    offers: tuple[str, ...] = ()
    scores: dict[str, float] = Field(default_factory=dict)
    licence: str
    facts: tuple[str, ...] = Field(min_length=1)

    @property
    def spoken(self) -> int:
        """The number of languages that it was pretrained on."""
        return self.language_count or len(self.languages)


class ReadingReference(_Frozen):
    """Measured medians in milliseconds of reading one text, by tokens, on a checkpoint shaped as `like`."""

    like: str
    measured_on: str
    threads: int = Field(ge=1)
    ms: dict[int, float] = Field(min_length=1)
    facts: str


class WritingReference(ReadingReference):
    """A reading reference of a checkpoint that writes, with medians of a written token by beams."""

    step_ms: dict[int, float] = Field(min_length=1)


class References(_Frozen):
    """What estimates begin from where nothing was measured on this host."""

    reading: ReadingReference
    writing: WritingReference


class Knowledge(_Frozen):
    """All of it, with every fact's source found."""

    sources: dict[str, str]
    reference: References
    tasks: dict[str, TaskFacts]
    architectures: dict[Architecture, ArchitectureFacts]
    families: dict[str, FamilyFacts]
    checkpoints: tuple[PublicCheckpoint, ...]

    @model_validator(mode="after")
    def _names_are_found(self) -> Self:
        """Every source, family, task and reference that is named exists, and no location is claimed twice."""
        references = (self.reference.reading, self.reference.writing)
        cited = [fact for one in self.checkpoints for fact in one.facts]
        cited += [family.facts for family in self.families.values()] + [one.facts for one in references]
        named: dict[str, tuple[list[str], Collection[str]]] = {
            "sources": (cited, self.sources),
            "families": ([one.family for one in self.checkpoints], self.families),
            "architectures": (
                [one.does for one in self.tasks.values()],
                {one.does for one in self.architectures.values()},
            ),
            "tasks": ([task for one in self.checkpoints for task in one.answers], self.tasks),
            "checkpoints": ([one.like for one in references], {one.name for one in self.checkpoints}),
        }
        for what, (used, known) in named.items():
            if missing := sorted(set(used) - set(known)):
                raise ValueError(f"{what} lacks {', '.join(missing)}")
        claimed = [place for one in self.checkpoints for place in (*one.derived, *([one.hub] if one.hub else []))]
        if twice := sorted({place for place in claimed if claimed.count(place) > 1}):
            raise ValueError(f"several checkpoints have {', '.join(twice)}")
        return self

    def of_source(self, source: str) -> PublicCheckpoint | None:
        """The checkpoint at a catalog's source, or that it was fine-tuned from; None if it is not known."""
        return next((one for one in self.checkpoints if source == one.hub or source in one.derived), None)

    def named(self, name: str) -> PublicCheckpoint:
        """The checkpoint of that name. Raises KeyError."""
        return {one.name: one for one in self.checkpoints}[name]

    def architecture_of(self, family: str) -> Architecture | None:
        """The architecture of a family, by the name that catalogs give it; None if it is not known."""
        found = self.families.get(family)
        return None if found is None else found.architecture

    @property
    def domains(self) -> tuple[str, ...]:
        """The subjects that checkpoints were pretrained on."""
        return tuple(sorted({one.domain for one in self.checkpoints if one.domain}))

    @property
    def offers(self) -> tuple[str, ...]:
        """What checkpoints offer that others lack."""
        return tuple(sorted({offer for one in self.checkpoints for offer in one.offers}))


@cache
def knowledge() -> Knowledge:
    """Reads `knowledge.yaml`, once."""
    content = files("gateway").joinpath("advising", "knowledge.yaml").read_bytes()
    document: Mapping[str, object] = yaml.safe_load(content)
    return Knowledge.model_validate(document)
