"""One replica: a variant that answers requests of its tasks behind the transport.

`replica` holds the variant and reports its load and metrics. `kinds` lists the kinds of variant by name; `classify`
serves classifiers, `embedding` embedders, `tagging` taggers, `answering` answerers, `filling` fillers, `summarize`
summarizers, `generate` generators, `translate` translators, of which the last three share `writing`; `zero_shot`
reads the first two in its own way, and a part of `answering` embedders. `batched` is what replicas share that answer
in one pass: `batcher` runs its batches on the engine's threads. `gathering` awaits all inputs of a request. `variant`
opens a variant and checks its files and answers; `prepared` finds the variants of a catalog. `tokens` turns texts
into token ids. `totals` defines what is counted, and `tracing` sends spans.
"""
