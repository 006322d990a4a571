"""The load generator: runs the simulator's scenarios against a live gateway, open loop, with the same figures.

`command`: `punctual load`. `experiment`: all runs of a scenario. `calls`: requests ready to send. `open_loop`: sends
them on time. `results`: each outcome. `figures`, `tables`: of a run. `capacity`: the quality tier's highest rate.
`ceiling`: the generator's own. `checkpoints`: a gateway's variants. `neighbour`: a command beside a run.
"""
