"""The simulator: runs the gateway's own policy, and published ones, on a virtual clock.

`command`: `punctual simulate`. `runs`: a scenario's grid. `world`: clock, cores and outcomes. `gateway`, `replica`:
the live objects on that clock. `policies/`: published policies. `oracle/`: the upper bound. `verdicts`: who is ahead.
"""
