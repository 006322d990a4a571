"""The starter that fills masks: low-rank adapters and a masked-word head over a public MiniLM."""
