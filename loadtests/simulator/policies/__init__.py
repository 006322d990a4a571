"""Published policies, each in a module of its own and as strong as its paper allows, in the frame of `central`.

`registry` names them; `batching`, `division` and `observed_load` are what several of them have in common.
"""
