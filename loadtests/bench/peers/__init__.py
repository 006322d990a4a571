"""Processes that benchmarks start: servers, the bare engine, `wrk` and Prometheus."""
