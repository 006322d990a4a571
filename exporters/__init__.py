"""From a checkpoint to a verified, profiled variant of it.

`cli` has the commands, with `options` that several share. `prepare` makes what a catalog lacks in the cache (`store`),
each variant by a `job` in a process of its own, which runs `export`. `plan` says what is to be made, `source` where a
checkpoint comes from, `starter_files` where the project's own lie. `kinds` has one module for each kind of checkpoint;
they share `texts`, `verification` and `profiling`. `errors` are what a user may read. `random_seq2seq` writes
full-size checkpoints for benchmarks. `starter/` has the recipes of the starter checkpoints and is in no wheel.
"""
