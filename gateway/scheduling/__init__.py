"""Scheduling: which requests run next, on which checkpoint, together, and at what price of core time.

`scheduler` takes the requests of a node and is all that a shell needs; `loop` is the shell on the event loop. Below it,
for each task: `policy` is the decision as a pure function of forecasts, `task_queue` holds who waits, `batching` is the
rule that forms a batch, `price` prices a core-second, `arrivals` learns the arrival rate, and `late_share` bounds what
late work gets.
"""
