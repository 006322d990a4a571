"""Forecasting: how long each checkpoint would take for a request, as quantiles that live answers calibrate."""
