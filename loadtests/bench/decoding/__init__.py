"""Engines that write, raced by `punctual bench engines`.

`peer` is what each can be asked for, `ctranslate2`, `openvino` and `torch` are those that are not ours, `process` runs
one of them in a process of its own, and `folders` makes what they load.
"""
