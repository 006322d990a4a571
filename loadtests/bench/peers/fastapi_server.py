"""The baseline: one variant behind FastAPI and uvicorn in one process, as a good engineer would serve it by hand.

Nothing is held back: uvloop and httptools, no access log, tokenising, engine and softmax in one hop to a small thread
pool, an answer that is encoded once and not validated. The variant, its engine and its task are the gateway's own, so
the two differ in the serving alone. Run as `python -m loadtests.bench.peers.fastapi_server FOLDER PORT THREADS`.
"""

from __future__ import annotations

import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import uvicorn
from fastapi import FastAPI, Response
from pydantic import BaseModel

from deployments.replica.classify import open_classifier
from loadtests.bench.peers.engine import answer


class Body(BaseModel):
    """The body of `POST /classify`: one text."""

    inputs: str


def build(folder: Path, threads: int) -> FastAPI:
    """The application: one session of one engine thread, called from `threads` threads."""
    variant = open_classifier(folder, threads=1)
    pool = ThreadPoolExecutor(threads)
    app = FastAPI()

    def answered(text: str) -> bytes:
        return msgspec.json.encode([answer(variant, text)])

    @app.post("/classify")
    async def classify(body: Body) -> Response:
        content = await asyncio.get_running_loop().run_in_executor(pool, answered, body.inputs)
        return Response(content, media_type="application/json")

    @app.get("/readyz")
    async def readyz() -> dict[str, bool]:
        return {"ready": True}

    return app


if __name__ == "__main__":
    uvicorn.run(
        build(Path(sys.argv[1]), threads=int(sys.argv[3])),
        host="127.0.0.1",
        port=int(sys.argv[2]),
        loop="uvloop",
        http="httptools",
        log_level="warning",
        access_log=False,
        lifespan="off",
    )
