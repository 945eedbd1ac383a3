"""q(t|x) from an encoder: amortised inference, the variational autoencoder, and what amortisation costs in nats."""

from cmog_lib.amortised import encoders
from cmog_lib.amortised.dimensions import EveryDimension, fit_every_dimension
from cmog_lib.amortised.encoders import Encoder, encoded
from cmog_lib.amortised.ladder import Ladder, gap_ladder, gaussian_bound
from cmog_lib.amortised.vae import Trained, fit, lower_bound, vae_step

__all__ = [
    "Encoder",
    "EveryDimension",
    "Ladder",
    "Trained",
    "encoded",
    "encoders",
    "fit",
    "fit_every_dimension",
    "gap_ladder",
    "gaussian_bound",
    "lower_bound",
    "vae_step",
]
