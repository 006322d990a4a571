"""Generator: the simulator's scenarios against a live gateway, open loop, with figures that mean the same.

`command`: `punctual load`. `experiment`: all runs of a scenario. `calls`: requests ready to send. `open_loop`: sends
them on time. `results`: how each ended. `figures` and `tables`: of a run. `capacity`, `ceiling`: what the quality tier
and the generator can do. `checkpoints`: the variants of a gateway. `neighbour`: a command beside a run.
"""
