"""Measures whether a small language model summarises better than the sentences that it is given; it makes nothing.

`__main__` writes and scores the summaries, `claims` looks up what they claim in their source.
"""
