"""Starts and stops a gateway on this host, from a catalog and the folders of its variants.

`punctual serve` calls `serve`, in the process that its keeper has made (`keeping`). Checkpoints without a folder come
later (`late`). Functions import Ray themselves, after `environment.configure` has set its switches.
"""

from __future__ import annotations

import json
import logging
import math
import os
import signal
import threading
import urllib.error
import urllib.request
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, chdir, contextmanager, suppress
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from deployments.replica.prepared import NeverReady
from deployments.replica.variant import VariantRejected
from deployments.serve import environment, worker
from deployments.serve.keeping import ready, stops
from deployments.serve.late import LOOK_S as JOIN_LOOK_S
from deployments.serve.late import Deploy, Latecomers, Notes, Preparing
from deployments.serve.observing import OFF, access_log_to
from deployments.serve.standing_in import STANDING_IN, standing_in
from deployments.serve.template import template
from gateway.catalogs.catalog import Catalog
from gateway.model.errors import Starting, Stopping

if TYPE_CHECKING:
    from deployments.serve.graph import Placement
    from gateway.router import MakeScheduler

READY_WITHIN_S = 120.0
"""Seconds that the application may take to become ready."""

DRAIN_S = 60.0
"""Seconds that a stop leaves to requests under way."""

NOTES = "coming.json"
"""The file of the run folder with the notes on late checkpoints."""

ENDED_WITHIN_S = 2.0
"""Seconds that an ingress may take beyond that."""

_DIRECTLY = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Opens the gateway's own pages, whatever proxy the environment names."""

log = logging.getLogger("punctual.serving")


class NotReady(Exception):
    """The application did not become ready. The message says what is missing."""


@contextmanager
def running(
    folder: Path,
    catalog: Catalog,
    variants: Mapping[str, Path],
    host: str,
    port: int,
    say: Callable[[str], None],
    access_log: str = OFF,
    preparing: Preparing | None = None,
    scheduler: MakeScheduler | None = None,
    opened: Callable[[], None] = lambda: None,
) -> Iterator[str]:
    """Runs a gateway in a run folder during the context; yields its URL once it is ready for requests.

    `variants` has the folder of each checkpoint's variant, but for those that `preparing` makes during the context; of
    each task there is at least one, unless all of its checkpoints have failed by `preparing`. `access_log` is a path,
    `-` for this process's output, or `off`. `scheduler` makes the scheduler of another policy than ours. `opened` is
    called once ingresses answer at the port, which are ready after it. At the end, requests under way are finished,
    unless the gateway was never ready, and new ones are told that it stops; the processes that are left end with the
    run folder. Raises NotReady and LogUnwritable.
    """
    with access_log_to(access_log, folder), ExitStack() as template_open:
        environment.configure(folder)
        say(f"starting Ray Serve; its logs: {folder}/ray/session_latest/logs/serve")
        template_open.enter_context(template(folder))
        latecomers = None
        try:
            if preparing is not None:
                latecomers = Latecomers(preparing, Notes(folder / NOTES), say)
                latecomers.tell()
            _watch_parts(say)
            _start_ray(reserved_cpus(catalog), folder)
            (folder / STANDING_IN).touch()
            placement = _start(catalog, variants, host, port, folder, scheduler)
            url = _url(host, port)
            opened()
            (folder / STANDING_IN).unlink()
            await_ready(url, READY_WITHIN_S)
            if latecomers is not None:
                latecomers.start(_deployer(catalog, placement, url))
            yield url
            say("stopping")
            with standing_in(host, port, Stopping("the gateway stops")):
                stop_serving()
        finally:
            if latecomers is not None:
                latecomers.stop()


def serve(gateway: AbstractContextManager[str], folder: Path, say: Callable[[str], None]) -> None:
    """Runs a gateway, as `running` has it, in a run folder until SIGINT or SIGTERM. Raises as `running`.

    Ends the process if a part of Ray dies that cannot be replaced.
    """
    with gateway as url:
        told = stops(signal.SIGINT, signal.SIGTERM)  # only now, since Ray sets handlers of its own
        ready(folder)
        say(f"ready at {url}")
        told.get()


LOOK_S = 1.0
"""Seconds between two looks at whether Ray's own processes live."""

