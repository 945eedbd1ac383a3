"""One shape for all latent dimensions: idle latents change nothing."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cmog_lib import ppca


def test_idle_latents_change_neither_p_x_nor_the_reconstruction(dtype):
    X = jnp.asarray(np.random.default_rng(0).normal(size=(40, 6)) * np.arange(1, 7), dtype)
    spectrum = ppca.fit_all(X)
    dims = jnp.arange(1, 6)
    padded = jax.vmap(spectrum.padded_model)(dims)
    log_p = jax.vmap(lambda w: jax.vmap(ppca.log_p_x, in_axes=(None, 0))(w, X))(padded)
    means = jax.vmap(lambda w: w(ppca.posterior(w, X[0]).mean)[0])(padded)
    for k, d in enumerate(range(1, 6)):
        w = spectrum.model(d)
        # Rounding only: the same sums with zeros in them.
        tolerance = 1e-4 if dtype == "float32" else 1e-11
        assert jnp.allclose(log_p[k], jax.vmap(ppca.log_p_x, in_axes=(None, 0))(w, X), atol=tolerance)
        assert jnp.allclose(means[k], w(ppca.posterior(w, X[0]).mean)[0], atol=tolerance)


@pytest.mark.parametrize("latent_dim", [0, -1, 6, 2.5])
def test_a_padded_model_of_no_latent_dimension_is_refused(entry_errors, latent_dim):
    spectrum = ppca.fit_all(jnp.asarray(np.random.default_rng(0).normal(size=(40, 6))))
    with pytest.raises(ValueError, match="latent_dim must be an integer from 1 to 5, got"):
        spectrum.padded_model(latent_dim)
