"""Benchmarks: each module measures one thing against a named baseline or promise and gives a `Report`."""
