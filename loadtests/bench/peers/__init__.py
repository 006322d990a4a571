"""What benchmarks run beside or against: servers, the bare engine, `wrk` and Prometheus, each in its own process."""
