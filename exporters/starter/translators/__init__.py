"""The recipe of a translator of software descriptions, English to Italian, from Debian's own translations.

`segments` reads and aligns them, `build` trains a small Marian, and `score` compares it with simple baselines.
"""
