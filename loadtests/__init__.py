"""Measures the gateway from outside: comparisons with named baselines, and open-loop load."""
