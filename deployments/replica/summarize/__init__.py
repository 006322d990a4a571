"""Summarizers: each text is a job of engine steps that stops in time for its deadline.

`job` defines the job and the time it has. `abstractive` writes summaries with an encoder-decoder, `extractive` picks
sentences with an encoder. `replica` answers requests with either, and `time_slicing` lets their texts share the engine.
`beam_search` chooses tokens, `ranking` chooses sentences, `sentences` finds where sentences are, and `chunking` fits
texts into a model's window. `casing` restores the capitals of a lower-cased summary. `step_log` records when each
step ran.
"""
