"""The request path: HTTP edge, contract, forecast, decision and records. It knows no cluster and no engine."""
