"""The HTTP application: finds a path's handler, reads bodies within their limits, makes answers and problems.

It decides nothing. `build` makes the ASGI application over one `Service`. Every response goes through `App._respond`,
which adds the request's id.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol, TypeAlias

from starlette.middleware.errors import ServerErrorMiddleware
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.advising.advice import Advice, Adviser, UnknownSituation
from gateway.advising.situation import Machine, Situation
from gateway.api import bodies, openai, streaming
from gateway.api.accept import named, takes_gzip, weight
from gateway.api.access import Access
from gateway.api.connection import FIRST_BYTE
from gateway.api.console import ADVICE, PATHS, read_page
from gateway.api.encodings import DecodedTooLong, checked, decoded, packed
from gateway.api.headers import read_terms, request_id_of
from gateway.api.kept import KeptFile
from gateway.api.openai import Endpoint, OpenAIForm, UnknownModel, now_s
from gateway.api.openapi import document_file
from gateway.api.responses import (
    OUTCOME,
    Alive,
    Checkpoints,
    Form,
    Ready,
    TaskForm,
    checkpoint_document,
    coming_document,
    decided_headers,
    decision_document,
    headers_of,
)
from gateway.api.streaming import EVENT_STREAM, Answering, EventResponse
from gateway.catalogs.catalog import Limits
from gateway.model.deadline import Clock
from gateway.model.errors import InternalError, InvalidRequest, MethodNotAllowed, NotFound, Problem, UnknownTask
from gateway.model.outcome import Outcome
from gateway.model.request import FIRST_BUDGET, REQUEST_ID, Request, Terms
from gateway.observability import metrics
from gateway.observability.record import RequestRecord
from gateway.service import Finished, Service
from gateway.tasks import TASKS, claims_on
from gateway.tasks.base import Fact, RequestBody, Task

log = logging.getLogger("punctual.gateway")

PROBES = ("/-/healthz", "/-/routes")
"""Paths that Kubernetes' probes ask, as of Ray Serve's own proxy. They are no part of the contract."""

MODEL = "/v1/models/"
"""Below this path each model has its own."""

Handler: TypeAlias = Callable[[HttpRequest], Awaitable[Response]]

CLIENT_CLOSED_REQUEST = 499
"""The status that proxies log for a client that left; nothing reads it."""

_HEALTHY = b"success"
"""What Ray Serve's own proxy answers to a probe, and KubeRay looks for."""

_EVERY_METHOD = ("GET", "HEAD", "POST")
_HTML, _JSON, _PLAIN, _OPEN_METRICS = "text/html", "application/json", "text/plain", "application/openmetrics-text"

EVERYWHERE = Access()
"""Any host is answered, and no page of another origin reads an answer."""

_DRAINING = b"This node is being drained."

_WRITE_WEIGHT = 0.05
"""The weight of one answer in the mean time of writing: some twenty answers count. Set by hand."""

_IDENTITY = "punctual.request_id"
_TASK = "punctual.task"
_TERMS = "punctual.terms"
_IN_SERVICE = "punctual.in_service"
_ANSWERED = "punctual.answered_s"
_NAMES = "punctual.names"
"""Keys of the ASGI scope: the request's id, its task once that is known, its terms, whether the service has it and
records it, when it ended, and the names of fields in a body of OpenAI's interface."""


class Scrape(Protocol):
    """Gathers the metrics of every process of the application."""

    async def gather(self) -> bytes:
        """Returns one exposition in the Prometheus text format, in bounded time."""


class WriteReserve:
    """The time from the service's answer to the write of its last byte: the mean of the latest answers, in seconds.

    It is spent from each budget beforehand, since an answer tells its own time before it is written.
    """

    def __init__(self) -> None:
        self.mean_s = 0.0

    def learn(self, seconds: float) -> None:
        """Takes what one answer took."""
        self.mean_s += _WRITE_WEIGHT * (seconds - self.mean_s)


