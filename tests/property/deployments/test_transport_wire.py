"""Laws of the transport for all bytes and all work: a peer can break no connection but its own."""

from __future__ import annotations

import asyncio
import itertools
import math
import random
import socket
import struct
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from batches import result_of
from hypothesis import given
from hypothesis import strategies as st
from tried import tried
from virtual_time import loop_clock, run_virtually
from waiting import until

from deployments.transport import Endpoint, ProtocolError, TransportClient, TransportServer, UnixAddress
from deployments.transport.connection import (
    HELLO,
    Cancel,
    ClientFrame,
    Done,
    Draining,
    HandshakeError,
    Ping,
    Pong,
    ServerFrame,
    Submit,
    append_frame,
    client_frames,
    hello_received,
    server_frames,
)
from gateway.model.messages import (
    Answer,
    Emit,
    Failure,
    FailureKind,
    Generation,
    InputReport,
    LoadReport,
    ReplicaTimings,
    Work,
)
from gateway.tasks.classify import ClassifyParameters, LabelScore
from gateway.tasks.summarize import SummarizeParameters, Summary

texts = st.text(st.characters(exclude_categories=["Cs"]))
floats = st.floats(allow_nan=False)
counts = st.integers(0, 2**63 - 1)
ids = st.integers(0, 2**64 - 1)
labelling = st.builds(
    ClassifyParameters,
    top_k=st.none() | counts,
    function_to_apply=st.sampled_from(["softmax", "sigmoid", "none"]),
    truncation=st.sampled_from(["longest_first", "error"]),
)
summarising = st.builds(
    SummarizeParameters,
    *(st.none() | counts,) * 3,
    st.none() | floats,
    st.none() | counts,
    st.none() | st.booleans(),
    st.sampled_from(["chunk", "longest_first", "error"]),
)
parameters = (labelling | summarising).map(msgspec.to_builtins)
"""Parameters as they arrive: plain data, which the task's replica parses."""
works = st.builds(Work, texts, st.lists(texts, max_size=5).map(tuple), parameters, floats, st.booleans(), texts)
scores = st.lists(st.builds(LabelScore, texts, floats), max_size=3).map(msgspec.to_builtins)
summaries = st.builds(Summary, texts).map(msgspec.to_builtins)
reasons = st.sampled_from(["stop", "length", "deadline"])
generations = st.builds(Generation, reasons, *(counts,) * 5, floats, st.booleans())
answers = st.builds(
    Answer,
    (st.lists(scores, max_size=3) | st.lists(summaries, max_size=3)).map(tuple),
    st.builds(InputReport, counts, counts, st.booleans()),
    st.builds(ReplicaTimings, floats, floats, floats, counts),
    st.lists(generations, max_size=3).map(tuple),
)
failures = st.builds(Failure, st.sampled_from(FailureKind), texts, counts, counts)
loads = st.builds(LoadReport, floats, counts, st.booleans(), st.none() | counts, counts)
batches = st.lists(works, max_size=3).map(tuple)
results = st.lists(answers | failures, max_size=3).map(tuple)
to_server: st.SearchStrategy[ClientFrame] = st.builds(Submit, ids, batches) | st.builds(Cancel, ids) | st.just(Ping())
to_client: st.SearchStrategy[ServerFrame] = (
    st.builds(Done, ids, results, loads)
    | st.builds(Pong, loads)
    | st.builds(Draining, loads)
    | st.builds(Pong, loads)
    | st.builds(Draining, loads)
)


def encoded(*frames: ClientFrame | ServerFrame) -> bytes:
    """The frames as they are sent, one behind the other."""
    buffer = bytearray()
    for frame in frames:
        append_frame(buffer, frame)
    return bytes(buffer)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    """The bytes, cut at these places, empty pieces included."""
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges)]


@given(st.lists(to_server, max_size=8), st.lists(ids, max_size=12))
def test_what_a_client_sends_arrives_however_it_is_cut(frames: list[ClientFrame], cuts: list[int]) -> None:
    """Work arrives at the server unchanged, however the stream is cut."""
    reader = client_frames()
    assert [frame for piece in pieces(encoded(*frames), cuts) for frame in reader.feed(piece)] == frames


@given(st.lists(to_client, max_size=8), st.lists(ids, max_size=12))
def test_what_a_server_sends_arrives_however_it_is_cut(frames: list[ServerFrame], cuts: list[int]) -> None:
    """Answers, failures and load reports arrive at the client unchanged, however the stream is cut."""
    reader = server_frames()
    assert [frame for piece in pieces(encoded(*frames), cuts) for frame in reader.feed(piece)] == frames


def test_a_load_that_is_no_number_crosses_too() -> None:
    """NaN and infinity cross the wire as floats: the forecast decides what to make of them."""
    [frame] = server_frames().feed(encoded(Pong(LoadReport(math.nan, 0)), Pong(LoadReport(math.inf, 0)))[:-18])
    assert isinstance(frame, Pong) and math.isnan(frame.load.backlog_s)


