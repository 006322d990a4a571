"""Reports: what became of runs, simulated or live, in tables and a page of plots.

`runs`: one run's result. `comparison`: means over seeds, and who is who. `tables`: the tables. `plots`: what is drawn
of runs, with `drawing`'s panels. `report`: the page, in the frame of `page`.
"""
