"""Bodies of many items and members: few faults are collected of any, whatever its shape."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

import pytest
from pydantic import BaseModel, ValidationError

from gateway.api import openai
from gateway.api.bodies import MOST_FAULTS
from gateway.tasks import TASKS

BODIES: dict[str, tuple[type[BaseModel], dict[str, Any]]] = {
    **{name: (task.body, task.body.document_of(["one", "another"])) for name, task in TASKS.items()},
    "/v1/chat/completions": (
        openai.ENDPOINTS["/v1/chat/completions"].body,
        {"model": "punctual", "messages": [{"role": "user", "content": "Hello?"}]},
    ),
    "/v1/completions": (openai.ENDPOINTS["/v1/completions"].body, {"model": "punctual", "prompt": "Hello?"}),
    "/v1/embeddings": (openai.ENDPOINTS["/v1/embeddings"].body, {"model": "punctual", "input": "Hello?"}),
}
ITEMS: tuple[Any, ...] = (
    {},
    {"a": 1},
    1,
    "",
    [],
    [{}],
    None,
    {"role": "user", "content": [{}] * 100},
    {"role": "user"},
    {"text": 1, "text_pair": 1},
    {"question": 1},
)
"""What lists may hold that is wrong for some or all of them."""


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the models that a field may hold."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from models_in(inner)


def with_long_lists(model: type[BaseModel], known: Any, item: Any) -> Iterator[tuple[str, Any]]:
    """Yield each field by its path, with a document in which it is a list of 500 such items."""
    for name, field in model.model_fields.items():
        yield name, {**known, name: [item] * 500}
        for inner in models_in(field.annotation):
            own = known.get(name)
            for path, document in with_long_lists(inner, own if isinstance(own, dict) else {}, item):
                yield f"{name}.{path}", {**known, name: document}


@pytest.mark.parametrize("name", BODIES)
def test_a_list_is_read_to_its_first_faulty_item(name: str) -> None:
    """However many items of a list are wrong, no more faults are collected than a problem lists."""
    model, known = BODIES[name]
    lists = [one for item in ITEMS for one in with_long_lists(model, known, item)]
    collected: dict[str, int] = {}
    for path, document in lists:
        try:
            model.model_validate(document)
        except ValidationError as error:
            collected[path] = max(collected.get(path, 0), error.error_count())
    assert collected and max(collected.values()) <= MOST_FAULTS, collected
