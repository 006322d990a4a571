"""The starter summarisers that quote: rankers over the sentence embeddings of the starter encoders."""
