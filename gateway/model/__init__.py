"""The types that everything else shares: manifest, profile, request, messages, errors, outcomes, deadlines."""
