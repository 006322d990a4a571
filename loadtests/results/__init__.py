"""What became of runs, simulated or live: one result a run, what seeds agree on, tables, and a page of plots."""
