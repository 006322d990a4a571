"""The starter abstractive checkpoint: a small BART that says in one line what a piece of software is."""
