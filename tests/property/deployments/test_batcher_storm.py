"""The batcher under any mix of batches: some with poison in them, some whose callers leave, some too late."""

from __future__ import annotations

import asyncio
import time
from typing import NamedTuple

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from deployments.engines.base import Logits, TokenIds
from deployments.replica.batcher import Batcher, Results, Row
from gateway.model.messages import Failure, FailureKind
from gateway.model.profile import LatencyProfile

PROFILE = LatencyProfile((1, 8), (8, 64), ((0.001, 0.002), (0.004, 0.008)), sigma=0.1)
POISON = 10_000
MOST_QUEUED = 30


class Input(NamedTuple):
    """One input of `tokens` tokens."""

    tokens: int
    budget_s: float
    strict: bool
    poisonous: bool

    @property
    def never_in_time(self) -> bool:
        """True if it is strict and its deadline has passed before it is sent."""
        return self.strict and self.budget_s < 0


class Caller(NamedTuple):
    """One batch; `pause` and `leaves_after` are in turns of the event loop."""

    inputs: list[Input]
    leaves_after: int | None
    pause: int


inputs_given = st.builds(
    Input,
    tokens=st.integers(1, 64),
    budget_s=st.sampled_from([-1.0, 0.002, 600.0, 600.0]),
    strict=st.booleans(),
    poisonous=st.sampled_from([False, False, False, True]),
)
callers_given = st.lists(
    st.builds(
        Caller,
        inputs=st.lists(inputs_given, min_size=1, max_size=20),
        leaves_after=st.sampled_from([None, None, 0, 1, 2, 5, 20]),
        pause=st.sampled_from([0, 0, 0, 1, 10]),
    ),
    max_size=12,
)


def engine_run(token_ids: TokenIds, mask: TokenIds, token_types: TokenIds | None = None) -> Logits:
    """Echoes each row's first id, which identifies the input; raises on poison."""
    if (token_ids >= POISON).any():
        raise ArithmeticError("poison")
    return token_ids[:, :1].astype(np.float32)


async def outcomes(batcher: Batcher, callers: list[Caller]) -> list[Results | BaseException]:
    """Starts all callers on the batcher, and waits until each has its outcome."""
    batcher.start()
    tasks: list[asyncio.Task[Results]] = []
    async with asyncio.timeout(60), asyncio.TaskGroup() as leavers:
        for number, caller in enumerate(callers):
            for _ in range(caller.pause):
                await asyncio.sleep(0)
            now = time.monotonic()
            rows = [
                Row([100 * number + place + POISON * one.poisonous] * one.tokens, now + one.budget_s, one.strict)
                for place, one in enumerate(caller.inputs)
            ]
            tasks.append(asyncio.create_task(batcher.submit(rows)))
            if caller.leaves_after is not None:
                leavers.create_task(leave(tasks[-1], caller.leaves_after))
        found = await asyncio.gather(*tasks, return_exceptions=True)
    assert batcher.load().queued == 0
    await batcher.stop(60)
    assert batcher.load().backlog_s == 0.0
    return found


async def leave(task: asyncio.Task[Results], turns: int) -> None:
    """Cancels the caller after these turns of the event loop."""
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()


@given(callers_given, st.integers(1, 3))
def test_every_input_gets_exactly_the_end_that_is_its_own(callers: list[Caller], threads: int) -> None:
    """Each batch gets one result for each input: its own logits, or the one failure that fits it. Nobody waits on."""
    batcher = Batcher(engine_run, PROFILE, time.monotonic, MOST_QUEUED, threads=threads)
    for number, (caller, outcome) in enumerate(zip(callers, asyncio.run(outcomes(batcher, callers)), strict=True)):
        if isinstance(outcome, BaseException):
            assert isinstance(outcome, asyncio.CancelledError) and caller.leaves_after is not None
            continue
        assert len(outcome) == len(caller.inputs)
        if Failure(FailureKind.QUEUE_FULL) in outcome:
            assert outcome == [Failure(FailureKind.QUEUE_FULL)] * len(caller.inputs)
            continue
        for place, (one, result) in enumerate(zip(caller.inputs, outcome, strict=True)):
            if not isinstance(result, Failure):
                assert result.logits.tolist() == [100 * number + place]
                assert not (one.poisonous or one.never_in_time)
            elif result.kind is FailureKind.ENGINE:
                assert one.poisonous and not one.never_in_time
            else:
                assert result.kind is FailureKind.EXPIRED and one.strict and one.budget_s < 600
