"""Published policies, one a module, each as strong as its paper allows, run by `central`.

`registry` names them; `batching`, `division` and `observed_load` are shared by several.
"""
