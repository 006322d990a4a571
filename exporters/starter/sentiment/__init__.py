"""The two sentiment classifiers: a fine-tuned MiniLM and a DistilBERT distilled from it."""
