"""The nouns that everything else shares: manifest, profile, messages, errors, outcomes, deadlines."""
