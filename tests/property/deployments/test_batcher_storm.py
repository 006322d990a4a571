"""The batcher under any mix of callers: some poisonous, some gone, some too late."""

from __future__ import annotations

import asyncio
import time
from typing import NamedTuple

import numpy as np
from deployments.replica.batch_forming import BatchLimits
from hypothesis import given
from hypothesis import strategies as st

from deployments.engines.base import Logits, TokenIds
from deployments.replica.batcher import Batcher, Scored
from gateway.model.messages import Failure, FailureKind
from gateway.model.profile import LatencyProfile

PROFILE = LatencyProfile((1, 8), (8, 64), ((0.001, 0.002), (0.004, 0.008)), sigma=0.1)
POISON = 10_000


class Caller(NamedTuple):
    """One input of `tokens` tokens; `pause` and `leaves_after` are in turns of the event loop."""

    tokens: int
    budget_s: float
    strict: bool
    poisonous: bool
    leaves_after: int | None
    pause: int


callers_given = st.lists(
    st.builds(
        Caller,
        tokens=st.integers(1, 64),
        budget_s=st.sampled_from([-1.0, 0.002, 600.0, 600.0]),
        strict=st.booleans(),
        poisonous=st.sampled_from([False, False, False, True]),
        leaves_after=st.sampled_from([None, None, 0, 1, 2, 5, 20]),
        pause=st.sampled_from([0, 0, 0, 1, 10]),
    ),
    max_size=25,
)


def engine_run(token_ids: TokenIds, mask: TokenIds) -> Logits:
    """Echoes each row's first id, which identifies the caller; raises on poison."""
    if (token_ids >= POISON).any():
        raise ArithmeticError("poison")
    return token_ids[:, :1].astype(np.float32)


async def outcomes(batcher: Batcher, callers: list[Caller]) -> list[Scored | Failure | BaseException]:
    """Starts all callers on the batcher, and waits until each has its outcome."""
    batcher.start()
    tasks: list[asyncio.Task[Scored | Failure]] = []
    async with asyncio.timeout(60), asyncio.TaskGroup() as leavers:
        for number, caller in enumerate(callers):
            for _ in range(caller.pause):
                await asyncio.sleep(0)
            ids = [number + POISON * caller.poisonous] * caller.tokens
            tasks.append(asyncio.create_task(batcher.submit(ids, time.monotonic() + caller.budget_s, caller.strict)))
            if caller.leaves_after is not None:
                leavers.create_task(leave(tasks[-1], caller.leaves_after))
        found = await asyncio.gather(*tasks, return_exceptions=True)
    assert batcher.load().queued == 0
    await batcher.stop(60)
    return found


async def leave(task: asyncio.Task[Scored | Failure], turns: int) -> None:
    """Cancels the caller after its `leaves_after` turns of the event loop."""
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()


@given(callers_given)
def test_everybody_gets_exactly_the_end_that_is_theirs(callers: list[Caller]) -> None:
    """Each caller gets its own logits, or the one failure that fits what it did; no caller is left waiting."""
    limits = BatchLimits(max_batch=8, max_batch_tokens=256, max_padding_waste=0.4)
    batcher = Batcher(engine_run, PROFILE, limits, time.monotonic, max_queued=100)
    for number, (caller, outcome) in enumerate(zip(callers, asyncio.run(outcomes(batcher, callers)), strict=True)):
        if isinstance(outcome, Scored):
            assert outcome.logits.tolist() == [number] and not caller.poisonous
            assert not (caller.strict and caller.budget_s < 0)
        elif isinstance(outcome, Failure) and outcome.kind is FailureKind.ENGINE:
            assert caller.poisonous
        elif isinstance(outcome, Failure):
            assert outcome.kind is FailureKind.EXPIRED and caller.strict and caller.budget_s < 600
        else:
            assert isinstance(outcome, asyncio.CancelledError) and caller.leaves_after is not None
