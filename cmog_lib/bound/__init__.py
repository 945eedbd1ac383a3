"""L(w, q), the lower bound on log p(x|w), its parts, and the gap KL(q‖p(t|x,w))."""

from cmog_lib.bound.draws import importance, log_weights, lower_bound
from cmog_lib.bound.expected import expected_log_joint, kl_to_prior
from cmog_lib.bound.nodes import kl, lower_bound_on_nodes, on_nodes

__all__ = [
    "expected_log_joint",
    "importance",
    "kl",
    "kl_to_prior",
    "log_weights",
    "lower_bound",
    "lower_bound_on_nodes",
    "on_nodes",
]
