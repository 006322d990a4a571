"""The data plane between gateway and replicas: msgpack frames over one connection per pair, many requests in flight.

`address` says where a replica listens, `frames` what is said, `connection` how either end behaves. `client` and
`server` are the two ends, `tls` guards them over TCP, `backend` sends each piece of work to the least loaded replica.

Ray Serve places and watches the replicas; requests travel here. A Ray handle call would carry neither the remaining
budget nor the load report. Imports no Ray.
"""

from deployments.transport.address import Endpoint, TcpAddress, UnixAddress
from deployments.transport.client import Backoff, TransportClient
from deployments.transport.connection import HandshakeError
from deployments.transport.frames import MAX_FRAME_BYTES, ProtocolError
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
