"""Runs `punctual serve`: takes its options beside the catalog, and serves until it is stopped."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from deployments.engines.host import cores_said, usable_cores
from deployments.replica.tracing import TRACES_ENDPOINT, require_tracing
from deployments.serve.environment import port_held
from deployments.serve.observing import LOG_FORMAT
from deployments.serve.standing_in import standing_in
from gateway.catalogs.catalog import Catalog
from gateway.model.errors import Starting
from gateway.observability.access_log import LogFormat

if TYPE_CHECKING:
    from deployments.serve.late import Preparing
    from gateway.router import MakeScheduler

_TRACES = "/v1/traces"


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """Where the gateway listens, and where its access log and traces go.

    `access_log` is a path, `-` for this process's output, or `off`. Without a `log_format` it is text on a terminal,
    else JSON. `traces` is the URL of an OpenTelemetry collector, if any. `scheduler` makes the scheduler of another
    policy than ours.
    """

    host: str
    port: int
    access_log: str
    log_format: str | None
    traces: str | None
    scheduler: MakeScheduler | None = None


@contextmanager
def servable(options: ServeOptions) -> Iterator[Callable[[], None]]:
    """Finds out what cannot succeed before minutes are spent on variants, and holds the port during the context.

    Until what it yields is called, the port says that the gateway starts. Raises PortTaken and TracingMissing.
    """
    if options.traces is not None:
        os.environ[TRACES_ENDPOINT] = options.traces.removesuffix("/").removesuffix(_TRACES) + _TRACES
    require_tracing(os.environ)
    on_terminal = options.access_log == "-" and sys.stdout is not None and sys.stdout.isatty()
    os.environ[LOG_FORMAT] = options.log_format or (LogFormat.TEXT if on_terminal else LogFormat.JSON)
    with port_held(options.host, options.port), ExitStack() as starting:
        starting.enter_context(standing_in(options.host, options.port, Starting()))
        yield starting.close


def serve_until_stopped(
    folder: Path,
    catalog: Catalog,
    variants: Mapping[str, Path],
    options: ServeOptions,
    say: Callable[[str], None],
    opened: Callable[[], None],
    preparing: Preparing | None = None,
) -> None:
    """Serves in a run folder until Ctrl-C; checkpoints whose variants `preparing` makes come later.

    Call it within `servable`, with what that yields as `opened`. Raises NotReady and LogUnwritable.
    """
    from deployments.serve import serving

    most = max(entry.threads for entry in catalog.checkpoints)
    if (limited := cores_said(usable_cores(), os.cpu_count() or 1, most)) is not None:
        say(limited)
    where = (options.host, options.port)
    gateway = serving.running(
        folder, catalog, variants, *where, say, options.access_log, preparing, options.scheduler, opened
    )
    serving.serve(gateway, folder, say)
