"""Engines run variants. Only they and the exporters import the engines' libraries.

`base` defines the ports that replicas call. `opening` opens the engine that a manifest names, and imports its library
only then. `onnx` runs classifiers and encoders with ONNX Runtime, `onnx_seq2seq` encoder-decoders; `torch` runs
classifiers that have no export. `host` describes this machine's processor.
"""
