"""From checkpoint to verified variant: export, quantise, verify, profile; and the making of the starter checkpoints."""
