"""The recipe of the starter embedders: which files make them, how well they find texts, and their cards.

`vectors` gives their vectors to the measurements of other tasks.
"""