def _unused(terms: Terms, request: Request) -> Sequence[str]:
    """The headers of a request that change nothing, since its answer is not streamed."""
    return () if terms.first_token_s == request.terms.first_token_s else (FIRST_BUDGET,)


def _listed(http: HttpRequest, name: str) -> str:
    """The lines of a header that holds a list, as one: that is the same (RFC 9110, section 5.3)."""
    return ", ".join(http.headers.getlist(name))


@dataclass(frozen=True)
class App:
    """The handlers of the contract's endpoints. Called, it is the ASGI application, but for the last resort."""

    service: Service
    scrape: Scrape
    limits: Limits
    clock: Clock
    trace: Callable[[Terms], Terms] | None
    draining: Callable[[], bool]
    is_shared: Callable[[], bool]
    refused: Callable[[Problem], None]
    access: Access
    reserve: WriteReserve = field(default_factory=WriteReserve)
    advising: asyncio.Lock = field(default_factory=asyncio.Lock)
    routes: dict[str, Mapping[str, Handler]] = field(default_factory=dict)
    started: int = field(default_factory=now_s)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        http = HttpRequest(scope, receive)
        try:
            if self.access.hosts is not None:
                self.access.check_host(scope["headers"])
            response = await self._handler(scope["path"], scope["method"])(http)
        except Problem as problem:
            response = self._problem(http, problem, self._ended(http, problem.outcome, problem))
        except ClientDisconnect:  # `_body` has counted the request
            response = self._respond(http, b"", None, CLIENT_CLOSED_REQUEST)
        await response(scope, receive, send)
        answered_s = scope.get(_ANSWERED)
        if answered_s is not None:
            self.reserve.learn(self.clock() - answered_s)

    def _handler(self, path: str, method: str) -> Handler:
        """Finds what answers a path and method. Raises NotFound and MethodNotAllowed."""
        methods = self.routes.get(path)
        if methods is None and path.startswith(MODEL):
            one = partial(self.model, path.removeprefix(MODEL))
            methods = {"GET": one, "HEAD": one}
        if method == "OPTIONS" and (methods or path == "*"):
            return partial(self.options, sorted([*(methods or _EVERY_METHOD), "OPTIONS"]))
        if methods is None:
            raise NotFound("see /openapi.json for what is served")
        if method not in methods:
            raise MethodNotAllowed(sorted(methods))
        return methods[method]

    async def options(self, methods: Sequence[str], http: HttpRequest) -> Response:
        """`OPTIONS` of any path, or of `*`: its methods, and to a browser whether a page may use them."""
        headers = {"Allow": ", ".join(methods), **self.access.preflight(http.scope["headers"], methods)}
        return self._respond(http, b"", None, 204, headers)

    async def answer(self, endpoint: str, claims: Mapping[str, str], http: HttpRequest) -> Response:
        """`POST` to a task's endpoint, with a body of that task or of one that claims it by a parameter."""
        arrived_s = self._arrived_s(http)
        terms = self._terms(http)
        sent = bodies.read(await self._body(http), self.limits)
        claimed = (name for parameter, name in claims.items() if bodies.has_parameter(sent, parameter))
        task = TASKS[next(claimed, endpoint)]
        http.scope[_TASK] = task.name
        body = bodies.validated(sent, task.body)
        accept = _listed(http, "accept")
        events = (task.streams or EVENT_STREAM in accept.lower()) and streaming.is_asked_for(accept, body)
        request = self._request(task, body, terms, arrived_s, streamed=bool(events))
        details = b"details=true" in http.scope["query_string"].split(b"&")
        form = TaskForm(task, body, details, http.headers.get("user-agent", ""), _unused(terms, request))
        return await (self._streamed if events else self._plain)(http, request, form)

    async def _plain(self, http: HttpRequest, request: Request, form: Form) -> Response:
        """The whole answer at once, or the problem."""
        http.scope[_IN_SERVICE] = True
        finished = await self.service.handle(request)
        http.scope[_ANSWERED] = request.arrived_s + finished.record.latency_s
        headers = headers_of(finished.record)
        if finished.answer is None:
            return self._problem(http, form.problem(finished), headers)
        told = self._facts(TASKS[request.task], finished.record.checkpoint)
        headers |= {fact.header: str(value) for fact, value in told}
        document = form.document(finished, finished.answer, told)
        return self._json(http, document, headers={**headers, **form.headers})

    async def _streamed(self, http: HttpRequest, request: Request, form: Form) -> Response:
        """The answer as events, from its first delta on; a problem before that is answered as any."""
        http.scope[_IN_SERVICE] = True
        answering = Answering(self.service, request)
        begun = await answering.begun()
        with ExitStack() as left:
            left.callback(answering.leave)
            if isinstance(begun, Finished) and begun.answer is None:
                return self._problem(http, form.problem(begun), headers_of(begun.record))
            record = begun.record if isinstance(begun, Finished) else begun
            told = self._facts(TASKS[request.task], record.checkpoint)
            headers = {**decided_headers(record), **streaming.HEADERS}
            headers |= {fact.header: str(value) for fact, value in told}
            head, events = self._respond(http, b"", EVENT_STREAM, 200, headers), form.events(record, told)
            left.pop_all()  # from here on the response leaves it
        return EventResponse(head, answering, events.delta, events.end, events.fault)

    async def openai(self, endpoint: Endpoint, http: HttpRequest) -> Response:
        """`POST` to an endpoint of OpenAI's interface: the task's own request, and the answer in OpenAI's form."""
        arrived_s = self._arrived_s(http)
        terms = self._terms(http)
        body = bodies.parse(await self._body(http), endpoint.body, self.limits)
        task, asked = openai.placed(endpoint.name, body.model, self._tasks())
        asked = self.service.router.for_model(task, asked)
        http.scope[_TASK], http.scope[_NAMES] = task.name, openai.names_of(body, asked)
        own = bodies.validated(openai.document_of(body, endpoint.name, task), task.body)
        joined, streamed = openai.joined(terms, asked), bool(body.wants_events)
        request = self._request(task, own, joined, arrived_s, streamed=streamed)
        form = OpenAIForm(body, own, terms.request_id, now_s())
        return await (self._streamed if body.wants_events else self._plain)(http, request, form)

    async def models(self, http: HttpRequest) -> Response:
        """`GET /v1/models`: what a `model` may name."""
        return self._json(http, openai.models_of(self._tasks(), self.started))

    async def model(self, name: str, http: HttpRequest) -> Response:
        """`GET /v1/models/NAME`: one of them."""
        listed = openai.models_of(self._tasks(), self.started).data
        found = next((one for one in listed if one.id == name), None)
        if found is None:
            raise UnknownModel([one.id for one in listed])
        return self._json(http, found)

    def _tasks(self) -> dict[str, tuple[str, ...]]:
        """The tasks of each checkpoint of the catalog."""
        return {name: entry.tasks for name, entry in self.service.router.entries.items()}

    def _facts(self, task: Task, checkpoint: str | None) -> list[tuple[Fact, str | int]]:
        """What the task tells of the checkpoint that answered."""
        if not task.facts or checkpoint is None:
            return []
        manifest = self.service.router.manifests[checkpoint]
        return [(fact, fact.of(manifest)) for fact in task.facts]

    async def route(self, http: HttpRequest) -> Response:
        """`POST /route`: the decision and its reasons; nothing runs."""
        arrived_s = self._arrived_s(http)
        terms = self._terms(http)
        body = bodies.parse(await self._body(http), bodies.RouteBody, self.limits)
        router = self.service.router
        claims, sent = claims_on(body.task), body.parameters or {}
        task = router.task(
            next((name for parameter, name in claims.items() if sent.get(parameter) is not None), body.task)
        )
        own = bodies.of_task(body, task)
        request = self._request(task, own, terms, arrived_s, streamed=terms.first_token_s is not None)
        deadline = router.deadline(request)
        decision = router.decide(request, deadline, every=True)
        ignored = [*_unused(terms, request), *bodies.ignored(own)]
        return self._json(http, decision_document(request, decision, deadline.budget_s, ignored))

    async def checkpoints(self, http: HttpRequest) -> Response:
        """`GET /checkpoints`: the catalog as served, and what is still to come."""
        now_s = self.clock()
        load, router = self.service.load, self.service.router
        documents = [
            checkpoint_document(
                entry, router.manifests[name], load.replicas(name), load.backlog_s(name, now_s), load.memory_bytes(name)
            )
            for name, entry in router.entries.items()
            if name in router.served
        ]
        coming = [coming_document(router.entries[one.checkpoint], one) for one in router.coming.values()]
        return self._json(http, Checkpoints(documents, coming, router.fixed))

    async def advise(self, page: KeptFile, http: HttpRequest) -> Response:
        """`GET /advise`: which checkpoint to serve in a situation; a browser gets the page that asks for that.

        It takes some milliseconds, on a thread; one at a time, also where clients leave, so that requests of tasks keep
        the processors.
        """
        varies = {"Vary": "Accept"}
        accept = _listed(http, "accept")
        if 0 < named(accept, _HTML) >= weight(accept, _JSON):
            response = await self.kept(page, http)
            response.headers.add_vary_header("Accept")
            return response
        router = self.service.router
        query = {name: value for name, value in http.query_params.items() if value}
        query.setdefault("task", next(iter(router.scheduler.deciders)))
        situation = bodies.from_query(query, Situation)
        machine = Machine(cores=self.service.load.cores(tuple(router.manifests)))
        try:
            advice = await asyncio.shield(self._advised(Adviser([router.offered()], machine), situation))
        except UnknownSituation as unknown:
            fault = {"field": unknown.field, "message": unknown.message}
            raise InvalidRequest(f"{unknown.field}: {unknown.message}", [fault]) from None
        return self._json(http, advice, headers=varies)

    async def _advised(self, adviser: Adviser, situation: Situation) -> Advice:
        async with self.advising:
            return await asyncio.to_thread(adviser.advise, situation)

    async def healthz(self, http: HttpRequest) -> Response:
        """`GET /healthz`: the process answers."""
        return self._json(http, Alive())

    async def readyz(self, http: HttpRequest) -> Response:
        """`GET /readyz`: 200 once every task has a replica that loaded, self-tested and connected, else 503.

        While something that is not ready answers at the same port, nothing that asks there can rely on this process.
        """
        router = self.service.router
        ready = router.ready and not self.is_shared()
        document = Ready(ready, self.service.missing(), list(router.coming.values()))
        return self._json(http, document, status=200 if document.ready else 503)

    async def metrics(self, http: HttpRequest) -> Response:
        """`GET /metrics`: every process of the application in one scrape."""
        scrape, headers = await self.scrape.gather(), {"Vary": "Accept, Accept-Encoding"}
        accept = _listed(http, "accept")
        wanted = 0 < named(accept, _OPEN_METRICS) >= weight(accept, _PLAIN)
        content, media_type = metrics.formatted(scrape, open_metrics=wanted)
        if takes_gzip(_listed(http, "accept-encoding")):
            content = await asyncio.to_thread(packed, content)
            headers["Content-Encoding"] = "gzip"
        return self._respond(http, content, media_type, 200, headers)

    async def kept(self, file: KeptFile, http: HttpRequest) -> Response:
        """`GET` of a file of the console, or of `/openapi.json`: 304 if the client has it."""
        gzip = takes_gzip(_listed(http, "accept-encoding"))
        if file.is_known(_listed(http, "if-none-match")):
            return self._respond(http, b"", file.media_type, 304, file.headers(gzip))
        return self._respond(http, file.packed if gzip else file.content, file.media_type, 200, file.headers(gzip))

    async def probed(self, http: HttpRequest) -> Response:
        """`GET /-/healthz`: what KubeRay's probes ask, so that a process that drains leaves the Service first."""
        draining = self.draining()
        return self._respond(http, _DRAINING if draining else _HEALTHY, "text/plain", 503 if draining else 200)

    async def prefixes(self, http: HttpRequest) -> Response:
        """`GET /-/routes`: the applications by their prefix, as Ray Serve's own proxy tells them."""
        return self._json(http, {"/": "punctual"})

    async def on_fault(self, http: HttpRequest, error: Exception) -> Response:
        """Answers an unexpected error, as the last resort.

        Starlette's middleware raises it again, so that the server logs the traceback.
        """
        counted = {OUTCOME: Outcome.FAILED.value}
        if _IN_SERVICE not in http.scope:
            counted = self._ended(http, Outcome.FAILED, InternalError())
        request_id = self._request_id(http)
        log.error("request %s failed: %s", request_id, type(error).__name__, extra={"request_id": request_id})
        return self._problem(http, InternalError(), counted)

    def _arrived_s(self, http: HttpRequest) -> float:
        """When the budget begins: at the request's first byte, less the time that its answer will take to write.

        A server that does not tell the first byte leaves the instant of this call.
        """
        first_byte_s: float | None = http.scope.get(FIRST_BYTE)
        return (self.clock() if first_byte_s is None else first_byte_s) - self.reserve.mean_s

    def _request(self, task: Task, body: RequestBody, terms: Terms, arrived_s: float, *, streamed: bool) -> Request:
        """The request of a body. The first text has a budget only where it is told while the rest is written."""
        if task.streams is None or not streamed:
            terms = replace(terms, first_token_s=None) if terms.first_token_s is not None else terms
        else:
            terms = replace(terms, streamed=True)
        inputs = bodies.limited(body.texts(), self.limits)
        parameters, domain = task.read(body)
        terms = replace(terms, domain=domain) if domain else terms
        return Request(task.name, inputs, parameters, terms, arrived_s)

    async def _body(self, http: HttpRequest) -> bytes:
        """Reads and decodes the body, up to its limit. Raises InputTooLong, UnsupportedEncoding, ClientDisconnect."""
        limit = self.limits.max_body_bytes
        encoding = _listed(http, "content-encoding")
        announced = http.headers.get("content-length", "")
        if announced.isdecimal() and float(announced) > limit:  # int() refuses thousands of digits
            raise bodies.body_too_long(limit)
        if encoding:
            checked(encoding)  # before the client is told to send the body
        parts: list[bytes] = []
        size = 0
        try:
            async for part in http.stream():
                size += len(part)
                if size > limit:
                    raise bodies.body_too_long(limit)
                parts.append(part)
        except (ClientDisconnect, asyncio.CancelledError):  # the server decides which of the two
            self._ended(http, Outcome.CANCELLED)
            raise
        if not encoding:
            return b"".join(parts)
        try:
            return decoded(b"".join(parts), encoding, limit)
        except DecodedTooLong:
            raise bodies.body_too_long(limit) from None

    def _terms(self, http: HttpRequest) -> Terms:
        terms = read_terms(http.scope["headers"])
        http.scope[_IDENTITY] = terms.request_id
        if self.trace is not None:
            terms = self.trace(terms)
        http.scope[_TERMS] = terms
        return terms

    def _request_id(self, http: HttpRequest) -> str:
        """Returns the one id of this request, its own or a new one."""
        known: str | None = http.scope.get(_IDENTITY)
        if known is None:
            known = http.scope[_IDENTITY] = request_id_of(http.scope["headers"])
        return known

    def _ended(self, http: HttpRequest, outcome: Outcome, problem: Problem | None = None) -> dict[str, str]:
        """Records a request that the service never had, and returns the header that says how it ended.

        What is no request of a task is counted by its problem, and has no such header.
        """
        task = self._task_of(http)
        if task is None:
            if problem is not None:
                self.refused(problem)
            return {}
        terms: Terms | None = http.scope.get(_TERMS)
        record = RequestRecord(
            request_id=self._request_id(http),
            task=task,
            outcome=outcome,
            latency_s=0.0,
            traceparent=terms.traceparent if terms else None,
            span=terms.span if terms else None,
        )
        self.service.observe(record)
        return {OUTCOME: outcome.value}

    def _task_of(self, http: HttpRequest) -> str | None:
        """The task that a request is counted for: the one that its body asks for, and before that its endpoint's own.

        The own one of an endpoint of OpenAI's interface is that which answers a body that names no task.
        """
        known: str | None = http.scope.get(_TASK)
        path = http.scope["path"]
        if known is None and path in openai.ENDPOINTS:
            with suppress(UnknownTask):
                return openai.placed(openai.ENDPOINTS[path].name, openai.ANY_MODEL, self._tasks())[0].name
        known = known or path.removeprefix("/")
        return known if known in TASKS else None

    def _problem(self, http: HttpRequest, problem: Problem, headers: dict[str, str] | None = None) -> Response:
        headers = {**(headers or {}), **problem.headers()}
        if http.scope["path"].startswith(openai.PREFIX):
            status, document = openai.problem_document(problem, http.scope.get(_NAMES, openai.NONE))
            return self._json(http, document, status, headers)
        content = bodies.encode(problem.document())
        return self._respond(http, content, "application/problem+json", problem.http_status, headers)

    def _json(
        self, http: HttpRequest, document: object, status: int = 200, headers: dict[str, str] | None = None
    ) -> Response:
        return self._respond(http, bodies.encode(document), "application/json", status, headers)

    def _respond(
        self,
        http: HttpRequest,
        content: bytes,
        media_type: str | None,
        status: int = 200,
        headers: dict[str, str] | None = None,
    ) -> Response:
        """Makes every response, with the request's id. What is read by GET is not kept, unless `headers` say so."""
        told = {"Cache-Control": "no-store"} if http.scope["method"] in ("GET", "HEAD") else {}
        told |= headers or {}
        response = Response(content, status, {**told, REQUEST_ID: self._request_id(http)}, media_type)
        if self.access.cors_origins:
            told = self.access.headers(http.scope["headers"])
            response.headers.add_vary_header(told.pop("Vary"))
            response.headers.update(told)
        return response


