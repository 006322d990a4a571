"""The Grafana dashboards as code: what each shows, rendered to the JSON that the chart ships."""
