"""The extractive starter checkpoints: rankers over the sentence embeddings of the starter encoders."""
