"""How every benchmark measures and tells.

`rounds` lets contestants take turns, `machine` watches whether the machine is quiet, `report` presents the figures.
"""
