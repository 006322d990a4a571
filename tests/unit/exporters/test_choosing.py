"""Laws of the choice among engines: the shortest mean run wins, the preferred one where they are nearly equal."""

from __future__ import annotations

import random
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.engines.base import Engine, Logits, TokenIds
from exporters.choosing import CLEARLY, LEAST_ROUNDS, MIXTURE, MOST_ROUNDS, in_words, mixture, race
from exporters.errors import ExportFailed
from exporters.plan import Candidate
from exporters.profiling import Shape, Watch
from gateway.model.manifest import Precision

INT8, FP32, BF16 = (
    Candidate("onnx", Precision.INT8),
    Candidate("onnx", Precision.FP32),
    Candidate("openvino", Precision.BF16),
)
ALL = (INT8, FP32, BF16)
WINDOW = 512


class Timed:
    """An engine that takes a given time a token, on a clock of its own."""

    def __init__(self, clock: list[float], per_token_s: float) -> None:
        self._clock, self._per_token_s = clock, per_token_s
        self.shapes: list[tuple[int, ...]] = []

    def run(self, token_ids: TokenIds, attention_mask: TokenIds, token_types: TokenIds | None = None) -> Logits:
        """Let the time pass."""
        self._clock[0] += self._per_token_s * token_ids.size
        self.shapes.append(token_ids.shape)
        return np.zeros((len(token_ids), 2), dtype=np.float32)


class Course:
    """A race of engines that each take their time a token; those without one cannot be opened."""

    def __init__(self, per_token_s: Mapping[Candidate, float], budget_s: float = 1.0, window: int = WINDOW) -> None:
        self._clock = [0.0]
        self.engines = {one: Timed(self._clock, s) for one, s in per_token_s.items()}
        watch = Watch(lambda: self._clock[0], random.Random(1), budget_s)
        self.race = race(ALL, self._opened, window, [2, 7, 3], watch)
        self.took_s = self._clock[0]

    def _opened(self, one: Candidate) -> Engine:
        if one not in self.engines:
            raise ImportError("no such library")
        return self.engines[one]


def test_the_mixture_is_whole_in_every_window() -> None:
    """The shares of the shapes add up to one, and no shape is longer than the window."""
    for window in (8, 64, 100, 512, 1024):
        shares = mixture(window)
        assert sum(shares.values()) == pytest.approx(1) and max(shape.tokens for shape in shares) <= window
    assert mixture(WINDOW) == MIXTURE


@given(st.tuples(*[st.floats(1e-6, 1e-4)] * 3))
def test_the_first_is_the_fastest_or_preferred_and_nearly_as_fast(per_token_s: tuple[float, float, float]) -> None:
    """No engine is so much faster than the first of the ranking that it had to go first, and all are ranked once."""
    times = dict(zip(ALL, per_token_s, strict=True))
    order = Course(times).race.ranked()
    assert sorted(order, key=ALL.index) == list(ALL)
    first = order[0]
    assert times[first] <= min(times.values()) * CLEARLY**2
    assert not any(times[one] * CLEARLY < times[first] and ALL.index(one) < ALL.index(first) for one in ALL)


def test_a_tie_is_the_preferred_engines() -> None:
    """Of engines as fast as each other the catalog's order decides."""
    assert Course(dict.fromkeys(ALL, 1e-5)).race.ranked() == list(ALL)


def test_another_library_must_be_clearly_faster() -> None:
    """An engine that is 5 % faster than a preferred one comes after it, and before it when it is a fifth faster."""
    assert Course({INT8: 1e-5, BF16: 0.95e-5, FP32: 1e-4}).race.ranked()[0] == INT8
    assert Course({INT8: 1e-5, BF16: 0.8e-5, FP32: 1e-4}).race.ranked()[0] == BF16


def test_an_engine_that_cannot_be_opened_is_recorded_and_not_ranked() -> None:
    """A candidate whose library is missing leaves the race to the others, with its reason in the record."""
    found = Course({INT8: 1e-5, FP32: 2e-5}).race
    assert found.ranked() == [INT8, FP32]
    choice = found.choice("here", 1, {INT8: 0.99})
    assert [one.failed for one in choice.raced] == [None, None, "no such library"]
    assert [one.label_agreement for one in choice.raced] == [0.99, None, None]
    assert in_words(choice, INT8.variant).startswith("onnx-int8, ") and "no such library" in in_words(
        choice, "onnx-int8"
    )


def test_a_race_that_nobody_can_run_is_an_error() -> None:
    """Where no engine can be opened, the error names each with its reason."""
    with pytest.raises(ExportFailed, match="openvino-bf16: no such library"):
        Course({})


@given(st.floats(1e-8, 1e-2), st.floats(0.01, 5))
def test_a_race_takes_about_its_budget(per_token_s: float, budget_s: float) -> None:
    """A race ends within its budget if three rounds fit, and every engine runs every shape as often."""
    course = Course(dict.fromkeys(ALL, per_token_s), budget_s)
    rounds = {len(engine.shapes) / len(MIXTURE) - 1 for engine in course.engines.values()}
    assert len(rounds) == 1
    (count,) = rounds
    assert LEAST_ROUNDS <= count <= MOST_ROUNDS
    round_s = 3 * per_token_s * sum(shape.area for shape in MIXTURE)
    assert count * round_s <= max(budget_s, LEAST_ROUNDS * round_s) * 1.001


def test_the_mean_is_by_the_shares() -> None:
    """The mean run is the sum of the shapes' least times by their shares."""
    found = Course({INT8: 1e-5}).race.found[INT8]
    assert found.mean_s == pytest.approx(sum(share * shape.area * 1e-5 for shape, share in MIXTURE.items()))
    assert {Shape(at.batch, at.tokens): at.share for at in found.shapes} == MIXTURE
