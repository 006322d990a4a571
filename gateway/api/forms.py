"""The form of an answer: the document of a plain one, and the events of one that is told while it is written.

A task's own endpoint has the form of its task. Other interfaces have forms of their own over the same answers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from gateway.api import bodies, streaming
from gateway.api.responses import detailed_document
from gateway.model.errors import InternalError, Problem
from gateway.model.messages import Answer, Delta
from gateway.observability.record import RequestRecord
from gateway.service import Finished
from gateway.tasks.base import Event, Fact, RequestBody, Streaming, Task

Told: TypeAlias = Sequence[tuple[Fact, str | int]]
"""What a task tells of the checkpoint that answered."""


@dataclass(frozen=True, slots=True)
class Events:
    """The events of one answer: what one delta makes, what its end does, whichever that is, and what goes wrong."""

    delta: Callable[[Delta], Event]
    end: Callable[[Finished], Sequence[Event]]
    fault: Callable[[Problem], Event] = streaming.error_event


class Form(Protocol):
    """The form of the answer to one request."""

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers that a plain answer has beside those of the contract."""

    def document(self, finished: Finished, answer: Answer, told: Told) -> object:
        """The body of a plain answer."""

    def events(self, begun: RequestRecord, told: Told) -> Events:
        """The events of an answer, of which the record is known as it stood at its first delta."""


@dataclass(frozen=True, slots=True)
class TaskForm:
    """The form of a task's own endpoint. `client` is the client's `User-Agent`, which may be empty.

    `unused` names headers that were sent and change nothing.
    """

    task: Task
    body: RequestBody
    details: bool
    client: str
    unused: Sequence[str] = ()

    @property
    def headers(self) -> Mapping[str, str]:
        """That the answer depends on who asks, where the task looks at that."""
        document = None if self.details else self.task.document
        return {"Vary": "User-Agent"} if document is not None and document.depends else {}

    def document(self, finished: Finished, answer: Answer, told: Told) -> object:
        """The details if they were asked for; else what the task makes of its outputs, or these as they are."""
        if self.details:
            return self._details(finished, answer, told)
        if self.task.document is not None:
            return self.task.document.of(self.body, answer.outputs, self.client)
        return answer.outputs

    def events(self, begun: RequestRecord, told: Told) -> Events:
        """The task's events; at the end come the details, with `finish_reason` beside, or what went wrong."""
        streams = self.task.streams or Streaming()

        def end(finished: Finished) -> Sequence[Event]:
            if finished.answer is None:
                return (streaming.error_event(finished.problem or InternalError()),)
            details, reason = self._details(finished, finished.answer, told), finished.record.finish_reason
            return streams.end(self.body, {**details, "finish_reason": reason} if reason else details)

        return Events(lambda delta: streams.delta(self.body, delta), end)

    def _details(self, finished: Finished, answer: Answer, told: Told) -> dict[str, object]:
        facts = {fact.name: value for fact, value in told}
        return detailed_document(finished, answer, [*self.unused, *bodies.ignored(self.body)], facts)