PARTS = {"gcs_server": "Ray's head process (gcs_server)", "raylet": "Ray's node process (raylet)"}
"""Processes that Ray starts once and never again: without them no replica can be watched or replaced."""


def _watch_parts(say: Callable[[str], None]) -> None:
    """Has a thread end this process once one of its parts has died, whatever else it waits for; the keeper clears."""

    def watch() -> None:
        parts: dict[str, psutil.Process] = {}
        pause = threading.Event()
        while (lost := lost_part(parts)) is None:
            pause.wait(LOOK_S)
            if len(parts) < len(PARTS):
                parts |= _parts()
        say(f"error: {lost} has died, and nothing can replace it: the gateway ends. Start it again")
        os._exit(1)  # Ray's calls wait for what is no longer there

    threading.Thread(target=watch, name="parts", daemon=True).start()


def _parts() -> Mapping[str, psutil.Process]:
    """The processes of `PARTS` that have been started by now, by what they are."""
    found = {}
    for child in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):
            found[child.name()] = child
    return {said: found[name] for name, said in PARTS.items() if name in found}


def lost_part(parts: Mapping[str, psutil.Process]) -> str | None:
    """What has died of the processes, by what they are; None while all live."""
    for said, process in parts.items():
        with suppress(psutil.NoSuchProcess):
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                continue
        return said
    return None


def await_ready(url: str, within_s: float) -> None:
    """Waits until `/readyz` answers 200. Raises NotReady with its last answer after `within_s` seconds."""
    last = "no answer"
    pause = threading.Event()
    for _ in range(int(within_s / 0.1)):
        try:
            with _DIRECTLY.open(f"{url}/readyz", timeout=2):
                return
        except urllib.error.HTTPError as error:
            said = error.read(2000).decode(errors="replace")
            last = last if Starting.code in said and "missing" in last else said
        except OSError as error:
            last = str(error)
        pause.wait(0.1)
    raise NotReady(f"not ready within {within_s:.0f} s: {last}")


def _url(host: str, port: int) -> str:
    """Where this host reaches a gateway that listens there."""
    reached = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{reached}]:{port}" if ":" in reached else f"http://{reached}:{port}"


def _leave_out_what_serves_nobody() -> None:
    """Keeps Ray from starting three processes that nothing asks on one host; `ray.init` has no option for any.

    The API server asks the metadata hosts of clouds where it runs, even with usage statistics off. Ray has a way to go
    on without one, for hosts where it does not start: this is what it gets there. The autoscaler has no nodes to add,
    and the log monitor copies workers' logs to a driver that wants none.
    """
    services: Any = import_module("ray._private.services")
    parameter: Any = import_module("ray._private.parameter")
    if not (callable(getattr(services, "start_api_server", None)) and hasattr(parameter, "RayParams")):
        raise RuntimeError("Ray starts its processes by other names: look at deployments/serve/serving.py again")
    services.start_api_server = lambda *_, **__: (None, None)
    parameter.RayParams = partial(
        parameter.RayParams, include_log_monitor=False, no_monitor=True, worker_path=worker.__file__
    )


def _start_ray(cpus: float, folder: Path) -> None:
    """Starts Ray and Ray Serve on this host only, with enough processors to reserve. Ingresses listen themselves."""
    import ray  # only after the switches, which Ray reads at import
    from ray import serve as ray_serve
    from ray.serve.config import ProxyLocation

    _leave_out_what_serves_nobody()
    warnings.filterwarnings("ignore", module="ray")
    with chdir(folder):  # Ray's workers search the driver's folder for modules: one named gateway/ would be taken
        ray.init(
            num_cpus=max(os.cpu_count() or 1, math.ceil(cpus)),
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            _node_ip_address="127.0.0.1",
            _temp_dir=str(folder / "ray"),
        )
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    ray_serve.start(proxy_location=ProxyLocation.Disabled)


