"""Continuous mixtures of Gaussians: p(x|w) = ∫ p(x|t,w) p(t) dt, one model and one bound."""
