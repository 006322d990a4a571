"""Workloads: the requests and variants of a scenario, for the simulator and for a live gateway.

`scenario`: the fields of its TOML file. `arrivals`: the requests of a run. `variants`: quality and service times.
`files`: text and CSV with errors by line. `options`: command-line options. `data/`: the shipped scenarios.
"""
