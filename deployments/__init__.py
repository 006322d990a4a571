"""Ray Serve and what runs inside a replica: composition root, link, batcher, tasks and engines."""
