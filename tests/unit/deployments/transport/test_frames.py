"""The transport's codec at its limits: what is too long, what is malformed, what msgpack cannot carry."""

from __future__ import annotations

import struct

import msgspec
import pytest
from msgspec.structs import replace

from deployments.transport.connection import (
    MAX_FRAME_BYTES,
    Cancel,
    ClientFrame,
    Draining,
    FrameTooLong,
    Ping,
    Progress,
    ProtocolError,
    Submit,
    append_frame,
    client_frames,
    server_frames,
)
from gateway.model.messages import Delta, LoadReport, Work
from gateway.tasks.classify import ClassifyParameters

PLAIN = msgspec.to_builtins(ClassifyParameters())
"""Parameters as they arrive: plain data, which the task's own replica reads."""

WORK = Work("classify", ("a text",), PLAIN, remaining_s=0.25, strict=True, request_id="r-1")


def framed(body: bytes) -> bytes:
    """A body with its correct length in front."""
    return struct.pack(">I", len(body)) + body


def test_the_bytes_of_the_wire_are_pinned() -> None:
    """The bytes of each frame are pinned, since old and new processes meet during every upgrade."""
    buffer = bytearray()
    append_frame(buffer, Submit(7, (WORK,)))
    assert buffer.hex() == (
        "00000042" "930007" "91" "99" "a8636c617373696679" "91a6612074657874"
        "95a8636c617373696679c0c0ad6c6f6e676573745f6669727374c0" "cb3fd0000000000000" "c3" "a3722d31"
        "c0" "c2" "c2"
    )  # fmt: skip
    buffer.clear()
    append_frame(buffer, Progress(7, 1, Delta(2, "it")))
    assert buffer.hex() == "00000009" "940607" "01" "9202a26974"  # fmt: skip


def test_work_from_before_trace_contexts_is_still_read() -> None:
    """Work from an older process is still read: a field that it lacks gets its default."""
    earlier = msgspec.msgpack.encode(msgspec.structs.astuple(WORK)[:-3])
    assert msgspec.msgpack.decode(earlier, type=Work) == WORK


def test_work_with_what_a_later_process_adds_is_still_read() -> None:
    """Work from a newer process is still read: a field that is unknown here is skipped."""
    later = msgspec.msgpack.encode((*msgspec.structs.astuple(WORK), "new"))
    assert msgspec.msgpack.decode(later, type=Work) == WORK


def test_many_frames_share_one_buffer() -> None:
    """Frames appended to one buffer are read one by one, in order."""
    buffer = bytearray()
    frames: list[ClientFrame] = [Submit(1, (WORK,)), Ping(), Cancel(1), Submit(2, (WORK,))]
    for frame in frames:
        append_frame(buffer, frame)
    assert list(client_frames().feed(bytes(buffer))) == frames


def test_a_frame_may_be_as_long_as_the_limit_and_no_longer() -> None:
    """A frame of exactly the limit fits, and one byte more is refused with the buffer unchanged."""
    buffer = bytearray(b"earlier")
    append_frame(buffer, Submit(1, (replace(WORK, inputs=("x" * 70_000,)),)))
    overhead = len(buffer) - len(b"earlier") - 4 - 70_000
    longest = "x" * (MAX_FRAME_BYTES - overhead)
    buffer = bytearray()
    append_frame(buffer, Submit(1, (replace(WORK, inputs=(longest,)),)))
    assert len(buffer) == 4 + MAX_FRAME_BYTES
    assert len(list(client_frames().feed(bytes(buffer)))) == 1
    with pytest.raises(FrameTooLong):
        append_frame(buffer, Submit(1, (replace(WORK, inputs=(longest + "x",)),)))
    assert len(buffer) == 4 + MAX_FRAME_BYTES


def test_an_announced_length_past_the_limit_is_refused_unread() -> None:
    """An announced length over the limit is refused before its body is read or allocated."""
    with pytest.raises(ProtocolError, match="announced"):
        list(client_frames().feed(struct.pack(">I", MAX_FRAME_BYTES + 1)))


@pytest.mark.parametrize("work", [replace(WORK, task="\ud800"), replace(WORK, inputs=(1 << 70,))], ids=["text", "int"])
def test_what_msgpack_cannot_carry_is_refused_whole(work: Work) -> None:
    """Work with a lone surrogate or an integer over 64 bits is a ProtocolError, and leaves nothing half written."""
    buffer = bytearray(b"earlier")
    with pytest.raises(ProtocolError):
        append_frame(buffer, Submit(1, (work,)))
    assert buffer == b"earlier"


MALFORMED = {
    "empty": b"",
    "not msgpack": b"\xc1",
    "no tag": b"\x90",
    "another tag": b"\x91\x63",
    "the other side's frame": b"\x92\x05\x93\xcb" + bytes(8) + b"\x00\xc2",
    "a text for an id": b"\x92\x01\xa1a",
    "bad UTF-8": b"\x93\x00\x01\x91\x97\xa2\xc3\x28",
    "cut short": b"\x92\x01\xcd\x01",
    "bytes behind the end": b"\x92\x01\x01\x00",
    "one request for a batch": b"\x93\x00\x01\x97\xa1c",
    "an array of four billion": b"\x93\x00\x01\x91\x97\xa1c\xdd\xff\xff\xff\xff\xa1a",
    "nested past the stack": b"\x93\x01\x01" + b"\x91" * 1_000_000 + b"\x00",
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED.keys())
def test_a_malformed_body_is_a_protocol_error(body: bytes) -> None:
    """Any malformed body is a ProtocolError that quotes nothing of it."""
    with pytest.raises(ProtocolError, match=r"^a malformed frame \(\w+\)$"):
        list(client_frames().feed(framed(body)))


def test_frames_before_a_bad_one_are_delivered() -> None:
    """Frames before a broken one are delivered, wherever the stream was cut."""
    buffer = bytearray()
    append_frame(buffer, Ping())
    frames = client_frames().feed(bytes(buffer) + framed(b"\xc1"))
    assert next(frames) == Ping()
    with pytest.raises(ProtocolError):
        next(frames)


def test_an_unknown_trailing_field_is_skipped() -> None:
    """An unknown trailing field of a frame is skipped, so that a later release may append one."""
    assert list(server_frames().feed(framed(b"\x93\x05\x93\xcb" + bytes(8) + b"\x00\xc2\xa5later"))) == [
        Draining(LoadReport(0.0, 0))
    ]
