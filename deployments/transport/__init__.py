"""The transport: carries requests between a gateway and its replicas in msgpack frames, many at once on a connection.

`address` says where a replica listens. `connection` is what both ends have in common: the frames and their bytes, and
one connection that carries them. `client` is the gateway's end, which picks a replica for each batch, and `server` the
replica's. `tls` secures connections over TCP.

Ray Serve places and watches the replicas, and carries no requests: a call through its handles would have neither the
remaining budget nor the load report. Imports no Ray.
"""

from deployments.transport.address import Endpoint, TcpAddress, UnixAddress
from deployments.transport.client import Backoff, TransportClient
from deployments.transport.connection import MAX_FRAME_BYTES, HandshakeError, ProtocolError
from deployments.transport.server import Handler, TransportServer
from deployments.transport.tls import Certificates, CertificatesError

__all__ = [
    "MAX_FRAME_BYTES",
    "Backoff",
    "Certificates",
    "CertificatesError",
    "Endpoint",
    "Handler",
    "HandshakeError",
    "ProtocolError",
    "TcpAddress",
    "TransportClient",
    "TransportServer",
    "UnixAddress",
]
