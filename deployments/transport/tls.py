"""TLS for the transport over TCP: version 1.3, where each end shows a certificate that the application's CA has signed.

Knows certificates and handshakes, and nothing of frames. There is no transport over TCP without it. On one host the
transport uses socket files instead, in a folder that only this user may enter (`address.py`). Whoever can enter that
folder is this user or root, and could as well read any key this process holds: a proof there would keep nobody out.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from deployments.transport.address import TcpAddress
from deployments.transport.connection import HandshakeError

AUTHORITY: Final = "ca.crt"
CERTIFICATE: Final = "tls.crt"
KEY: Final = "tls.key"
"""The three files, by the names that cert-manager and a Kubernetes Secret of type kubernetes.io/tls give them."""

SHUTDOWN_S: Final = 1.0
"""How long a peer may take to answer that TLS ends, in seconds."""

ACCEPT_AGAIN_S: Final = 1.0
"""How long the listener waits after a connection that could not be accepted (no free file descriptor), in seconds."""

BACKLOG: Final = 128
"""Connections that the kernel keeps for the listener to accept."""

PLAIN_TEXT: Final = frozenset(
    {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG"}
)
"""How OpenSSL calls bytes that are no TLS; which of them depends on the bytes and on its version."""

LOG = logging.getLogger(__name__)


class CertificatesError(HandshakeError):
    """This side's own certificates cannot be used; the message says which file and why."""


@dataclass(frozen=True)
class Certificates:
    """A folder with the CA's certificate, this application's certificate and its key, in PEM.

    All processes of an application may share one certificate: it says "one of us", not which one. The files are read
    anew for each connection, so that renewed ones are used at once and the old ones by nobody.
    """

    folder: Path

    def server_context(self) -> ssl.SSLContext:
        """What the accepting end of one connection needs. Raises CertificatesError."""
        context = self._context(ssl.PROTOCOL_TLS_SERVER)
        context.num_tickets = 0  # nobody resumes a session: that would skip the look at the certificate
        return context

    def client_context(self) -> ssl.SSLContext:
        """What the calling end of one connection needs. Raises CertificatesError."""
        return self._context(ssl.PROTOCOL_TLS_CLIENT)

    def check(self) -> None:
        """Raises CertificatesError unless two processes with these files would let each other in.

        They shake hands here, in memory: that finds an expired certificate, a key of another one, and a foreign CA.
        """
        to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = self.client_context().wrap_bio(to_client, to_server)
        server = self.server_context().wrap_bio(to_server, to_client, server_side=True)
        for end in (client, server, client, server):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLError as error:
                raise CertificatesError(f"{self.folder / CERTIFICATE}: {reason_of(error)}") from error

    def _context(self, protocol: int) -> ssl.SSLContext:
        context = ssl.SSLContext(protocol)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False  # the CA signs for this application alone, whose pods have no lasting names
        context.verify_mode = ssl.CERT_REQUIRED
        try:
            for name in (AUTHORITY, CERTIFICATE, KEY):
                (self.folder / name).read_bytes()  # its error names the file, OpenSSL's does not
            context.load_verify_locations(self.folder / AUTHORITY)
            no_prompt = b""  # without it, a key with a passphrase would have OpenSSL ask a terminal
            context.load_cert_chain(self.folder / CERTIFICATE, self.folder / KEY, password=no_prompt)
        except ssl.SSLError as error:
            raise CertificatesError(f"{self.folder}: {error.reason or error}") from error
        except OSError as error:
            raise CertificatesError(f"{error.filename}: {error.strerror}") from error
        return context


def reason_of(error: OSError) -> str:
    """Why a TLS connection failed, in words for a log line."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the peer's certificate is refused: {error.verify_message}"
    if not isinstance(error, ssl.SSLError):
        return str(error)
    reason = error.reason or str(error)
    if reason in PLAIN_TEXT:
        return "the peer does not speak TLS"
    if reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
        return "the peer shows no certificate"
    return f"TLS failed: {reason.replace('_', ' ').lower()}"


ProtocolFactory: TypeAlias = Callable[[], asyncio.Protocol]


class TlsListener:
    """Listens on TCP and makes a protocol for each peer whose certificate is accepted. `start` makes one.

    It accepts by itself because asyncio's own server says nothing of a failed handshake and keeps the certificates that
    it began with.
    """

    def __init__(
        self, listening: socket.socket, certificates: Certificates, make: ProtocolFactory, handshake_s: float
    ) -> None:
        """Takes a socket that listens already."""
        self._socket = listening
        self._certificates = certificates
        self._make = make
        self._handshake_s = handshake_s
        self._handshakes: set[asyncio.Task[None]] = set()
        self._accepting: asyncio.Task[None] | None = None

    @classmethod
    def start(
        cls, address: TcpAddress, certificates: Certificates, make: ProtocolFactory, handshake_s: float
    ) -> TlsListener:
        """Listens there. Raises OSError if the address is taken, CertificatesError for unusable files."""
        certificates.server_context()
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        listening = socket.create_server((address.host, address.port), family=family, backlog=BACKLOG)
        listening.setblocking(False)
        started = cls(listening, certificates, make, handshake_s)
        started._accepting = asyncio.get_running_loop().create_task(started._accept())
        return started

    @property
    def address(self) -> TcpAddress:
        """Where it listens, with the port that the kernel chose if it was asked to."""
        return TcpAddress(*self._socket.getsockname()[:2])

    @property
    def handshaking(self) -> int:
        """How many peers have connected and not yet shown who they are."""
        return len(self._handshakes)

    async def close(self) -> None:
        """Stops listening and drops those that still shake hands; connections that are made go on."""
        if self._accepting is not None:
            self._accepting.cancel()
            await asyncio.gather(self._accepting, return_exceptions=True)
        handshakes = list(self._handshakes)  # all of them have begun by now, so that each closes its own socket
        for task in handshakes:
            task.cancel()
        await asyncio.gather(*handshakes, return_exceptions=True)
        self._socket.close()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                peer, address = await loop.sock_accept(self._socket)
            except OSError as error:
                LOG.error("transport: no connection can be accepted: %s", error)
                await asyncio.sleep(ACCEPT_AGAIN_S)
                continue
            task = loop.create_task(self._shake_hands(peer, address[0]))
            self._handshakes.add(task)
            task.add_done_callback(self._handshakes.discard)

    async def _shake_hands(self, peer: socket.socket, host: str) -> None:
        """One peer's handshake. Whatever it does costs its own connection and one line in the log."""
        try:
            context = self._certificates.server_context()
        except CertificatesError as error:
            peer.close()
            LOG.error("transport: a connection from %s is refused: %s", host, error)
            return
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                self._make,
                peer,
                ssl=context,
                ssl_handshake_timeout=self._handshake_s,
                ssl_shutdown_timeout=SHUTDOWN_S,
            )
        except OSError as error:
            LOG.warning("transport: a connection from %s is refused: %s", host, reason_of(error))
