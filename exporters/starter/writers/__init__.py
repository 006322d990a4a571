"""The recipe of the starter that writes on: which files make it, how many plain questions it answers, and its card."""