def build(
    service: Service,
    scrape: Scrape,
    limits: Limits,
    clock: Clock,
    *,
    trace: Callable[[Terms], Terms] | None = None,
    draining: Callable[[], bool] = lambda: False,
    is_shared: Callable[[], bool] = lambda: False,
    refused: Callable[[Problem], None] = lambda problem: None,
    access: Access = EVERYWHERE,
) -> ASGIApp:
    """Makes the ASGI application.

    `trace` gives a request its place in a trace; without it a client's `traceparent` is passed on unchanged. `draining`
    says whether this process is about to end, `is_shared` whether something unready stands in at its port. `refused` is
    told of each error about what is no request of a task. `access` says from where the gateway may be asked.

    The server must cancel the call if the client hangs up, as `connection` does; nothing here listens for it. It may
    tell when the request's first byte was read, in the scope under `FIRST_BYTE`.
    """
    app = App(service, scrape, limits, clock, trace, draining, is_shared, refused, access)
    pages = read_page()
    gets: dict[str, Handler] = {
        "/checkpoints": app.checkpoints,
        "/healthz": app.healthz,
        "/readyz": app.readyz,
        "/metrics": app.metrics,
        "/openapi.json": partial(app.kept, document_file(tuple(TASKS.values()))),
        MODEL.rstrip("/"): app.models,
        **dict(zip(PROBES, (app.probed, app.prefixes), strict=True)),
        **{path: partial(app.kept, file) for path, file in pages.items()},
        PATHS[ADVICE]: partial(app.advise, pages[PATHS[ADVICE]]),
    }
    posts: dict[str, Handler] = {f"/{name}": partial(app.answer, name, claims_on(name)) for name in TASKS}
    posts["/route"] = app.route
    posts |= {path: partial(app.openai, one) for path, one in openai.ENDPOINTS.items()}
    app.routes.update({path: {"GET": handler, "HEAD": handler} for path, handler in gets.items()})
    app.routes.update({path: {"POST": handler} for path, handler in posts.items()})
    return ServerErrorMiddleware(app, handler=app.on_fault)
