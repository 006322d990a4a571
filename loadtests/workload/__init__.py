"""Workload: what is offered to which variants, for the simulator and a live gateway alike.

`scenario`: a TOML file's fields. `arrivals`: the requests of a run. `variants`: their quality and times. `files`: text
and CSV with faults by line. `options`: a scenario at the command line. `data/`: the shipped scenarios.
"""
