"""Laws of a past that texts share: each text finds its own, whoever joins, leaves, forks or dies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from deployments.engines import shared_past
from deployments.engines.base import Logits, TokenIds
from deployments.engines.past_memory import PastLedger, PastNeed
from deployments.engines.shared_past import (
    COPIES,
    PAGE,
    TOKENS_STEP,
    WASTED,
    Share,
    SharedPast,
    StepRunner,
    most_bytes,
    rounded,
    twin,
)

NAMES, HEADS, WIDTH = 4, 2, 3


class Texts(RuleBasedStateMachine):
    """Texts that step in any company, each beside what its keys and values must be."""

    def __init__(self) -> None:
        super().__init__()
        self.chance = np.random.default_rng(0)
        self.runner = StepRunner(self.run_rows)
        self.shares: list[Share] = []
        self.own: list[Any] = []  # (names, rows, heads, tokens, width) of each text
        self.sources: list[Any] = []  # (names, heads, tokens, width) of each text
        self.ran: list[int] = []

    def drawn(self, *size: int) -> Any:
        """Numbers that no other place has."""
        return self.chance.normal(size=size).astype(np.float32)

    @rule(tokens=st.sampled_from([1, 5, PAGE - 1, PAGE, PAGE + 1, 3 * PAGE]), before=st.sampled_from([1, 31, 40]))
    def begin(self, tokens: int, before: int) -> None:
        """A text begins, with one row."""
        self.own.append(self.drawn(NAMES, 1, HEADS, before, WIDTH))
        self.sources.append(self.drawn(NAMES, HEADS, tokens, WIDTH))
        self.shares.append(
            SharedPast.begun(list(self.own[-1]), [one[np.newaxis] for one in self.sources[-1]], self.runner.ledger)
        )

    @rule(data=st.data())
    def copy(self, data: st.DataObject) -> None:
        """A text gets a twin, which goes on by itself."""
        if self.shares:
            at = data.draw(st.integers(0, len(self.shares) - 1))
            self.shares.append(twin(self.shares[at]))
            self.own.append(self.own[at].copy())
            self.sources.append(self.sources[at])

    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        """A text ends."""
        if self.shares:
            at = data.draw(st.integers(0, len(self.shares) - 1))
            for kept in (self.shares, self.own, self.sources):
                del kept[at]

    @rule(data=st.data(), beams=st.integers(1, 4))
    def step(self, data: st.DataObject, beams: int) -> None:
        """Some step together, in any order; their beams fork, die and swap."""
        if not self.shares:
            return
        chosen = data.draw(st.lists(st.integers(0, len(self.shares) - 1), min_size=1, max_size=6, unique=True))
        origins = [self.chance.integers(0, self.own[at].shape[1], beams) for at in chosen]
        for at, of_rows in zip(chosen, origins, strict=True):
            self.own[at] = self.own[at][:, of_rows]
        self.ran = chosen
        tokens = [self.chance.integers(0, 99, beams) for _ in chosen]
        found = self.runner.step([self.shares[at] for at in chosen], list(zip(tokens, origins, strict=True)))
        assert [one[:, 0].astype(int).tolist() for one in found] == [one.tolist() for one in tokens]

    def run_rows(self, past: SharedPast, shares: Sequence[Share], ids: TokenIds) -> tuple[Logits, list[Any]]:
        """Finds every text's keys and values where it should, and nothing between them."""
        assert sorted(row for one in shares for row in one.rows) == list(range(len(ids)))
        pages = [page for one in shares for page in one.pages]
        assert sorted(pages) == list(range(len(pages)))
        for at, share in zip(self.ran, shares, strict=True):
            np.testing.assert_array_equal(past.own[:, share.rows, :, : share.length], self.own[at])
            source = np.stack([np.concatenate(list(one[share.pages]), axis=1) for one in past.cross])
            np.testing.assert_array_equal(source[:, :, : share.source], self.sources[at])
        assert np.isfinite(past.own).all()
        made = self.drawn(NAMES, len(ids), HEADS, 1, WIDTH)
        for at, share in zip(self.ran, shares, strict=True):
            self.own[at] = np.concatenate([self.own[at], made[:, share.rows]], axis=3)
        return ids[:, np.newaxis].astype(np.float32), list(made)

    @invariant()
    def memory_goes_with_the_texts(self) -> None:
        """Buffers are no larger than what was last in them, but for a few times the rows and pages."""
        for share, own in zip(self.shares, self.own, strict=True):
            rows = sum(len(one.rows) for one in share.past.members)
            assert len(share.past.own[0]) <= 64 and rows >= own.shape[1]
            assert share.past.own.shape[3] % TOKENS_STEP == 0 and share.past.own.shape[3] >= rounded(share.length)

    @invariant()
    def no_more_is_held_than_was_said(self) -> None:
        """Pasts that gave back what they may hold no more than was said of the texts under way."""
        self.runner.tidy()
        needs = [
            PastNeed(own.shape[1], own.shape[3], source.shape[2])
            for own, source in zip(self.own, self.sources, strict=True)
        ]
        a_position = NAMES * HEADS * WIDTH * np.dtype(np.float32).itemsize
        assert self.runner.ledger.held_bytes <= WASTED / COPIES * most_bytes(needs, a_position, a_position)


TestTexts = Texts.TestCase
TestTexts.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)


def test_texts_whose_rows_were_half_moved_are_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where memory runs out amid the moving of rows, the texts fail from then on; none goes on with another's rows."""
    chance = np.random.default_rng(0)

    def begun() -> Share:
        own = list(chance.normal(size=(NAMES, 2, HEADS, 3, WIDTH)).astype(np.float32))
        return SharedPast.begun(
            own, [chance.normal(size=(1, HEADS, 5, WIDTH)).astype(np.float32)] * NAMES, PastLedger()
        )

    def echoed(past: SharedPast, shares: Sequence[Share], ids: TokenIds) -> tuple[Logits, list[Any]]:
        return ids[:, np.newaxis].astype(np.float32), [np.zeros((len(ids), HEADS, 1, WIDTH), np.float32)] * NAMES

    def full(*_: object) -> None:
        raise MemoryError

    runner, shares, other = StepRunner(echoed), [begun(), begun()], begun()
    swapped = [(np.asarray([1, 2]), np.asarray([1, 0]))] * 2
    with monkeypatch.context() as patched:
        patched.setattr(shared_past, "_gather", full)
        with pytest.raises(MemoryError):
            runner.step(shares, swapped)
    for one in shares:
        with pytest.raises(RuntimeError, match="moved the text's rows"):
            runner.step([one], swapped[:1])
    assert len(runner.step([other], swapped[:1])) == 1
