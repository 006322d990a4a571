"""Numbers of any size in bodies: a replica can be sent what is accepted, and the rest is refused by name."""

from __future__ import annotations

from typing import Any, get_args

import msgspec
import pytest
from pydantic import BaseModel
from worlds import client_of, generating, is_problem

from gateway.api import bodies, openai
from gateway.catalogs.catalog import Limits
from gateway.model.errors import InvalidRequest
from gateway.model.messages import Parameters
from gateway.tasks import TASKS
from gateway.tasks.base import Task

pytestmark = pytest.mark.virtual_time

NUMBERS = ("1e20", "1e22", "-1e20", str(2**63), str(2**64), str(-(2**63) - 1), "9" * 400, "9" * 5000, "1e308", "1e400")
"""Numbers that 64 bits cannot hold."""

GIVEN = "GIVEN"
LIMITS = Limits()
CALLED: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"model": "punctual", "messages": [{"role": "user", "content": "Hello?"}]},
    "/v1/completions": {"model": "punctual", "prompt": "Hello?"},
    "/v1/embeddings": {"model": "punctual", "input": "Hello?"},
}


def model_in(annotation: Any) -> type[BaseModel] | None:
    """Return the model that a field holds, if it holds one."""
    found = [one for one in (annotation, *get_args(annotation)) if isinstance(one, type) and issubclass(one, BaseModel)]
    return found[0] if found else None


def with_each_field(model: type[BaseModel], document: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return each field, by its path, with the document in which it is `GIVEN`; one of a list is `GIVEN` too."""
    changed: list[tuple[str, dict[str, Any]]] = []
    for name, field in model.model_fields.items():
        inner, known = model_in(field.annotation), document.get(name, {})
        if inner is not None and isinstance(known, dict):
            within = with_each_field(inner, known)
            changed += [(f"{name}.{path}", {**document, name: one}) for path, one in within]
        changed += [(name, {**document, name: value}) for value in (GIVEN, [GIVEN], {"a": GIVEN})]
    return changed


def in_json(document: dict[str, Any], number: str) -> bytes:
    """Return the JSON of a document with a number for `GIVEN`."""
    return msgspec.json.encode(document).replace(f'"{GIVEN}"'.encode(), number.encode())


def read(content: bytes, body: Any, task: Task, endpoint: str = "") -> Parameters | InvalidRequest:
    """Return the parameters of a body, by an endpoint of OpenAI's interface if one is given, or what refuses it."""
    try:
        own = bodies.parse(content, body, LIMITS)
        if endpoint:
            own = bodies.validated(openai.document_of(own, endpoint, task), task.body)
        return task.read(own)[0]
    except InvalidRequest as refused:
        return refused


def fields(refused: InvalidRequest) -> list[str]:
    """Return the fields that a problem names."""
    errors: Any = refused.members["errors"]
    return [one["field"] for one in errors]


def can_be_sent(parameters: Parameters) -> bool:
    """Return whether a replica reads what the gateway has."""
    return msgspec.msgpack.decode(msgspec.msgpack.encode(parameters), type=type(parameters)) == parameters


@pytest.mark.parametrize("task", TASKS.values(), ids=list(TASKS))
@pytest.mark.parametrize("number", NUMBERS)
def test_a_number_is_refused_by_name_or_can_be_sent(task: Task, number: str) -> None:
    """A field of a task's body is a 422 that names it for a number that cannot be sent to a replica."""
    document = task.body.document_of(["one [MASK]", "another [MASK]"])
    for path, changed in with_each_field(task.body, document):
        found = read(in_json(changed, number), task.body, task)
        if isinstance(found, InvalidRequest):
            assert found.http_status == 422 and any(one.startswith(path) for one in fields(found)), path
        else:
            assert can_be_sent(found), path


@pytest.mark.parametrize("path", CALLED)
@pytest.mark.parametrize("number", NUMBERS)
def test_a_number_of_openais_interface_is_refused_or_can_be_sent(path: str, number: str) -> None:
    """A body of OpenAI's interface is refused for a number that cannot be sent to a replica."""
    endpoint = openai.ENDPOINTS[path]
    for task in [task for task in TASKS.values() if endpoint.name in task.openai]:
        for field, changed in with_each_field(endpoint.body, CALLED[path]):
            found = read(in_json(changed, number), endpoint.body, task, endpoint.name)
            assert isinstance(found, InvalidRequest) or can_be_sent(found), field


@pytest.mark.parametrize("number", ["1e20", "1e22"])
async def test_no_number_is_a_fault(number: str) -> None:
    """A length of 10^20 tokens is a 422 that names its parameter, and nothing is sent."""
    told = generating()
    content = f'{{"inputs": "Hello?", "parameters": {{"truncate": {number}}}}}'
    response = await client_of(told).post("/generate", content=content)
    assert is_problem(response, "invalid_request", 422)
    assert response.json()["errors"][0]["field"] == "parameters.truncate" and not told.backend.dispatches
