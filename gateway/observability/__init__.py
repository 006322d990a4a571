"""Records of finished requests, and their observers.

`record` is the one source. `metrics` counts for Prometheus, `access_log` writes lines, `tracing` makes spans, and
`faults` counts internal faults.
"""
