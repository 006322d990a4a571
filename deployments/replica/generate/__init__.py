"""Decoder-only checkpoints, which write on from a prompt or a conversation.

`replica` answers requests, `writing` writes one text step by step within its budget, `choosing` takes each next token,
`prompts` makes token ids of prompts and conversations.
"""
