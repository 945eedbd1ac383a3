"""What the samplers of `mcmc` run in: all chains at once, and what their warm-up learns."""
