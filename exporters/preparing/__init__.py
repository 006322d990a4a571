"""Prepares a catalog: makes the variants that the cache lacks, before the gateway starts or behind it.

`prepare` goes through the catalog and `store` keeps what it makes; each variant is a `job` in a child process. `behind`
divides a first start in what the gateway waits for and what comes later.
"""
