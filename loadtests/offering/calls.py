"""A request of a scenario made ready to send: its body and headers are made before the clock runs.

It knows the contract's headers. It knows no connection, and not what becomes of a request.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from gateway.model.request import BUDGET, CHECKPOINT, MODE, PERCENTILE
from loadtests.offering.stock import Stock
from loadtests.scenarios.model import SPECIAL_TOKENS, TOKENS_PER_WORD
from loadtests.simulator.requests import Offered

Mode: TypeAlias = Literal["strict", "best-effort"]
STRICT: Mode = "strict"
BEST_EFFORT: Mode = "best-effort"


@dataclass(frozen=True)
class Handling:
    """Who chooses the checkpoint, by the name that reports have for it: the gateway, or a pin for each class.

    A class of the mixture that has no pin is left to the gateway. `mode` takes the place of the scenario's own.
    """

    label: str
    pins: Mapping[int, str] = field(default_factory=dict)
    mode: Mode | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """One request ready to send, due so many seconds after the run's beginning; `kind` is its class in the mixture.

    A `shadowed` one is sent once more where it is refused.
    """

    sequence: int
    kind: int
    due_s: float
    task: str
    budget_s: float
    body: bytes
    headers: Mapping[str, str]
    shadowed: bool = False


def calls_of(
    offered: Sequence[Offered], handling: Handling, stock: Stock, shadow_share: float, seed: int
) -> list[Call]:
    """Every request of a run, in the order it is due. Equal seeds, equal bodies, whatever the handling."""
    texts, shadows = random.Random(f"texts {seed}"), random.Random(f"shadows {seed}")
    calls = []
    for one in offered:
        strict = one.strict if handling.mode is None else handling.mode == STRICT
        body = stock.body(one.task, [words_of(one.tokens)] * one.texts, one.domain, texts)
        drawn = shadows.random() < shadow_share
        headers = headers_of(one, strict, handling.pins.get(one.kind))
        calls.append(
            Call(
                one.sequence, one.kind, one.arrived_s, one.task, one.budget_s, body, headers, shadowed=drawn and strict
            )
        )
    return calls


def words_of(tokens: int) -> int:
    """The words of a text that a scenario reckons at so many tokens; at least one."""
    return max(1, round((tokens - SPECIAL_TOKENS) / TOKENS_PER_WORD))


def headers_of(offered: Offered, strict: bool, pin: str | None) -> dict[str, str]:
    """What the contract has of a request's terms."""
    headers = {
        BUDGET: budget_text(offered.budget_s),
        MODE: STRICT if strict else BEST_EFFORT,
        PERCENTILE: f"{offered.percentile:g}",
    }
    return headers if pin is None else {**headers, CHECKPOINT: pin}


def budget_text(budget_s: float) -> str:
    """A budget as its header has it: milliseconds to the microsecond."""
    return f"{budget_s * 1000:.3f}"
