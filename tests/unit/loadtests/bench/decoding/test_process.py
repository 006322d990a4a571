"""An engine's turn in its own process: what is timed, and that it writes as many tokens as requested."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from loadtests.bench.decoding.peer import DecodingPeer
from loadtests.bench.decoding.process import Ask, written


@dataclass
class Peer:
    """Writes as many tokens as requested, but never more than `most`."""

    encodes_alone: bool = True
    most: int = 100
    arithmetic: str = "fp32"
    asked: list[tuple[str, int, int]] = field(default_factory=list)

    def encode(self, token_ids: Sequence[int]) -> None:
        """Records the read."""
        self.asked.append(("encode", len(token_ids), 0))

    def write(self, token_ids: Sequence[int], beams: int, tokens: int) -> int:
        """Records the request."""
        self.asked.append(("write", beams, tokens))
        return min(tokens, self.most)


def test_a_turn_reads_alone_then_writes_one_token_and_all() -> None:
    """A turn times the encoder alone, if the engine can run it alone, then one token and then all tokens."""
    peer, other = Peer(), Peer(encodes_alone=False)
    sample = written(peer, (7, 8, 3), Ask(beams=4, tokens=12))
    assert peer.asked == [("encode", 3, 0), ("write", 4, 1), ("write", 4, 12)]
    assert sample.tokens == 12 and sample.encode_s is not None and sample.resident_bytes > 10**6
    assert written(other, (7, 8, 3), Ask(beams=1, tokens=2)).encode_s is None
    assert [kind for kind, _, _ in other.asked] == ["write", "write"]


def test_an_engine_that_writes_less_than_asked_is_not_timed() -> None:
    """An engine that writes fewer tokens than requested is an error, because it would look fast."""
    peer: DecodingPeer = Peer(most=5)
    with pytest.raises(ValueError, match="asked for 12 tokens with 1 beams and wrote 5"):
        written(peer, (7, 3), Ask(beams=1, tokens=12))
