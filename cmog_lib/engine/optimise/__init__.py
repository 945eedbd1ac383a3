"""The loops behind `optimise`: their steps, batches, interrupts, checkpoints and words for what was not finite."""
