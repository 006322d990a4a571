"""The simulator: a virtual clock over the gateway's own policy, forecast and batch forming, and over published ones."""
