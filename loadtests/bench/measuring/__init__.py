"""How every benchmark measures and tells.

`rounds` lets contestants take turns, `company` compares a client alone and beside others, `machine` watches whether the
machine is quiet, `runs` measures one checkpoint in a process of its own, `report` presents the figures.
"""
