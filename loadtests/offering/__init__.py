"""Offering: the simulator's scenarios against a live gateway, open loop, with figures that mean the same."""
