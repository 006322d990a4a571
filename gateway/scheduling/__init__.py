"""Scheduling: which queued requests run next, on which checkpoint, together, and at what price of core time."""
