"""A starter that would fill masks: low-rank adapters and a masked-word head over a public MiniLM.

Not shipped: what was trained so far is no better than counts of words (`docs/performance.md`).
"""
