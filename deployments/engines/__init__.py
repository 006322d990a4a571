"""What runs a variant: one port, and an engine for each library behind it."""
