"""What a decoding race found, in numbers: times of a token and of a summary, ratios to the baseline, verdicts.

Pure arithmetic over the turns. Durations are in seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from loadtests.turns import WARM_UP, Spread

GREEDY, BEAMS = 1, 4
WORTH = 1.3
"""How many times as fast as the baseline a library must be before it is one more engine to keep alive."""

LEAST_ROUNDS = 3
"""How many rounds must count before anything is judged by them."""


@dataclass(frozen=True)
class DecodingTurn:
    """One engine's turn: what it took to encode alone (None: it cannot), to write one token and to write them all."""

    round: int
    beams: int
    engine: str
    tokens: int
    encode_s: float | None
    one_s: float
    all_s: float
    resident_bytes: int

    @property
    def token_s(self) -> float:
        """One more token: the encoder and the first step are in both times and fall out."""
        return (self.all_s - self.one_s) / (self.tokens - 1)

    @property
    def encoder_s(self) -> float:
        """The encoder: measured alone, else what the first token took more than a further one."""
        return self.one_s - self.token_s if self.encode_s is None else self.encode_s

    @property
    def spoilt(self) -> bool:
        """Whether one token took longer than all of them: the machine did something else meanwhile."""
        return self.all_s <= self.one_s


Measure = Callable[[DecodingTurn], float]


def token(turn: DecodingTurn) -> float:
    """The measure of decoding: seconds for one more token."""
    return turn.token_s


def encoder(turn: DecodingTurn) -> float:
    """The measure of reading: seconds for the text."""
    return turn.encoder_s


def summary(turn: DecodingTurn) -> float:
    """The measure of a whole answer: seconds to read the text and write every token."""
    return turn.all_s


@dataclass(frozen=True)
class DecodingTurns:
    """Every turn of a race. A round in which any engine's turn was spoilt does not count at those beams."""

    taken: tuple[DecodingTurn, ...]

    def rounds(self, beams: int) -> list[int]:
        """The rounds that count at so many beams: not the warm-up, none spoilt."""
        here = [turn for turn in self.taken if turn.beams == beams]
        return sorted({turn.round for turn in here} - {turn.round for turn in here if turn.spoilt} - {WARM_UP})

    def spoilt(self) -> list[DecodingTurn]:
        """The turns, the warm-up's left out, whose round does not count."""
        return [turn for turn in self.taken if turn.spoilt and turn.round != WARM_UP]

    def spread(self, engine: str, beams: int, measure: Measure) -> Spread | None:
        """An engine's measure over the rounds that count, or None where none does."""
        values = list(self._by_round(engine, beams, measure).values())
        return Spread.of(values) if values else None

    def gain(self, engine: str, baseline: str, beams: int, measure: Measure) -> Spread | None:
        """How many times as fast as the baseline: taken within each round, then over the rounds that count."""
        ours, theirs = (self._by_round(name, beams, measure) for name in (engine, baseline))
        gains = [theirs[number] / value for number, value in ours.items() if number in theirs]
        return Spread.of(gains) if gains else None

    def resident(self, engine: str) -> int:
        """The most bytes that an engine held after any turn; 0 where it had none."""
        return max((turn.resident_bytes for turn in self.taken if turn.engine == engine), default=0)

    def _by_round(self, engine: str, beams: int, measure: Measure) -> dict[int, float]:
        counted = set(self.rounds(beams))
        return {
            turn.round: measure(turn)
            for turn in self.taken
            if turn.engine == engine and turn.beams == beams and turn.round in counted
        }


@dataclass(frozen=True)
class Verdict:
    """Whether one more library is worth an engine: how many times as fast as the baseline, greedy and with beams.

    A gain is None where fewer rounds count than may be judged by.
    """

    engine: str
    baseline: str
    greedy: Spread | None
    beams: Spread | None

    @property
    def worth(self) -> bool:
        """Whether greedy or beams gain enough in every round that counts. Without such a round: no."""
        return any(gain.low >= WORTH for gain in (self.greedy, self.beams) if gain)

    def sentence(self) -> str:
        """The verdict with its figures."""
        gains = {"greedy": self.greedy, f"{BEAMS} beams": self.beams}
        said = "; ".join(f"{name} {_times(gain)}" for name, gain in gains.items())
        return f"{self.engine}: {self._word()}: {said} × {self.baseline}'s speed"

    def _word(self) -> str:
        if self.worth:
            return "worth an engine"
        if self.greedy is None and self.beams is None:
            return f"not judged, fewer than {LEAST_ROUNDS} rounds count"
        unsteady = any(gain.median >= WORTH for gain in (self.greedy, self.beams) if gain)
        return (
            f"not worth an engine: {WORTH:g} is passed, but not in every round" if unsteady else "not worth an engine"
        )


def verdicts(turns: DecodingTurns, candidates: Sequence[str], baseline: str) -> list[Verdict]:
    """One for each candidate; none where the baseline did not run."""
    judged = [beams if len(turns.rounds(beams)) >= LEAST_ROUNDS else None for beams in (GREEDY, BEAMS)]
    if not any(turn.engine == baseline for turn in turns.taken):
        return []
    return [
        Verdict(name, baseline, *(turns.gain(name, baseline, beams, token) if beams else None for beams in judged))
        for name in candidates
    ]


def _times(gain: Spread | None) -> str:
    return f"{gain.median:.2f} ({gain.low:.2f} to {gain.high:.2f})" if gain else "not measured"
