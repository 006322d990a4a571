"""Advice on which checkpoint to serve for a situation, by forecasts, memory and what is published of the families.

`situation` is what is asked, `knowledge` reads `knowledge.yaml`, `shape` counts parameters, operations and bytes, and
`timing` forecasts, by measured profiles or by estimates from them. `candidates` lists the checkpoints, `rules` judges
each, and `advice` ranks them and writes the answer.
"""
