"""The HTTP edge: routes, bodies read within their limits, answers and problems written. It decides nothing.

`build` makes the ASGI application over one `Service`; it runs under any ASGI server.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.routing import Route

from gateway import metrics, wire
from gateway.catalog import Limits
from gateway.deadline import Clock
from gateway.openapi import openapi_document
from gateway.problems import InternalError, MethodNotAllowed, NotFound, Problem
from gateway.records import RequestRecord
from gateway.render import checkpoint_document, classify_document, decision_document, headers_of
from gateway.routing import Request
from gateway.service import Service
from gateway.terms import REQUEST_ID, RequestTerms, read_terms

log = logging.getLogger("punctual.gateway")


class Scrape(Protocol):
    """Gathers the metrics of every process of the application."""

    async def gather(self) -> bytes:
        """One exposition in the Prometheus text format, in bounded time."""


@dataclass(frozen=True)
class App:
    """The handlers of the contract's endpoints."""

    service: Service
    scrape: Scrape
    limits: Limits
    clock: Clock
    echo_request_id: bool

    async def classify(self, http: HttpRequest) -> Response:
        """`POST /classify`."""
        arrived_s = self.clock()
        terms = read_terms(http.scope["headers"])
        body = wire.parse(await self._body(http), wire.ClassifyBody, self.limits)
        inputs = wire.texts(body.inputs, self.limits)
        request = Request("classify", inputs, wire.classify_parameters(body.parameters), terms, arrived_s)
        finished = await self.service.handle(request)
        headers = self._headers(finished.record)
        if finished.answer is None:
            return _problem(finished.problem or InternalError(), headers)
        details = http.scope["query_string"] == b"details=true"
        return _json(classify_document(finished, finished.answer, details), headers=headers)

    async def route(self, http: HttpRequest) -> Response:
        """`POST /route`: the decision and why; nothing is run."""
        arrived_s = self.clock()
        terms = read_terms(http.scope["headers"])
        body = wire.parse(await self._body(http), wire.RouteBody, self.limits)
        inputs = wire.texts(body.inputs, self.limits)
        request = Request(body.task, inputs, wire.classify_parameters(None), terms, arrived_s)
        router = self.service.router
        deadline = router.deadline(request)
        document = decision_document(request, router.decide(request, deadline), deadline.budget_s)
        return _json(document, headers=self._identity(terms))

    async def checkpoints(self, http: HttpRequest) -> Response:
        """`GET /checkpoints`: the catalog as served."""
        now_s = self.clock()
        load = self.service.load
        documents = [
            checkpoint_document(served, load.replicas(name), load.backlog_s(name, now_s))
            for name, served in self.service.router.served.items()
        ]
        return _json({"checkpoints": documents})

    async def healthz(self, http: HttpRequest) -> Response:
        """`GET /healthz`: the process answers."""
        return _json({"status": "alive"})

    async def readyz(self, http: HttpRequest) -> Response:
        """`GET /readyz`: 200 once every checkpoint has a replica that loaded, self-tested and linked, else 503."""
        missing = self.service.missing()
        return _json({"ready": not missing, "missing": missing}, status=503 if missing else 200)

    async def metrics(self, http: HttpRequest) -> Response:
        """`GET /metrics`: every process of the application in one scrape."""
        return Response(await self.scrape.gather(), media_type=metrics.CONTENT_TYPE)

    async def openapi(self, http: HttpRequest) -> Response:
        """`GET /openapi.json`: this contract for machines."""
        return _json(openapi_document())

    async def on_problem(self, http: HttpRequest, error: Exception) -> Response:
        """A request that ended before the service had it: counted like any other end, and told to the client."""
        problem = error if isinstance(error, Problem) else _not_found(error)
        task = http.url.path.strip("/") if http.url.path in ("/classify", "/route") else ""
        identity = _request_id(http)
        record = RequestRecord(request_id=identity, task=task, outcome=problem.outcome, latency_s=0.0)
        if task == "classify":
            self.service.observe(record)
        return _problem(problem, {REQUEST_ID: identity} if self.echo_request_id else {})

    async def on_fault(self, http: HttpRequest, error: Exception) -> Response:
        """The last resort. Starlette re-raises after this answer, so that the server logs the traceback."""
        log.error("request %s failed: %s", _request_id(http), type(error).__name__)
        return _problem(InternalError(), {})

    async def _body(self, http: HttpRequest) -> bytes:
        """The body, of which no more is read than its limit allows. Raises InputTooLong."""
        limit = self.limits.max_body_bytes
        announced = http.headers.get("content-length", "")
        if announced.isdecimal() and int(announced) > limit:
            raise wire.body_too_long(limit)
        parts: list[bytes] = []
        size = 0
        async for part in http.stream():
            size += len(part)
            if size > limit:
                raise wire.body_too_long(limit)
            parts.append(part)
        return b"".join(parts)

    def _headers(self, record: RequestRecord) -> dict[str, str]:
        headers = headers_of(record)
        if not self.echo_request_id:
            del headers[REQUEST_ID]
        return headers

    def _identity(self, terms: RequestTerms) -> dict[str, str]:
        return {REQUEST_ID: terms.request_id} if self.echo_request_id else {}


def build(service: Service, scrape: Scrape, limits: Limits, clock: Clock, *, echo_request_id: bool = True) -> Starlette:
    """The ASGI application. `echo_request_id` is off where the server in front echoes `X-Request-Id` itself."""
    app = App(service, scrape, limits, clock, echo_request_id)
    handlers: dict[type[Exception] | int, Callable[[HttpRequest, Exception], Awaitable[Response]]] = {
        Problem: app.on_problem,
        HTTPException: app.on_problem,
        Exception: app.on_fault,
    }
    routes = [
        Route("/classify", app.classify, methods=["POST"]),
        Route("/route", app.route, methods=["POST"]),
        Route("/checkpoints", app.checkpoints),
        Route("/healthz", app.healthz),
        Route("/readyz", app.readyz),
        Route("/metrics", app.metrics),
        Route("/openapi.json", app.openapi),
    ]
    return Starlette(routes=routes, exception_handlers=handlers)


def _json(document: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(wire.encode(document), status, headers, media_type="application/json")


def _problem(problem: Problem, headers: dict[str, str]) -> Response:
    headers = {**headers, **problem.headers()}
    return Response(
        wire.encode(problem.document()), problem.http_status, headers, media_type="application/problem+json"
    )


def _not_found(error: Exception) -> Problem:
    """Starlette's own refusals as problems of ours."""
    if isinstance(error, HTTPException) and error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        return MethodNotAllowed(sorted(set(allowed.replace(" ", "").split(","))))
    return NotFound("see /openapi.json for what is served")


def _request_id(http: HttpRequest) -> str:
    return http.headers.get(REQUEST_ID, "")
