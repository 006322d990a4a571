"""The recipes of the starter checkpoints, which anyone can rebuild from public package registries.

`sentiment` makes the two small classifiers, `adapter` the large one, `extractive` the two sentence rankers,
`software` the abstractive summarizer; `taggers` completes the tagger of personal data and `entities` trains the general
one; `translators` trains a translator and `fillers` a head for masks, which are not shipped. Three make nothing:
`zero_shot` fits and measures the scores of labels, `answers` those of sentences that answer questions, and `rewriting`
measures whether a small language model summarises better than the sentences that it is shown. They share `command` (the
programs), `packages` (downloads), `data` (sentences and their split), `vocabulary` (word pieces), `training` (rows,
batches, steps), `fitting` (a fit from its first step to its last, or resumed), `rouge` (scores of summaries), `cards`
(manifests, and the cards made of them) and `publishing` (a checkpoint's files). No wheel contains them.
"""
