"""What is reported of finished requests: `record` is the one source, and the others observe it.

`metrics` counts for Prometheus, `access_log` writes lines, `tracing` makes spans; `faults` counts what failed inside.
"""
