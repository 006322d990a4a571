"""The large sentiment classifier: low-rank adapters and a head over a public MPNet."""
