"""A peer: one variant behind Ray Serve as its tutorial has it, a FastAPI application in two replicas.

Run as `python -m loadtests.bench.peers.ray_serve_server FOLDER PORT`. Requests go through Ray Serve's own HTTP proxy.
"""

import os
import signal
import sys
from pathlib import Path

import msgspec
from fastapi import FastAPI, Response
from pydantic import BaseModel

from deployments.replica.classify import open_classifier
from loadtests.bench.peers.engine import answers
from loadtests.sentences import texts_of

REPLICAS = 2
application = FastAPI()


class Body(BaseModel):
    """The body of `POST /classify`: one text, or several."""

    inputs: str | list[str]


def serve(folder: Path, port: int) -> None:
    """Serves until it is told to stop."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray  # after the switch, which it reads at import
    from ray import serve as ray_serve
    from ray.serve.config import HTTPOptions

    @ray_serve.deployment(num_replicas=REPLICAS, ray_actor_options={"num_cpus": 0})
    @ray_serve.ingress(application)
    class Classifier:
        def __init__(self, of: str) -> None:
            self._variant = open_classifier(Path(of), threads=1)

        @application.post("/classify")
        def classify(self, body: Body) -> Response:
            found = answers(self._variant, texts_of(body.inputs))
            return Response(msgspec.json.encode(found), media_type="application/json")

        @application.get("/readyz")
        def readyz(self) -> dict[str, bool]:
            return {"ready": True}

    ray.init(address="local", include_dashboard=False, num_cpus=REPLICAS, log_to_driver=False)
    ray_serve.start(http_options=HTTPOptions(host="127.0.0.1", port=port))
    ray_serve.run(Classifier.bind(str(folder)))  # type: ignore[attr-defined]  # the decorator gives it
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    ray.shutdown()


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})  # for sigwait, in every thread
    serve(Path(sys.argv[1]), int(sys.argv[2]))
