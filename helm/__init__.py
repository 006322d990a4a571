"""The chart, the rules and the dashboards that operators run; of it only the dashboards are Python."""
