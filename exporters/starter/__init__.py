"""The recipes of the starter checkpoints: what anyone can rebuild from public package registries.

`sentiment` makes the two classifiers, `extractive` the two rankers of sentences, `software` the summarizer that writes.
They share `command` (the programs), `packages` (what is fetched), `data` (sentences and their split), `vocabulary`
(word pieces), `training` (rows, batches, steps), `rouge` (scores of summaries) and `publishing` (a checkpoint's files,
manifest and card). No wheel carries any of it.
"""
