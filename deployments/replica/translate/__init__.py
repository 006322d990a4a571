"""Translations: an encoder-decoder writes them sentence by sentence, as many as the budget allows.

`translating` is the work on one text, and `replica` answers requests with it.
"""
