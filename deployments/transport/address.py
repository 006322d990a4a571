"""Says where a replica listens, and makes the socket files of Unix addresses. Knows nothing of frames."""

from __future__ import annotations

import errno
import os
import socket
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

MAX_UNIX_PATH_BYTES: Final = 107
"""Longest path of a socket: Linux has 108 bytes for it, with the closing zero (unix(7), `sun_path`)."""


@dataclass(frozen=True)
class UnixAddress:
    """A socket file, for processes on the same node."""

    path: str

    def __post_init__(self) -> None:
        """Raises ValueError for a path that the kernel would cut, or refuse without a reason."""
        size = len(os.fsencode(self.path))
        if not 0 < size <= MAX_UNIX_PATH_BYTES:
            raise ValueError(
                f"a socket path has 1 to {MAX_UNIX_PATH_BYTES} bytes, this one has {size}: {self.path!r}; "
                "choose a shorter directory"
            )


@dataclass(frozen=True)
class TcpAddress:
    """A host, preferably as a number, and a port. When listening, port 0 asks the kernel for a free one."""

    host: str
    port: int


Address: TypeAlias = UnixAddress | TcpAddress


@dataclass(frozen=True)
class Endpoint:
    """A replica's announcement: its id, its node, and its addresses."""

    replica_id: str
    node_id: str
    unix: UnixAddress
    tcp: TcpAddress | None = None

    def pick(self, own_node_id: str) -> Address:
        """Picks the socket file on the same node, TCP from another. Raises ValueError if the replica has no TCP."""
        if self.node_id == own_node_id:
            return self.unix
        if self.tcp is None:
            raise ValueError(f"replica {self.replica_id} on node {self.node_id} offers no TCP to node {own_node_id}")
        return self.tcp


@dataclass(frozen=True)
class SocketFile:
    """A bound socket and its file. The file is ours only while it has the inode that we made."""

    socket: socket.socket
    path: Path
    inode: int

    @classmethod
    def bind(cls, address: UnixAddress) -> SocketFile:
        """Binds a socket in a private directory, which is made if it is missing. Replaces a dead process's file.

        Raises OSError (EADDRINUSE) if a living process listens there, PermissionError if other users may enter the
        directory, FileExistsError if a file that is not a socket is in the way.
        """
        path = Path(address.path)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        require_private(path.parent)
        if path.exists():
            _remove_stale(path)
        bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            bound.bind(address.path)
        except OSError:
            bound.close()
            raise
        return cls(bound, path, path.stat().st_ino)

    def remove(self) -> None:
        """Removes the file, unless another process has put its own there."""
        try:
            if self.path.stat().st_ino == self.inode:
                self.path.unlink()
        except FileNotFoundError:
            return


def require_private(directory: Path) -> None:
    """Raises PermissionError unless the directory is this user's alone. Both ends check it to protect the socket."""
    status = directory.stat()
    if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
        raise PermissionError(f"{directory} must belong to this user alone, mode 0700")


def _remove_stale(path: Path) -> None:
    """Removes a socket file if no process listens on it. The kernel refuses a connection only then."""
    if not stat.S_ISSOCK(path.lstat().st_mode):
        raise FileExistsError(errno.EEXIST, "not a socket", str(path))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        refusal = probe.connect_ex(str(path))
    if refusal != errno.ECONNREFUSED:
        raise OSError(errno.EADDRINUSE, "another process listens here", str(path))
    path.unlink()
