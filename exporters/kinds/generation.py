"""Reads how a checkpoint writes: its generation config, as transformers' pipelines use it.

A field that replicas do not support is refused by name, since the variant would write other text than its source.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, TypeAlias

from exporters.errors import SourceRefused

Fields: TypeAlias = Mapping[str, Any]
Harmless: TypeAlias = Mapping[str, tuple[object, ...]]

LIBRARY_MAX_LENGTH = 20

UNSUPPORTED: Harmless = {
    "encoder_repetition_penalty": (None, 1.0),
    "encoder_no_repeat_ngram_size": (None, 0),
    "bad_words_ids": (None,),
    "suppress_tokens": (None, []),
    "begin_suppress_tokens": (None, []),
    "forced_decoder_ids": (None,),
    "sequence_bias": (None,),
    "exponential_decay_length_penalty": (None,),
    "num_beam_groups": (None, 1),
    "penalty_alpha": (None,),
    "guidance_scale": (None, 1.0),
}
"""Generation fields that no replica supports, with the values that have no effect."""


def for_task(generation: Fields, config: Fields, task: str, known: Collection[str], most: int) -> dict[str, Any]:
    """The generation config as transformers' pipeline of a task uses it, with a most of new tokens if it names none.

    `config` is the checkpoint's config.json: its `task_specific_params` of the task override the generation config in
    the known fields.
    """
    special = (config.get("task_specific_params") or {}).get(task) or {}
    found = dict(generation) | {name: value for name, value in special.items() if name in known}
    said = found.get("max_new_tokens") is not None or found.get("max_length") not in (None, LIBRARY_MAX_LENGTH)
    if not said:
        found["max_new_tokens"] = most
    return found


def check_supported(generation: Fields, harmless: Harmless, location: str) -> None:
    """Raises SourceRefused for the first field with a value that would have an effect, and none in a replica."""
    for name, values in harmless.items():
        if generation.get(name) not in values:
            asked = f"{name}={generation[name]!r}"
            raise SourceRefused(f"{location}: its generation config asks for {asked}, which is not supported")


def ids_of(value: int | list[int] | tuple[int, ...] | None) -> tuple[int, ...]:
    """The token ids of a field that has none, one or several."""
    if value is None:
        return ()
    return tuple(int(one) for one in value) if isinstance(value, (list, tuple)) else (int(value),)
