"""The three training runs in their order, each leaving its weights and a record of itself in the work folder.

A run that finds a record of the same recipe is not repeated, so an interrupted build goes on where it stopped.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from pydantic import TypeAdapter
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from exporters.starter import distil, train
from exporters.starter.fit import Advance, Fitted, Recipe
from exporters.starter.material import Material

SMOKE_STEPS = 3
THREADS = 2


@dataclass(frozen=True)
class Lesson:
    """One finished training run: its recipe, what it came to on dev and how long it took."""

    name: str
    recipe: Recipe
    fitted: Fitted
    wall_s: float


@dataclass(frozen=True)
class Learned:
    """A trained model, still in fp32, with the record of its training."""

    model: PreTrainedModel
    lesson: Lesson


Watch = Callable[[str], Advance]
"""A run's name to the ticker of its steps."""
Run = Callable[[Material, Recipe, Advance], Fitted]


def learn(material: Material, work: Path, watch: Watch, smoke: bool = False) -> list[Learned]:
    """The teacher, the student it taught, and the teacher taught again by both; three steps of each in a smoke run."""
    torch.set_num_threads(THREADS)
    work.mkdir(parents=True, exist_ok=True)

    def once(name: str, model: PreTrainedModel, recipe: Recipe, run: Run) -> Learned:
        asked = replace(recipe, max_steps=SMOKE_STEPS) if smoke else recipe
        return _once(name, model, work, lambda: run(material, asked, watch(name)), asked)

    teacher = train.teacher_from(material.base, material.vocabulary)
    first = once(train.NAME, teacher, train.RECIPE, partial(train.train_teacher, teacher))
    student = distil.student_from(teacher)
    second = once(distil.NAME, student, distil.RECIPE, partial(distil.distil, [teacher], student))
    both = partial(distil.distil, [teacher, student], teacher)
    return [first, second, once(distil.POLISHED_NAME, teacher, distil.POLISHED_RECIPE, both)]


def _once(name: str, model: PreTrainedModel, work: Path, run: Callable[[], Fitted], recipe: Recipe) -> Learned:
    """The run's outcome, from its record where there is one."""
    weights, record, adapter = work / f"{name}.safetensors", work / f"{name}.json", TypeAdapter(Lesson)
    if record.exists() and (found := adapter.validate_json(record.read_bytes())).recipe == recipe:
        model.load_state_dict(load_file(weights))
        return Learned(model, found)
    started = time.monotonic()
    lesson = Lesson(name, recipe, run(), time.monotonic() - started)
    save_file(model.state_dict(), weights)
    record.write_bytes(adapter.dump_json(lesson, indent=2))
    return Learned(model, lesson)
