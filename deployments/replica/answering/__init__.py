"""Answers to questions about a text.

`replica` serves a checkpoint made for it: `reading` tokenises questions with the windows of their contexts, `spans`
finds answers by logits. `sentences` answers with an embedder, by the sentence that is nearest to the question.
"""
