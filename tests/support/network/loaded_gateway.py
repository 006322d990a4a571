"""Clients of a live gateway that keep sending while one of its processes is killed."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
import psutil
from live import Live
from waiting import wait_until


def post(url: str, statuses: Counter[int], over: threading.Event, **headers: str) -> None:
    """Send requests in a loop until `over`; count each status, and 0 where no answer came within a minute."""
    with httpx.Client(base_url=url, timeout=60) as client:
        while not over.is_set():
            try:
                answer = client.post("/classify", json={"inputs": "a good film"}, headers=headers)
            except httpx.TransportError:
                statuses[0] += 1
            else:
                statuses[answer.status_code] += 1
                assert answer.status_code != 503 or "Retry-After" in answer.headers


@contextmanager
def loaded(live: Live, **headers: str) -> Iterator[Counter[int]]:
    """Four clients send during the context, which begins once some were answered; yields their growing statuses."""
    statuses: Counter[int] = Counter()
    over = threading.Event()
    clients = [threading.Thread(target=post, args=(live.url, statuses, over), kwargs=headers) for _ in range(4)]
    for client in clients:
        client.start()
    try:
        wait_until(lambda: statuses[200] > 50)
        yield statuses
    finally:
        over.set()
        for client in clients:
            client.join()


def under_load(live: Live, harm: psutil.Process, seen: Callable[[Counter[int]], bool], **headers: str) -> Counter[int]:
    """Kill a process under the load of four clients, and return their statuses once `seen` is satisfied."""
    with loaded(live, **headers) as statuses:
        harm.kill()
        wait_until(lambda: not harm.is_running() or harm.status() == psutil.STATUS_ZOMBIE)
        wait_until(lambda: seen(statuses))
    return statuses
