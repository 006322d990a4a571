"""Scheduling: which queued requests run next, on which checkpoint, together, and at what price of core time.

`scheduler` holds the queue of a task, `batching` is the rule that forms a batch, `policy` decides one request, `price`
prices a core-second, `arrivals` learns the arrival rate, `late_share` bounds what late work gets, and `loop` runs the
scheduler on the event loop.
"""
