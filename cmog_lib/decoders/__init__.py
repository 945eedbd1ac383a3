"""w itself: the decoder t ↦ μ(t, w), σ(t, w). Any object with this interface is a model for the whole library."""

from cmog_lib.decoders.contract import Decoder, as_module
from cmog_lib.decoders.linear import Linear
from cmog_lib.decoders.networks import CNN, MLP
from cmog_lib.decoders.start import start_at
from cmog_lib.engine.projection import projected

__all__ = ["CNN", "MLP", "Decoder", "Linear", "as_module", "projected", "start_at"]
