"""Taggers, which label each token of a text, and what is made of the labels.

`replica` serves one; `reading` tokenises texts and divides them into windows; `entities` joins labelled tokens, as
transformers does, and puts kinds in place of entities.
"""
