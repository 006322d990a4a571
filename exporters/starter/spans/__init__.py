"""The recipe of a span head, which finds the words that answer a question: made questions, training, and scores."""
