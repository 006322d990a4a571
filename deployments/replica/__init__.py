"""What runs inside a replica: a variant opened and checked, its task, and the batcher before its engine."""
