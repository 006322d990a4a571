"""The recipe of the starter embedders: which files make them, how well they find texts, and their cards."""
