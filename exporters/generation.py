"""How a checkpoint means to write: its generation config, as the manifest records it.

Knows dictionaries, as the JSON files hold them; refuses to know transformers. What a checkpoint asks for and no
replica does is refused by its name, because the variant would write otherwise than its source.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from exporters.errors import SourceRefused
from gateway.model.manifest import GenerationRules

Fields: TypeAlias = Mapping[str, Any]

NUM_BEAMS = 4
LIBRARY_MAX_LENGTH = 20
MAX_NEW_TOKENS = 128
"""Where no file of the checkpoint gives a length: transformers would write 20 tokens, which is no summary."""

USED = (
    "decoder_start_token_id",
    "eos_token_id",
    "max_length",
    "max_new_tokens",
    "min_length",
    "min_new_tokens",
    "num_beams",
    "length_penalty",
    "early_stopping",
    "no_repeat_ngram_size",
    "forced_bos_token_id",
    "forced_eos_token_id",
)
UNKNOWN: dict[str, tuple[object, ...]] = {
    "repetition_penalty": (None, 1.0),
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
"""Fields that change what is written and that no replica knows, with the values that leave it as it is."""


def summarising(generation: Fields, config: Fields) -> dict[str, Any]:
    """The generation config as transformers' summarisation pipeline uses it.

    `config` is the checkpoint's config.json: what stands in its `task_specific_params` under `summarization` comes
    before the generation config.
    """
    special = (config.get("task_specific_params") or {}).get("summarization") or {}
    known = {name: value for name, value in special.items() if name in USED or name in UNKNOWN}
    found = dict(generation) | known
    said = found.get("max_new_tokens") is not None or found.get("max_length") not in (None, LIBRARY_MAX_LENGTH)
    if not said:
        found["max_new_tokens"] = MAX_NEW_TOKENS
    return found


def prefix_of(config: Fields) -> str:
    """What is put before every text that is to be summarised (T5), or nothing."""
    special = (config.get("task_specific_params") or {}).get("summarization") or {}
    return str(special.get("prefix") or "")


def rules_of(generation: Fields, config: Fields, location: str, lower_cased: bool) -> GenerationRules:
    """The rules that a summarising generation config amounts to. Raises SourceRefused, which names the field."""
    _check(generation, location)
    starts = (generation.get(name) for name in ("decoder_start_token_id", "bos_token_id"))
    start = next((token for token in starts if token is not None), None)
    if start is None:
        raise SourceRefused(f"{location}: no decoder_start_token_id says which token its writing begins with")
    most = generation.get("max_new_tokens")
    least = generation.get("min_new_tokens")
    penalty = generation.get("length_penalty")
    return GenerationRules(
        decoder_start_token_id=int(start),
        eos_token_ids=_ids(generation.get("eos_token_id")),
        max_new_tokens=max(1, int(most if most is not None else generation["max_length"] - 1)),
        min_new_tokens=max(0, int(least if least is not None else (generation.get("min_length") or 0) - 1)),
        num_beams=_beams(generation),
        length_penalty=1.0 if penalty is None else float(penalty),
        early_stopping=bool(generation.get("early_stopping")),
        no_repeat_ngram_size=int(generation.get("no_repeat_ngram_size") or 0),
        forced_bos_token_id=_one(generation, "forced_bos_token_id", location),
        forced_eos_token_id=_one(generation, "forced_eos_token_id", location),
        prefix=prefix_of(config),
        lower_cased=lower_cased,
    )


def lower_cases(tokenizer: Fields) -> bool:
    """Whether a tokenizer.json drops the capitals of what it reads, so that its model never wrote any."""
    return _lowers(tokenizer.get("normalizer"))


def _lowers(normalizer: Any) -> bool:
    if not isinstance(normalizer, Mapping):
        return False
    if normalizer.get("type") == "Sequence":
        return any(_lowers(one) for one in normalizer.get("normalizers", ()))
    return normalizer.get("type") == "Lowercase" or bool(normalizer.get("lowercase"))


def _check(generation: Fields, location: str) -> None:
    harmless = {**UNKNOWN, "early_stopping": (None, True, False)}
    for name, values in harmless.items():
        if generation.get(name) not in values:
            asked = f"{name}={generation[name]!r}"
            raise SourceRefused(f"{location}: its generation config asks for {asked}, which is not known here")


def _beams(generation: Fields) -> int:
    """The checkpoint's own number of beams; where it names none, as many as most summarisers use."""
    beams = int(generation.get("num_beams") or 1)
    return beams if beams > 1 else NUM_BEAMS


def _ids(value: Any) -> tuple[int, ...]:
    if value is None:
        return ()
    return tuple(int(one) for one in value) if isinstance(value, (list, tuple)) else (int(value),)


def _one(generation: Fields, name: str, location: str) -> int | None:
    ids = _ids(generation.get(name))
    if len(ids) > 1:
        raise SourceRefused(f"{location}: its generation config has more than one {name}")
    return ids[0] if ids else None
