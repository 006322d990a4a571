"""Reports on runs, simulated or live: tables, and an HTML page of plots.

`runs`: one run's result. `comparison`: means over seeds, and the roles of policies. `tables`: the tables. `plots`: the
plots, made of `drawing`'s panels. `report`: the page, in the HTML frame of `page`.
"""
