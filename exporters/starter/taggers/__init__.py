"""The recipe of the starter tagger: which files make it, how well it finds personal data, and its card."""
