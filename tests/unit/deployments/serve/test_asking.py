"""Asking many replicas at once: one that hangs does not delay the others, and its call is withdrawn."""

from __future__ import annotations

import asyncio

import pytest
from virtual_time import loop_clock, turns

from deployments.serve.asking import each_within

WITHIN_S = 30.0


class FakeCall:
    """A call that answers with a text, raises an error, or hangs without either."""

    def __init__(self, answer: str | Exception | None) -> None:
        self.answer = answer
        self.cancelled = 0
        self.begun, self.left = asyncio.Event(), asyncio.Event()

    async def get_async(self) -> object:
        """Answers, raises or hangs, as set."""
        self.begun.set()
        if self.answer is None:
            try:
                await asyncio.Event().wait()
            finally:
                self.left.set()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def cancel(self) -> None:
        """Counts the cancellation."""
        self.cancelled += 1


@pytest.mark.virtual_time
async def test_one_that_hangs_silences_no_other() -> None:
    """A call that hangs or raises leaves None in its place, and is not waited for beyond its time."""
    calls = [FakeCall("a"), FakeCall(None), FakeCall(ConnectionError("gone")), FakeCall("d")]
    began_s = loop_clock()()
    assert await each_within(calls, 1.5) == ["a", None, None, "d"]
    assert loop_clock()() - began_s == 1.5
    await asyncio.sleep(0)
    assert [call.cancelled for call in calls] == [0, 1, 0, 0] and calls[1].left


@pytest.mark.virtual_time
async def test_nobody_is_waited_for_once_all_have_answered() -> None:
    """Nothing is waited for once all have answered, however much time there is."""
    began_s = loop_clock()()
    assert await each_within([FakeCall("a"), FakeCall("b")], 60.0) == ["a", "b"]
    assert await each_within([], 60.0) == []
    assert loop_clock()() == began_s


@pytest.mark.virtual_time
async def test_who_leaves_takes_the_calls_with_him() -> None:
    """A caller that is cancelled leaves no call under way."""
    call = FakeCall(None)
    task = asyncio.create_task(each_within([call], 60.0))
    await turns()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await asyncio.wait_for(call.left.wait(), WITHIN_S)
    assert task.cancelled() and call.cancelled == 1
