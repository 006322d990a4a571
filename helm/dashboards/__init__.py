"""The Grafana dashboards as code.

`overview`, `tiers`, `decisions` and `replicas` define one dashboard each. `panels` makes the kinds of panel, `board`
what surrounds them, and `words` has shared queries, colours and limits. `render` writes the JSON that the chart ships.
"""
