"""Makes verified, profiled variants of checkpoints.

`sources` finds a checkpoint and completes it; `preparing` fills the cache for a catalog. Each variant is made by
`export`, as `plan` says, and measured by `profiling`; `choosing` races engines. `kinds` has one module for each kind of
checkpoint, which share `verification`. `cli` has the commands, `options` their shared options; `errors` are shown to
the user. `random_seq2seq` writes full-size checkpoints for benchmarks. `starter/` has the recipes of the starter
checkpoints; no wheel contains it.
"""
