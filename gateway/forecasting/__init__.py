"""Forecasting: how long each checkpoint would take for a request, as quantiles calibrated on live answers.

`forecaster` forecasts, `calibration` turns past errors into quantiles, and `load` tracks how busy each replica is.
"""
