"""Where replicas listen: which address is picked, and when a socket file is replaced or removed."""

from __future__ import annotations

import os
import pickle
import random
import socket
import stat
from pathlib import Path

import pytest

from deployments.transport import Backoff, Endpoint, TcpAddress, UnixAddress
from deployments.transport.address import SocketFile

UNIX, TCP = UnixAddress("/run/r.sock"), TcpAddress("10.0.0.1", 7000)


def test_same_node_unix_other_node_tcp() -> None:
    """A replica is reached by its socket file on its own node and by TCP from any other."""
    endpoint = Endpoint("r", "node-a", UNIX, TCP)
    assert endpoint.pick("node-a") == UNIX
    assert endpoint.pick("node-b") == TCP


def test_a_replica_without_tcp_is_out_of_reach_from_elsewhere() -> None:
    """A replica without TCP is out of reach from other nodes, and the error names the replica and both nodes."""
    with pytest.raises(ValueError, match=r"replica r on node node-a .* node-b"):
        Endpoint("r", "node-a", UNIX).pick("node-b")


def test_an_endpoint_can_be_announced() -> None:
    """An endpoint survives pickling, so that it can be announced to other processes."""
    endpoint = Endpoint("r", "node-a", UNIX, TCP)
    assert pickle.loads(pickle.dumps(endpoint)) == endpoint


def test_a_path_the_kernel_would_cut_is_refused() -> None:
    """A path of 107 bytes is accepted and one of 108 refused, because the kernel would cut it."""
    UnixAddress("/" + "é" * 53)
    for path in ("/" + "a" * 107, "/" + "é" * 54, ""):
        with pytest.raises(ValueError, match="107"):
            UnixAddress(path)


def test_the_directory_is_private(tmp_path: Path) -> None:
    """A missing directory is made for this user alone."""
    bound = SocketFile.bind(UnixAddress(str(tmp_path / "run" / "s")))
    assert stat.S_IMODE((tmp_path / "run").stat().st_mode) == 0o700
    bound.socket.close()
    bound.remove()
    assert not (tmp_path / "run" / "s").exists()


def test_a_directory_that_others_may_enter_is_refused(tmp_path: Path) -> None:
    """A directory that others may enter is refused, because it guards the socket."""
    (tmp_path / "open").mkdir()
    os.chmod(tmp_path / "open", 0o755)
    with pytest.raises(PermissionError, match="0700"):
        SocketFile.bind(UnixAddress(str(tmp_path / "open" / "s")))


def test_the_file_of_a_dead_process_is_replaced(tmp_path: Path) -> None:
    """The socket file that a crashed process left is replaced."""
    address = UnixAddress(str(tmp_path / "s"))
    SocketFile.bind(address).socket.close()
    again = SocketFile.bind(address)
    again.socket.close()
    again.remove()


def test_a_living_listener_is_left_alone(tmp_path: Path) -> None:
    """A second replica at the path of a living one is refused, and the first is not disturbed."""
    address = UnixAddress(str(tmp_path / "s"))
    first = SocketFile.bind(address)
    first.socket.listen()
    with pytest.raises(OSError, match="listens here"):
        SocketFile.bind(address)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(address.path)
    first.socket.close()
    first.remove()


def test_what_is_no_socket_is_never_removed(tmp_path: Path) -> None:
    """A file that is no socket is never removed, even if its path is given by mistake."""
    (tmp_path / "s").write_text("precious")
    with pytest.raises(FileExistsError):
        SocketFile.bind(UnixAddress(str(tmp_path / "s")))
    assert (tmp_path / "s").read_text() == "precious"


def test_a_successor_keeps_its_file(tmp_path: Path) -> None:
    """A server that ends late does not remove the socket file of its successor."""
    address = UnixAddress(str(tmp_path / "s"))
    late = SocketFile.bind(address)
    os.rename(address.path, address.path + ".old")  # keeps the inode in use, so that it is not given out again
    successor = SocketFile.bind(address)
    late.remove()
    assert Path(address.path).exists()
    for file in (late, successor):
        file.socket.close()


def test_backing_off_doubles_up_to_a_cap_and_is_spread() -> None:
    """Each retry waits between half and all of a doubling time, and never longer than the cap."""
    backoff, rng = Backoff(first_s=0.1, cap_s=1.0), random.Random(7)
    for failures, full in [(0, 0.1), (1, 0.2), (3, 0.8), (4, 1.0), (5000, 1.0)]:
        waits = [backoff.delay_s(failures, rng) for _ in range(50)]
        assert full / 2 <= min(waits) < max(waits) <= full
