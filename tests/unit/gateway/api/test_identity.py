"""The request id: given or made, equal in the record and in the answer, and on every answer."""

from __future__ import annotations

import pytest
from fakes import ANSWER
from worlds import gateway

from gateway.api.headers import request_id_of
from gateway.model.messages import Answer, Work

pytestmark = pytest.mark.virtual_time

BODY = {"inputs": "a good film"}
NO_IDS = [b"", b"a b", b"\xff", b"x" * 129, b"x" * 5000, b"\x1b[31m"]


def faulty(checkpoint: str, work: Work) -> Answer:
    """Raise as a faulty replica does."""
    raise ZeroDivisionError


def test_a_request_goes_by_its_own_id_or_by_a_made_one() -> None:
    """A valid X-Request-Id is used whatever the other headers are; otherwise a new one is made."""
    assert request_id_of([(b"x-latency-sla-ms", b"nonsense"), (b"x-request-id", b" mine\t")]) == "mine"
    for value in NO_IDS:
        made = request_id_of([(b"x-request-id", value)])
        assert made.isalnum() and len(made) == 32
    assert request_id_of([]) != request_id_of([])


@pytest.mark.parametrize(
    "path", ["/checkpoints", "/healthz", "/readyz", "/metrics", "/openapi.json", "/nowhere", "/route"]
)
async def test_every_answer_bears_the_identity(path: str) -> None:
    """Every answer has the request id, given or made, whatever the path and the method."""
    _, client = gateway()
    assert (await client.get(path, headers={"X-Request-Id": "mine"})).headers["X-Request-Id"] == "mine"
    assert len((await client.get(path)).headers["X-Request-Id"]) == 32


@pytest.mark.parametrize("content", [b"nonsense", b'{"inputs": []}', b'{"inputs": "a good film"}'])
@pytest.mark.parametrize("behaviour", [lambda checkpoint, work: ANSWER, faulty])
async def test_the_record_and_the_answer_agree_on_the_identity(content: bytes, behaviour: object) -> None:
    """However a request ends, its answer and its only record have one id."""
    for headers in ({}, {"X-Request-Id": "mine"}):
        told, client = gateway(behaviour)  # type: ignore[arg-type]  # a parameter's type is lost to pytest
        response = await client.post("/classify", content=content, headers=headers)
        assert [record.request_id for record in told.kept.records] == [response.headers["X-Request-Id"]]
        assert not headers or response.headers["X-Request-Id"] == "mine"
