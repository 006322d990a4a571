"""Summaries in a replica: texts share the engine step by step, and are written or picked until the deadline."""
