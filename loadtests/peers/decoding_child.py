"""One engine of a decoding race, alone in a process: its memory, its thread pool and its settings are nobody else's.

Run as `python -m loadtests.peers.decoding_child`. A `DecodingJob` comes on the first line of standard input and
`Loaded` goes back; then each `Ask` is answered with `Told`, until the input ends. All are JSON, a line each.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from time import perf_counter

import msgspec
import psutil

from loadtests.peers.decoding_port import Ask, DecodingJob, DecodingPeer, Loaded, Told


def open_peer(job: DecodingJob) -> DecodingPeer:
    """The engine that a job names, loaded; only its own library is imported. Raises ValueError for no engine."""
    folder = Path(job.folder)
    match job.engine.rpartition("-")[0]:
        case "onnxruntime":
            from deployments.engines.onnx_seq2seq import OnnxSeq2Seq
            from loadtests.peers.decoding_steps import StepByStep

            onnx = OnnxSeq2Seq.open(folder, job.threads)
            return StepByStep(onnx, job.engine.rpartition("-")[2], job.start_id, job.end_id)
        case "openvino":
            from loadtests.peers.decoding_openvino import OpenVinoSeq2Seq
            from loadtests.peers.decoding_steps import StepByStep

            engine = OpenVinoSeq2Seq.open(folder, job.threads)
            return StepByStep(engine, engine.arithmetic, job.start_id, job.end_id)
        case "ctranslate2":
            from loadtests.peers.decoding_ctranslate2 import CTranslate2Peer

            return CTranslate2Peer.open(folder, job.threads)
        case "torch":
            from loadtests.peers.decoding_torch import TorchPeer

            return TorchPeer.open(folder, job.threads)
    raise ValueError(f"no engine is called {job.engine!r}")


def told(peer: DecodingPeer, token_ids: tuple[int, ...], ask: Ask) -> Told:
    """One turn. Raises ValueError when the engine writes more or fewer tokens than asked."""
    encode_s = None
    if peer.encodes_alone:
        start = perf_counter()
        peer.encode(token_ids)
        encode_s = perf_counter() - start
    one_s, all_s = (_seconds(peer, token_ids, ask.beams, tokens) for tokens in (1, ask.tokens))
    return Told(encode_s, one_s, all_s, _resident())


def _seconds(peer: DecodingPeer, token_ids: tuple[int, ...], beams: int, tokens: int) -> float:
    start = perf_counter()
    written = peer.write(token_ids, beams, tokens)
    taken = perf_counter() - start
    if written != tokens:
        raise ValueError(f"it was asked for {tokens} tokens with {beams} beams and wrote {written}")
    return taken


def _resident() -> int:
    return int(psutil.Process().memory_info().rss)


def main() -> None:
    """The program. Whatever a library prints goes to standard error, so that nothing comes between the answers."""
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    lines = sys.stdin.buffer
    job = msgspec.json.decode(lines.readline(), type=DecodingJob)
    start = perf_counter()
    peer = open_peer(job)
    loaded = Loaded(perf_counter() - start, _resident(), peer.arithmetic)
    answers.write(msgspec.json.encode(loaded) + b"\n")
    for line in lines:
        answer = told(peer, job.token_ids, msgspec.json.decode(line, type=Ask))
        answers.write(msgspec.json.encode(answer) + b"\n")


if __name__ == "__main__":
    main()
