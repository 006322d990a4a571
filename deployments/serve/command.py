"""What `punctual serve` is told beside its catalog: where it listens, and where its access log and traces go."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from deployments.observing import ACCESS_LOG, LOG_FORMAT, OFF
from deployments.tracing import TRACES_ENDPOINT, require_tracing
from gateway.catalogs.catalog import Catalog
from gateway.logs import LogFormat

COLLECTOR = "http://127.0.0.1:4318"
_TRACES = "/v1/traces"


def serve_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command but for its catalog."""
    parser.add_argument("--host", default="127.0.0.1", help="the interface to bind (default: %(default)s)")
    parser.add_argument("--port", type=_port, default=8000, help="(default: %(default)s)")
    parser.add_argument(
        "--access-log",
        default=os.environ.get(ACCESS_LOG) or "-",
        metavar="PATH",
        help=f"where each finished request is told in a line; - is this output, {OFF} nowhere (default: %(default)s)",
    )
    parser.add_argument(
        "--log-format",
        choices=list(LogFormat),
        default=os.environ.get(LOG_FORMAT),
        help="how such a line is written (default: text on a terminal, else json)",
    )
    parser.add_argument(
        "--traces",
        nargs="?",
        const=COLLECTOR,
        metavar="URL",
        help=f"send traces to this OpenTelemetry collector, by OTLP over HTTP (without a URL: {COLLECTOR}); "
        "OpenTelemetry's own variables are read, too",
    )


def serve_command(
    catalog: Catalog, variants: Mapping[str, Path], options: argparse.Namespace, say: Callable[[str], None]
) -> None:
    """Serves until Ctrl-C. Raises PortTaken, NotReady and TracingMissing."""
    from deployments.serve import serving

    if options.traces is not None:
        os.environ[TRACES_ENDPOINT] = options.traces.removesuffix("/").removesuffix(_TRACES) + _TRACES
    require_tracing(os.environ)
    on_terminal = options.access_log == "-" and sys.stdout.isatty()
    os.environ[LOG_FORMAT] = options.log_format or (LogFormat.TEXT if on_terminal else LogFormat.JSON)
    serving.serve(catalog, variants, options.host, options.port, say, options.access_log)


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise argparse.ArgumentTypeError("must be a port, 1 to 65535")
    return int(text)
