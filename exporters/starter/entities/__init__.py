"""The recipe of the general tagger: people, places, organisations and other names, learnt from spaCy's labels.

`sources` reads sentences, `teacher` labels them in an environment of its own, which `labels` makes, asks and reads;
`names` and `made` make further sentences, `material` puts all together, `fit` trains, `score` measures, `build` does
all of it, and `card` says what was measured.
"""
