"""Benchmarks: each module measures one thing against a baseline or a promise and returns a `Report`."""
