"""Decoding engines that `punctual bench engines` compares.

`peer` is their interface. `ctranslate2`, `openvino` and `torch` implement it for engines that the gateway does not use.
`process` runs one engine in its own process. `folders` makes the model folders.
"""
