"""Ray Serve and what runs inside a replica: composition root, transport, batcher, tasks and engines."""
