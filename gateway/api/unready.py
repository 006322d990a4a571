"""Answers for a gateway that is not ready yet, or no longer: that it is alive, and to all else 503 with Retry-After."""

from __future__ import annotations

from http import HTTPStatus

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.api import bodies, openai
from gateway.api.access import Access
from gateway.api.headers import request_id_of
from gateway.api.responses import Alive
from gateway.model.errors import Problem
from gateway.model.request import REQUEST_ID

_METHODS = ("GET", "HEAD", "OPTIONS", "POST")

ALIVE = "/healthz"
"""The path that is answered as ever: the process lives, and nobody should end it."""


def unready(problem: Problem, access: Access) -> ASGIApp:
    """Makes the ASGI application that answers every request by this problem, without reading its body.

    Pages that may read answers read this one too: their browsers' questions beforehand are answered as ever.
    """

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        told = {"Cache-Control": "no-store", **access.headers(scope["headers"])}
        identity = {REQUEST_ID: request_id_of(scope["headers"]), **told}
        path: str = scope["path"]
        if scope["method"] == "OPTIONS" and (allowed := access.preflight(scope["headers"], _METHODS)):
            response = Response(b"", HTTPStatus.NO_CONTENT, {**identity, **allowed})
        elif path == ALIVE and scope["method"] in ("GET", "HEAD"):
            response = Response(bodies.encode(Alive()), HTTPStatus.OK, identity, "application/json")
        elif path.startswith(openai.PREFIX):
            status, document = openai.problem_document(problem)
            content = bodies.encode(document)
            response = Response(content, status, {**identity, **problem.headers()}, "application/json")
        else:
            content = bodies.encode(problem.document())
            headers = {**identity, **problem.headers()}
            response = Response(content, problem.http_status, headers, "application/problem+json")
        await response(scope, receive, send)

    return answer
