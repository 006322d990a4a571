"""Makes verified, profiled variants of checkpoints.

`cli` has the commands, `options` their shared options. `prepare` fills the cache (`store`) for a catalog; each variant
is a `job` in a child process that runs `export`. `plan` says what to make, `source` finds the checkpoint,
`starter_files` the project's own. `kinds` has one module for each kind of checkpoint; they share `texts`,
`verification` and `profiling`. `errors` are shown to the user. `random_seq2seq` writes full-size checkpoints for
benchmarks. `starter/` has the recipes of the starter checkpoints; no wheel contains it.
"""
