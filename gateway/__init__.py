"""The request path: HTTP edge, tasks, forecast, decision, scheduling and records. It knows no cluster and no engine."""
