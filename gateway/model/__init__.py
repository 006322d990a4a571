"""The nouns that everything else shares: catalog, manifest, profile, messages, errors, outcomes, deadlines."""
