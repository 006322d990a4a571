"""Scenarios: what is offered to which catalog, as a TOML file says it, for the simulator and a live gateway alike."""
