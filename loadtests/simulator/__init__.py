"""The simulator: a virtual clock over the gateway's own policy, forecast and batch forming, and over published ones.

`command`: `punctual simulate`. `runs`: a scenario's grid. `world`: clock, cores and fates. `gateway` and `replica`:
the live objects on that clock. `policies/`: published policies. `oracle/`: the bound. `verdicts`: who is ahead.
"""
