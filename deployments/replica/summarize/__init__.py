"""Summarizers: how a text becomes a job of engine steps, and its steps a summary.

`abstractive` writes summaries with an encoder-decoder, `extractive` picks sentences with an encoder. `replica` answers
requests with either. `ranking` chooses sentences, and `chunking` fits texts into a model's window. `casing` restores
the capitals of a lower-cased summary.
"""