def _start(
    catalog: Catalog,
    variants: Mapping[str, Path],
    host: str,
    port: int,
    folder: Path,
    scheduler: MakeScheduler | None,
) -> Placement:
    """Starts the gateway with the checkpoints that have a variant. Raises NotReady if one is rejected."""
    from ray import serve as ray_serve

    from deployments.serve.checkpoint import TransportSettings
    from deployments.serve.discovery import APPLICATION
    from deployments.serve.graph import Placement, application
    from deployments.serve.ingress import Listening

    transport = TransportSettings(folder / "run", certificates=None)
    placement = Placement(transport, Listening(host, port, drain_s=DRAIN_S), notes=folder / NOTES)
    if scheduler is not None:
        placement = replace(placement, scheduler=scheduler)
    try:
        absolute = {name: variant.absolute() for name, variant in variants.items()}
        ray_serve.run(application(catalog, absolute, placement), name=APPLICATION, route_prefix=None)
    except RuntimeError as error:  # Ray Serve raises it if a replica's constructor raised
        deployments = ray_serve.status().applications[APPLICATION].deployments.values()
        raise NotReady(_cause([str(error), *(deployment.message for deployment in deployments)])) from None
    return placement


def _deployer(catalog: Catalog, placement: Placement, url: str) -> Deploy:
    """What deploys a late checkpoint to the gateway that answers at the URL."""
    from ray import serve as ray_serve
    from ray.exceptions import RayError
    from ray.serve.exceptions import RayServeException
    from ray.serve.schema import ApplicationStatus

    from deployments.serve.discovery import late_application
    from deployments.serve.graph import checkpoint_application

    entries = {entry.name: entry for entry in catalog.checkpoints}

    def deploy(checkpoint: str, variant: Path, stopping: threading.Event) -> None:
        """Deploys it, and waits until an ingress has taken it in."""
        try:
            bring_up(checkpoint, variant, stopping)
        except (RayError, RayServeException) as error:
            raise NeverReady(f"Ray Serve: {error}", "its replica could not be started") from error

    def bring_up(checkpoint: str, variant: Path, stopping: threading.Event) -> None:
        graph = checkpoint_application(catalog, entries[checkpoint], variant.absolute(), placement)
        name = late_application(checkpoint)
        target = ray_serve.RunTarget(target=graph, name=name, route_prefix=None)
        ray_serve.run_many([target], wait_for_applications_running=False)
        for _ in range(int(READY_WITHIN_S / JOIN_LOOK_S)):
            if stopping.wait(JOIN_LOOK_S) or _has_joined(url, checkpoint):
                return
            application = ray_serve.status().applications[name]
            if application.status is ApplicationStatus.DEPLOY_FAILED:
                messages = [application.message, *(one.message for one in application.deployments.values())]
                ray_serve.delete(name, _blocking=False)
                raise NeverReady(_cause(messages), "its replica did not start")
        raise NeverReady(f"{checkpoint} was not taken in within {READY_WITHIN_S:.0f} s", "its replica did not answer")

    return deploy


def _has_joined(url: str, checkpoint: str) -> bool:
    """True if an ingress says that the checkpoint is no longer coming; False also if none answers."""
    try:
        with _DIRECTLY.open(f"{url}/readyz", timeout=2) as answer:
            ready = json.load(answer)
    except (OSError, ValueError):
        return False
    return all(coming["checkpoint"] != checkpoint for coming in ready["coming"])


def reserved_cpus(catalog: Catalog) -> float:
    """The processors that all processes reserve when each checkpoint has the most replicas."""
    ingress = catalog.ingress
    return ingress.replicas * ingress.cpus + sum(entry.most_replicas * entry.cpus for entry in catalog.checkpoints)


def _cause(messages: Sequence[str]) -> str:
    """Finds the line of Ray Serve's reports with our own error, or else the first report."""
    lines = (line.strip() for message in messages for line in message.splitlines())
    named = [line.partition(f"{VariantRejected.__name__}: ")[2] for line in lines if VariantRejected.__name__ in line]
    return next(filter(None, named), messages[0])


def stop_serving() -> None:
    """Drains the ingresses, then the replicas that they need for that. Ray itself goes on."""
    from ray import serve as ray_serve

    from deployments.serve.discovery import APPLICATION, drain_ingresses

    logging.getLogger("ray.serve").setLevel(logging.CRITICAL)  # its handles complain that their loops have ended
    drain_ingresses(DRAIN_S + ENDED_WITHIN_S)
    for late in ray_serve.status().applications.keys() - {APPLICATION}:
        ray_serve.delete(late, _blocking=False)
    with suppress(TimeoutError):
        ray_serve.delete(APPLICATION)  # remaining processes end with the run folder