framed_bytes = st.binary(max_size=200).map(lambda body: struct.pack(">I", len(body)) + body)


def spoilt(frame: ClientFrame, at: int, byte: int) -> bytes:
    """A frame with one byte of it replaced."""
    data = bytearray(encoded(frame))
    data[at % len(data)] = byte
    return bytes(data)


noise = st.binary(max_size=300) | framed_bytes | st.builds(spoilt, to_server, counts, st.integers(0, 255))


@given(st.lists(noise, max_size=4))
def test_noise_is_frames_or_a_protocol_error(chunks: list[bytes]) -> None:
    """Both readers, fed any bytes, yield typed frames or raise ProtocolError, and nothing else."""
    for reader in (client_frames(), server_frames()):
        try:
            for chunk in chunks:
                for frame in reader.feed(chunk):
                    assert isinstance(frame, Submit | Cancel | Ping | Done | Pong | Draining)
        except ProtocolError:
            continue


@given(st.binary(max_size=8) | st.binary(max_size=8).map(lambda rest: HELLO[:3] + rest))
def test_only_the_hello_is_a_hello(said: bytes) -> None:
    """Bytes other than the hello are refused, or waited on only while they are the beginning of one."""
    try:
        complete = hello_received(said)
    except HandshakeError:
        assert not said.startswith(HELLO) and not HELLO.startswith(said)
    else:
        assert said.startswith(HELLO) if complete else HELLO.startswith(said)


async def echo(batch: Sequence[Work], emit: Emit) -> Sequence[Failure]:
    """Answers any batch."""
    return [Failure(FailureKind.TOO_LONG, work.inputs[0] if work.inputs else "", 1, 1) for work in batch]


async def ask_beside(address: UnixAddress) -> None:
    """A well-behaved client, connecting now, is served."""
    client = TransportClient(Endpoint("r", "n", address), "n", lambda load: None, random.Random(1))
    running = asyncio.create_task(client.run())
    await until(lambda: client.connected)
    work = Work("classify", ("well?",), ClassifyParameters(), 1.0, True, "r")
    assert await result_of(client, work) == Failure(FailureKind.TOO_LONG, "well?", 1, 1)
    await client.close()
    await running


async def assault(address: UnixAddress, chunks: list[bytes], greet: bool) -> None:
    """Sends the chunks to a fresh server, after a hello or in place of one, then asks as a good client.

    In place of a hello, it then waits for the server to hang up, which it must do in the time for a hello.
    """
    loop, reported = asyncio.get_running_loop(), list[object]()
    began_s = loop_clock()()
    loop.set_exception_handler(lambda loop, context: reported.append(context))
    server = TransportServer(echo, lambda: LoadReport(0.0, 0), handshake_s=30.0 if greet else 0.03)
    await server.start(address)
    with socket.socket(socket.AF_UNIX) as raw:
        raw.setblocking(False)
        await loop.sock_connect(raw, address.path)
        try:
            if greet:
                await loop.sock_sendall(raw, HELLO)
            for chunk in chunks:
                await loop.sock_sendall(raw, chunk)
                await asyncio.sleep(0)
            while not greet and await loop.sock_recv(raw, 4096):
                pass
        except ConnectionError:
            pass
        assert loop_clock()() - began_s <= 0.03
        await ask_beside(address)
    await server.close()
    assert not reported
    assert server.in_flight == 0


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> UnixAddress:
    """An address for the servers, one after the other."""
    directory: Path = tmp_path_factory.mktemp("transport")
    return UnixAddress(str(directory / "s"))


@given(chunks=st.lists(noise, max_size=4))
def test_noise_after_a_hello_harms_nobody_else(address: UnixAddress, chunks: list[bytes]) -> None:
    """Noise after a hello leaves the server without an error of its own, and it serves the next client."""
    run_virtually(assault(address, chunks, greet=True))


@tried(0.5)
@given(chunks=st.lists(st.binary(max_size=60), max_size=3), begun=st.sampled_from([b"", HELLO[:3]]))
def test_noise_for_a_hello_is_hung_up_on_in_time(address: UnixAddress, chunks: list[bytes], begun: bytes) -> None:
    """A peer without a hello, silent or noisy, is dropped within the time for one, and harms no other client."""
    run_virtually(assault(address, [begun, *chunks], greet=False))


@given(st.lists(st.builds(LabelScore, texts, floats.filter(math.isfinite)), max_size=3), texts)
def test_outputs_are_the_same_json_after_the_crossing(labels: list[LabelScore], text: str) -> None:
    """The client receives byte for byte the JSON that the replica meant, since the gateway passes it on unparsed."""
    sent = Answer((tuple(labels), Summary(text)), InputReport(1, 1, False), ReplicaTimings(0.0, 0.0, 0.0, 1))
    (done,) = server_frames().feed(encoded(Done(1, (sent,), LoadReport(0.0, 0))))
    assert isinstance(done, Done) and isinstance(done.results[0], Answer)
    assert msgspec.json.encode(done.results[0].outputs) == msgspec.json.encode(sent.outputs)
