"""The loops of `optimise`: their batches, interrupts and checkpoints, and their messages for numbers that fail."""
