"""Asking many replicas: each has its own time, one that hangs costs the others nothing, and its call is withdrawn."""

from __future__ import annotations

import asyncio

from deployments.asking import each_within

WITHIN_S = 30.0


class FakeCall:
    """A call that answers with a text, raises an error, or hangs without either."""

    def __init__(self, answer: str | Exception | None) -> None:
        self.answer = answer
        self.cancelled = 0
        self.begun, self.left = asyncio.Event(), asyncio.Event()

    async def get_async(self) -> object:
        """Behaves."""
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
        """Counts it."""
        self.cancelled += 1


async def test_one_that_hangs_silences_no_other() -> None:
    """Answers stand in their places, None for a call that hangs or raises; one that hangs is not waited for."""
    calls = [FakeCall("a"), FakeCall(None), FakeCall(ConnectionError("gone")), FakeCall("d")]
    async with asyncio.timeout(WITHIN_S):
        assert await each_within(calls, 0.05) == ["a", None, None, "d"]
    await asyncio.wait_for(calls[1].left.wait(), WITHIN_S)
    assert [call.cancelled for call in calls] == [0, 1, 0, 0]


async def test_nobody_is_waited_for_once_all_have_answered() -> None:
    """An hour that is left is not spent."""
    async with asyncio.timeout(WITHIN_S):
        assert await each_within([FakeCall("a"), FakeCall("b")], 3600.0) == ["a", "b"]
        assert await each_within([], 3600.0) == []


async def test_cancelling_the_question_cancels_its_calls() -> None:
    """No call is left under way."""
    call = FakeCall(None)
    task = asyncio.create_task(each_within([call], 3600.0))
    await call.begun.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await asyncio.wait_for(call.left.wait(), WITHIN_S)
    assert task.cancelled() and call.cancelled == 1
