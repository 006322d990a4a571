"""The baseline server: one variant behind a well-tuned FastAPI and uvicorn, in one process.

It uses uvloop and httptools and has no access log. One hop to a small thread pool runs tokeniser, engine and softmax;
the answer is encoded once and not validated. Variant, engine and task are the gateway's own, so only the serving
differs. Run as `python -m loadtests.bench.peers.fastapi_server FOLDER PORT THREADS`; with 0 threads, one calls a
session that has ONNX Runtime's own settings: all processors, and threads that spin.
"""

from __future__ import annotations

import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import msgspec
import onnxruntime
import uvicorn
from fastapi import FastAPI, Response
from pydantic import BaseModel

from deployments.engines.onnx import OnnxEngine
from deployments.engines.opening import ONNX_FILE
from deployments.replica.classify import open_classifier
from loadtests.bench.peers.engine import answers
from loadtests.sentences import texts_of


class Body(BaseModel):
    """The body of `POST /classify`: one text, or several, which are run together."""

    inputs: str | list[str]


def build(folder: Path, threads: int) -> FastAPI:
    """The application: one engine session with one thread, called from `threads` threads; of 0 as the module says."""
    variant = open_classifier(folder, threads=1)
    if threads == 0 and variant.manifest.engine == "onnx":
        session = onnxruntime.InferenceSession(folder / ONNX_FILE, providers=["CPUExecutionProvider"])
        engine = OnnxEngine(session, frozenset(node.name for node in session.get_inputs()))
        variant = replace(variant, engine=engine)
    pool = ThreadPoolExecutor(max(threads, 1))
    app = FastAPI()

    def answered(inputs: str | list[str]) -> bytes:
        return msgspec.json.encode(answers(variant, texts_of(inputs)))

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
