"""Requests that schemathesis makes of the OpenAPI document, valid and invalid: answers are as the document says.

A bounded part, the same at each run. `make conformance` has it do the same at length with a gateway that runs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from schemathesis import Case, GenerationMode, openapi
from schemathesis.checks import CHECKS, load_all_checks
from virtual_time import VirtualLoop
from worlds import World, client_of, embedding, filling, generating, summarizing, tagging, translating

from gateway.api.openapi import openapi_document
from gateway.tasks import TASKS

load_all_checks()
CHECKED: Any = [  # functions, by their types in the library's own registry
    CHECKS.get_one(name)
    for name in (
        "content_type_conformance",
        "not_a_server_error",
        "response_headers_conformance",
        "response_schema_conformance",
        "status_code_conformance",
    )
]
DOCUMENT = openapi_document(TASKS.values())
FOUND: Any = openapi.from_dict(
    openapi_document(TASKS.values())
).get_all_operations()  # an operation that cannot be read fails here
OPERATIONS = {one.ok().label: one.ok() for one in FOUND}
CALLS = [
    (label, mode) for label in OPERATIONS for mode in GenerationMode if label.startswith("POST") or mode.is_positive
]
"""Every operation with valid requests, and with invalid ones if it has a body."""

WORLDS: dict[str, Callable[[], World]] = {
    "/summarize": summarizing,
    "/embed": embedding,
    "/similarity": embedding,
    "/v1/embeddings": embedding,
    "/v1/completions": generating,
    "/v1/chat/completions": generating,
    "/generate": generating,
    "/zero-shot": lambda: embedding(also=("zero-shot", "answer")),
    "/answer": lambda: embedding(also=("zero-shot", "answer")),
    "/tokens": tagging,
    "/fill": filling,
    "/translate": translating,
}
"""Who serves a path; the others are served by classifiers and summarizers."""

EXAMPLES = 10
"""Requests of each call."""


@pytest.mark.parametrize(("label", "mode"), CALLS)
def test_answers_are_as_the_document_says(label: str, mode: GenerationMode) -> None:
    """An answer has a documented status, media type, headers and members, and tells of no fault of the gateway's."""
    operation, statuses = OPERATIONS[label], Counter[int]()
    client, loop = client_of(WORLDS.get(operation.path, summarizing)()), VirtualLoop(flows=True)

    @settings(max_examples=EXAMPLES, phases=(Phase.generate,))
    @given(operation.as_strategy(mode))
    def run(case: Case[Any]) -> None:
        sent = case.as_transport_kwargs("http://gateway")
        del sent["cookies"]  # none of ours, and httpx has no such parameter any more
        response = loop.run_until_complete(client.request(content=sent.pop("data", None), **sent))
        statuses[response.status_code] += 1
        case.validate_response(response, checks=CHECKED)

    try:
        run()
    finally:
        loop.close()
    assert statuses.total() == EXAMPLES
