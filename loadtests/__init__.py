"""Measures the gateway from outside: races against named baselines and open-loop load."""
