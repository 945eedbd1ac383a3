"""The adaptive cells of latent space behind `quadrature.exact`."""
