"""The abstractive starter checkpoint: a small BART that describes a piece of software in one line."""
