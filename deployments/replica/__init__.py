"""What one replica is: its variant behind the transport, what it counts, and its part of a trace."""
