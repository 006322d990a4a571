"""Server-sent events: an answer while it is written, delta by delta, and at its end what a plain answer tells.

Nothing is sent before the first delta or the answer's end: a refusal until then is an ordinary problem. What goes wrong
after it is an event. Which events a task has is the task's (`gateway/tasks/base.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gateway.api import bodies
from gateway.api.accept import named, weight
from gateway.api.connection import IDLE
from gateway.model.errors import InternalError, Problem, Stopping
from gateway.model.messages import Delta
from gateway.model.request import Request
from gateway.observability.record import RequestRecord
from gateway.service import Finished, Service, Stream
from gateway.tasks.base import Event, RequestBody

EVENT_STREAM = "text/event-stream"
_JSON = "application/json"

HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
"""What keeps proxies from gathering events: nginx heeds the second."""

_COMMENT = b":\n\n"
"""An event that no client sees."""


def is_asked_for(accept: str, body: RequestBody) -> bool:
    """True if the client reads events: its body says so, or says nothing and `Accept` has events and no JSON."""
    if body.wants_events is not None:
        return body.wants_events
    return named(accept, EVENT_STREAM) > 0 and weight(accept, _JSON) == 0


def encoded(events: Iterable[Event]) -> bytes:
    """The bytes of events. Their data is JSON, which has no line breaks."""
    parts = []
    for event in events:
        name = b"event: %b\n" % event.name.encode() if event.name else b""
        parts.append(b"%bdata: %b\n\n" % (name, bodies.encode(event.data)))
    return b"".join(parts)


def error_event(problem: Problem) -> Event:
    """The event of what went wrong after the first one: its problem document."""
    return Event(problem.document(), "error")


class Answering:
    """A request that the service has, and the deltas of its answer. `leave` gives it up."""

    def __init__(self, service: Service, request: Request) -> None:
        """Gives the request to the service. Needs a running loop."""
        self._stream = Stream()
        self._handling = asyncio.get_running_loop().create_task(service.handle(request, self._stream))
        self._handling.add_done_callback(self._ended)

    async def begun(self) -> RequestRecord | Finished:
        """Waits for the first delta, and gives the record as it stood then; how it ended if it has ended by now.

        Raises what the service raises. Cancelling it gives the request up.
        """
        try:
            await self._stream.ready()
        except asyncio.CancelledError:
            self.leave()
            raise
        begun = None if self._stream.ended else self._stream.begun
        return begun or await self._handling

    async def deltas(self) -> Sequence[Delta]:
        """Waits for further deltas; empty once there are no more."""
        return await self._stream.take()

    async def fault(self) -> BaseException | None:
        """Waits for the end; an exception where the service gave nothing to answer with."""
        await asyncio.wait([self._handling])
        return self._handling.exception()

    def finished(self) -> Finished:
        """How it ended without a fault."""
        return self._handling.result()

    def _ended(self, handling: asyncio.Task[Finished]) -> None:
        self._stream.end()

    def leave(self) -> None:
        """Cancels the request, unless it has ended."""
        self._handling.cancel()


class EventResponse(Response):
    """An answer as events. `head` has its headers; `of_delta`, `at_end` and `of_fault` make its events."""

    def __init__(
        self,
        head: Response,
        answering: Answering,
        of_delta: Callable[[Delta], Event],
        at_end: Callable[[Finished], Sequence[Event]],
        of_fault: Callable[[Problem], Event] = error_event,
    ) -> None:
        super().__init__(None, head.status_code)
        self.raw_headers = [header for header in head.raw_headers if header[0] != b"content-length"]
        self._answering = answering
        self._of_delta = of_delta
        self._at_end = at_end
        self._of_fault = of_fault

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Writes the events as they come, those that came while the client did not read together.

        A client that leaves cancels it, and with it the request. So does a process that ends, as the last event says.
        """
        start = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        try:
            await send({**start, IDLE: _COMMENT})
            while deltas := await self._answering.deltas():
                await send(_body(map(self._of_delta, deltas), more=True))
            fault = await self._answering.fault()
            events = [self._of_fault(InternalError())] if fault else self._at_end(self._answering.finished())
            await send(_body(events, more=False))
            if fault:
                raise fault
        except asyncio.CancelledError:
            await send(_body([self._of_fault(Stopping())], more=False))
            raise
        finally:
            self._answering.leave()


def _body(events: Iterable[Event], *, more: bool) -> dict[str, object]:
    return {"type": "http.response.body", "body": encoded(events), "more_body": more}
