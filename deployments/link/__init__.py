"""The data plane between ingress and replicas: msgpack frames over one connection per pair, many requests in flight.

Ray Serve places and watches the replicas; requests travel here, and what no handle call carries travels with them: the
remaining budget out, the answer, the load report and cancellation back. Imports no Ray.
"""

from deployments.link.address import Endpoint, TcpAddress, UnixAddress
from deployments.link.client import Backoff, LinkClient
from deployments.link.frames import MAX_FRAME_BYTES, ProtocolError
from deployments.link.handshake import MIN_SECRET_BYTES, HandshakeError
from deployments.link.peer import Handler
from deployments.link.server import LinkServer

__all__ = [
    "MAX_FRAME_BYTES",
    "MIN_SECRET_BYTES",
    "Backoff",
    "Endpoint",
    "Handler",
    "HandshakeError",
    "LinkClient",
    "LinkServer",
    "ProtocolError",
    "TcpAddress",
    "UnixAddress",
]
