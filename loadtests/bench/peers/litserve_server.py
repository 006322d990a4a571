"""A peer: one variant behind LitServe as its guide has it, two worker processes of one engine thread each.

Run as `python -m loadtests.bench.peers.litserve_server FOLDER PORT`. LitServe comes with the extra `[peers]`.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import litserve
import msgspec
from fastapi import Request, Response

from deployments.replica.classify import open_classifier
from gateway.tasks.classify import LabelScore
from loadtests.bench.peers.engine import answers
from loadtests.sentences import texts_of

WORKERS = 2


class Classifier(litserve.LitAPI):  # type: ignore[misc]  # it has no types
    """What a worker does with a request: its texts, their scores, the answer."""

    def __init__(self, folder: Path) -> None:
        super().__init__(api_path="/classify")
        self._folder = folder

    def setup(self, device: str) -> None:
        """Opens the variant in the worker's process."""
        self._variant = open_classifier(self._folder, threads=1)

    def decode_request(self, request: Request, **context: Any) -> list[str]:
        """The texts of a body."""
        return texts_of(request["inputs"])

    def predict(self, x: Sequence[str], **context: Any) -> list[tuple[LabelScore, ...]]:
        """The scores of each text."""
        return answers(self._variant, x)

    def encode_response(self, output: Sequence[Sequence[LabelScore]], **context: Any) -> Response:
        """The scores as JSON."""
        return Response(msgspec.json.encode(output), media_type="application/json")


def main(folder: Path, port: int) -> None:
    """Serves until it is stopped."""
    os.environ.setdefault("LIT_SERVE_DISABLE_TELEMETRY", "1")
    server = litserve.LitServer(Classifier(folder), accelerator="cpu", workers_per_device=WORKERS, track_requests=False)
    server.run(host="127.0.0.1", port=port, generate_client_file=False, log_level="warning", access_log=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
