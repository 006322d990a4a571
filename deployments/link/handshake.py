"""Both ends prove that they hold the application's secret before either believes a frame.

    client                              server
    hello: "PNL", version, nonce   →
                                   ←    hello: "PNL", version, nonce
    HMAC(secret, "client", …)      →    closes unless it is right, before it proves anything itself
                                   ←    HMAC(secret, "server", …)

Each proof covers its role, the version and both nonces, so that none can be replayed or reflected. It authenticates the
peer; it does not encrypt what follows, nor protect it from one who can rewrite packets: over TCP that is the network's
part. Knows no sockets: bytes in, bytes out. The secret appears in no message.
"""

from __future__ import annotations

import hashlib
import hmac
from enum import StrEnum
from typing import Final

VERSION: Final = 2
"""Raise it with any change of the frames: both ends then refuse each other instead of misreading."""

HANDSHAKE_S: Final = 2.0
"""The longest a peer may take to prove itself, in seconds."""

NONCE_BYTES: Final = 32
MIN_SECRET_BYTES: Final = 16

_MAGIC: Final = b"PNL"
_PREFIX: Final = _MAGIC + bytes([VERSION])
_HELLO_BYTES: Final = len(_PREFIX) + NONCE_BYTES
_PROOF_BYTES: Final = hashlib.sha256().digest_size


class HandshakeError(Exception):
    """The peer did not prove that it holds the secret, or speaks another version. The connection is closed."""


class Role(StrEnum):
    """Which end of the link one is."""

    CLIENT = "client"
    SERVER = "server"


class Handshake:
    """One end's view of one handshake. Send `opening`, then whatever `feed` returns, until `done`."""

    def __init__(self, role: Role, secret: bytes, nonce: bytes) -> None:
        """Takes a fresh `nonce` of NONCE_BYTES from the caller (chance is handed in). Never use one twice."""
        if len(nonce) != NONCE_BYTES:
            raise ValueError(f"a nonce has {NONCE_BYTES} bytes, not {len(nonce)}")
        self._role = role
        self._secret = check_secret(secret)
        self._nonce = nonce
        self._peer_nonce: bytes | None = None
        self._buffer = b""
        self.done = False

    @property
    def opening(self) -> bytes:
        """What to send before anything is received: the client speaks first."""
        return self._hello if self._role is Role.CLIENT else b""

    @property
    def leftover(self) -> bytes:
        """What came in behind the handshake: the first frames."""
        return self._buffer

    def feed(self, data: bytes) -> bytes:
        """What to send in reply, perhaps nothing. Raises HandshakeError as soon as the peer cannot be one of ours."""
        self._buffer += data
        reply = b""
        if self._peer_nonce is None:
            self._check_prefix()
            if len(self._buffer) < _HELLO_BYTES:
                return b""
            self._peer_nonce = self._take(_HELLO_BYTES)[len(_PREFIX) :]
            reply = self._proof(Role.CLIENT) if self._role is Role.CLIENT else self._hello
        if len(self._buffer) >= _PROOF_BYTES:
            peer = Role.SERVER if self._role is Role.CLIENT else Role.CLIENT
            if not hmac.compare_digest(self._take(_PROOF_BYTES), self._proof(peer)):
                raise HandshakeError(f"the {peer} holds another secret")
            if self._role is Role.SERVER:
                reply += self._proof(Role.SERVER)
            self.done = True
        return reply

    @property
    def _hello(self) -> bytes:
        return _PREFIX + self._nonce

    def _check_prefix(self) -> None:
        """Refuses a stranger at its first wrong byte, rather than when 36 bytes are there."""
        prefix = self._buffer[: len(_PREFIX)]
        if _PREFIX.startswith(prefix):
            return
        if prefix.startswith(_MAGIC):
            raise HandshakeError(f"the peer speaks version {prefix[-1]} of the link, this side {VERSION}")
        raise HandshakeError("the peer does not speak the link's protocol")

    def _take(self, size: int) -> bytes:
        taken, self._buffer = self._buffer[:size], self._buffer[size:]
        return taken

    def _proof(self, prover: Role) -> bytes:
        peer_nonce = self._peer_nonce or b""
        ours_first = self._role is Role.CLIENT
        nonces = self._nonce + peer_nonce if ours_first else peer_nonce + self._nonce
        return hmac.digest(self._secret, _PREFIX + prover.encode() + nonces, "sha256")


def check_secret(secret: bytes) -> bytes:
    """The secret itself. Raises ValueError if it is too short to withstand guessing."""
    if len(secret) < MIN_SECRET_BYTES:
        raise ValueError(f"the link's secret has fewer than {MIN_SECRET_BYTES} bytes")
    return secret
