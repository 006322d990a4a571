"""Secures the transport over TCP by TLS 1.3: each end shows a certificate that the application's CA has signed.

Knows certificates and handshakes, and nothing of frames. The transport never uses TCP without TLS. On one host it uses
socket files in a folder that only this user may enter (`address.py`). Only this user and root can enter it, and they
could read any key of this process too, so certificates there would keep nobody out.
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
"""Seconds that a peer may take to answer the end of TLS."""

ACCEPT_AGAIN_S: Final = 1.0
"""Seconds that the listener waits after it could not accept a connection (no free file descriptor)."""

BACKLOG: Final = 128
"""Connections that the kernel keeps for the listener to accept."""

PLAIN_TEXT: Final = frozenset(
    {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG"}
)
"""OpenSSL's errors for bytes that are not TLS. Which one comes depends on the bytes and on OpenSSL's version."""

LOG = logging.getLogger(__name__)


class CertificatesError(HandshakeError):
    """This side's own certificates cannot be used. The message says which file and why."""


@dataclass(frozen=True)
class Certificates:
    """A folder with the CA's certificate, this application's certificate and its key, in PEM.

    All processes of an application may share one certificate, since it only proves that they belong to it. The files
    are read for each connection, so that renewed ones are used at once.
    """

    folder: Path

    def server_context(self) -> ssl.SSLContext:
        """Makes the context for the accepting end of one connection. Raises CertificatesError."""
        context = self._context(ssl.PROTOCOL_TLS_SERVER)
        context.num_tickets = 0  # no resumed sessions, which would skip the check of the certificate
        return context

    def client_context(self) -> ssl.SSLContext:
        """Makes the context for the calling end of one connection. Raises CertificatesError."""
        return self._context(ssl.PROTOCOL_TLS_CLIENT)

    def check(self) -> None:
        """Raises CertificatesError unless two processes with these files would accept each other.

        A handshake in memory finds an expired certificate, a key of another certificate, and a foreign CA.
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
        context.check_hostname = False  # the CA signs for this application only, and its pods have no lasting names
        context.verify_mode = ssl.CERT_REQUIRED
        try:
            for name in (AUTHORITY, CERTIFICATE, KEY):
                (self.folder / name).read_bytes()  # for an error that names the file, which OpenSSL's does not
            context.load_verify_locations(self.folder / AUTHORITY)
            no_prompt = b""  # without it, OpenSSL would ask a terminal for the passphrase of a key
            context.load_cert_chain(self.folder / CERTIFICATE, self.folder / KEY, password=no_prompt)
        except ssl.SSLError as error:
            raise CertificatesError(f"{self.folder}: {error.reason or error}") from error
        except OSError as error:
            raise CertificatesError(f"{error.filename}: {error.strerror}") from error
        return context


def reason_of(error: OSError) -> str:
    """Says why a TLS connection failed, for a log line."""
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
    """Listens on TCP and makes a protocol for each peer with an accepted certificate. Make one with `start`.

    asyncio's own server reports no failed handshakes and keeps its first certificates, so this class accepts
    connections itself.
    """

    def __init__(
        self, listening: socket.socket, certificates: Certificates, make: ProtocolFactory, handshake_s: float
    ) -> None:
        """Takes a listening socket."""
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
        """Starts to listen. Raises OSError if the address is taken, CertificatesError for unusable files."""
        certificates.server_context()
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        listening = socket.create_server((address.host, address.port), family=family, backlog=BACKLOG)
        listening.setblocking(False)
        started = cls(listening, certificates, make, handshake_s)
        started._accepting = asyncio.get_running_loop().create_task(started._accept())
        return started

    @property
    def address(self) -> TcpAddress:
        """The address, with the port that the kernel chose if it was 0."""
        return TcpAddress(*self._socket.getsockname()[:2])

    @property
    def handshaking(self) -> int:
        """How many peers have connected and not finished their handshake."""
        return len(self._handshakes)

    async def close(self) -> None:
        """Stops listening and drops peers in their handshake. Open connections go on."""
        if self._accepting is not None:
            self._accepting.cancel()
            await asyncio.gather(self._accepting, return_exceptions=True)
        handshakes = list(self._handshakes)  # all have begun by now, so each closes its own socket
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
        """Shakes hands with one peer. A failure costs only its own connection and one line in the log."""
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
