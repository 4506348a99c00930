"""The training engine: optimiser, loop, checkpoints, evaluation. It yields records; the caller logs."""
