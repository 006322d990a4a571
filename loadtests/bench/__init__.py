"""Benchmarks: each module measures one thing against a baseline or a promise and returns a `Report`.

They share `measuring`, and `summaries` to ask for. `peers` and `decoding` are what some of them compare with.
"""
