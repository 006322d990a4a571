"""Answers to questions about a text.

`sentences` answers with an embedder, by the sentence that is nearest to the question.
"""
