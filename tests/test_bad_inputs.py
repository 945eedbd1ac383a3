"""Every public function × everything that can be wrong with an argument: a ValueError that says which, what and why.

The table is generated. A row says of which kind each argument of a function is, a kind what may be wrong with it; a
public function without a row, or an argument without a kind, fails.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import itertools
import re
from collections.abc import Callable, Iterator
from typing import Any

import equinox as eqx
import jax
import jax.experimental.sparse
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse

import cmog_lib
from cmog_lib import amortised, datasets, decoders, mcmc, model, ppca, quadrature
from cmog_lib.posteriors import FullGaussian, Gaussian, Weighted

N, D, d = 4, 3, 2
RNG = np.random.default_rng(0)


def numbers(*shape: int) -> jax.Array:
    return jnp.asarray(RNG.normal(size=shape).astype(np.float32))


def with_one(value: float, *shape: int) -> jax.Array:
    """Numbers, the last of which is `value`."""
    array = np.array(numbers(*shape))
    array[(-1,) * len(shape)] = value
    return jnp.asarray(array)


def factor(*shape: int) -> jax.Array:
    """Cholesky factors [..., d, d]: lower triangular, with a positive diagonal."""
    return jnp.asarray(np.tril(numbers(*shape), -1) + np.eye(shape[-1], dtype="f"))


class Shaped:
    """A decoder for d latents and D data that returns what it is told to."""

    latent_dim, data_dim = d, D

    def __init__(self, returns: Callable[[Any], Any]) -> None:
        self.returns = returns

    def __call__(self, t: Any) -> Any:
        return self.returns(t)


class WithoutWidth:
    latent_dim = d

    def __call__(self, t: Any) -> Any:
        return jnp.zeros(D), jnp.ones(D)


KEY = jax.random.key(0)
LINEAR = decoders.Linear(numbers(D, d), numbers(D), jnp.float32(-0.5))
NETWORK = decoders.MLP(d, D, width=4, depth=1, key=KEY)
ENCODER = amortised.encoders.MLP(D, d, width=4, depth=1, key=KEY)
GRID = quadrature.grid(d, 4)
CHAINS = mcmc.Chains(numbers(2, 3, N, d), numbers(2, N), jnp.zeros((2, N), int), numbers(2, N), numbers(N, d, d), 1)
IMAGES = datasets.Images(numbers(N, D), jnp.zeros(N, int), (1, D), 2)
ONES = jnp.ones(D)
IN_WRONG_PLACE = {"a decoder": (LINEAR, "Linear|object"), "a key": (KEY, r"key<\w+>|ArrayImpl|PRNGKeyArray")}


class Table:
    """A table of columns of different kinds, as pandas has it, whose numbers come out as objects."""

    def __init__(self, *shape: int) -> None:
        self.shape = shape

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return np.ones(self.shape, dtype or object)

    def to_numpy(self, dtype: Any) -> np.ndarray:
        return np.asarray(self, dtype)


# What is wrong: a name for it, the value, and a pattern for what the message must say came.
Faults = dict[str, tuple[Any, str]]


def array_faults(shape: tuple[int, ...], *, missing: bool = False, scalar: bool = False) -> Faults:
    """What can be wrong with an array of floats of this shape."""
    came = re.escape(f"[{', '.join(map(str, (*shape[:-1], shape[-1] + 1)))}]") if shape else ""
    faults: Faults = {
        "nothing": (None, "NoneType|object"),
        "text": ("data", "<U4|str"),
        "integers": (np.ones(shape, int), r"int\d\d"),
        "truth values": (np.ones(shape, bool), "bool"),
        "complex": (np.ones(shape, complex), "complex"),
        "bytes in the other order": (np.ones(shape, np.dtype("f4").newbyteorder()), r"[<>]f4\[.*convert it with"),
        "an axis more": (numbers(1, *shape) if not scalar else numbers(2, 2), r"\[1, |\[2, 2\]"),
        "infinity": (with_one(np.inf, *shape) if shape else np.float32(np.inf), "inf"),
        "minus infinity": (with_one(-np.inf, *shape) if shape else np.float32(-np.inf), "-inf"),
        "huge": (np.full(shape, 1e300), r"1e\+?300|inf"),
        **IN_WRONG_PLACE,
    }
    if not missing:
        faults["NaN"] = (with_one(np.nan, *shape) if shape else np.float32(np.nan), "nan")
    if len(shape) == 2:
        faults["sparse"] = (scipy.sparse.csr_matrix(np.ones(shape, "f")), r"sparse csr_matrix.*\.toarray\(\)")
        faults["sparse in JAX"] = (jax.experimental.sparse.BCOO.fromdense(numbers(*shape)), r"sparse BCOO.*todense\(\)")
        faults["a table"] = (Table(*shape), r"object\[.*from a Table; convert it with [\w.]+\.to_numpy\(float")
    if shape:
        faults["one more"] = (numbers(*shape[:-1], shape[-1] + 1), came)
        faults["empty"] = (np.ones((0, *shape[1:]), "f"), r"\[0")
        faults["a number"] = (1.5, r"float\d\d\[\]|float")
        faults["ragged"] = ([[1.0], [1.0, 2.0]], "list|object")
    return faults


def count_faults(least: int) -> Faults:
    """What can be wrong with a number of things."""
    return {
        "below": (least - 1, str(least - 1)),
        "negative": (-3, "-3"),
        "a fraction": (2.5, "2.5"),
        "a float": (3.0, "3.0"),
        "a truth value": (True, "True"),
        "NaN": (float("nan"), "nan"),
        "infinity": (float("inf"), "inf"),
        "text": ("3", "'3'"),
        "nothing": (None, "None"),
        "an array": (np.array([2, 3]), "array"),
    }


POSITIVE: Faults = {
    "zero": (0.0, "0.0"),
    "negative": (-0.5, "-0.5"),
    "NaN": (float("nan"), "nan"),
    "infinity": (float("inf"), "inf"),
    "text": ("0.1", "'0.1'"),
    "a truth value": (True, "True"),
    "an array": (np.array([0.1, 0.2]), "array"),
}
SIZES: Faults = {
    "a number": (4, "4"),
    "none": ((), r"\(\)"),
    "zero": ((0, 2), "0"),
    "negative": ((2, -2), "-2"),
    "a fraction": ((2.5, 2), "2.5"),
    "text": ("22", "'22'"),
}
KEYS: Faults = {
    "a seed": (3, "3"),
    "an old key": (jax.random.PRNGKey(0), "uint32"),
    "two keys": (jax.random.split(KEY), r"\[2\]"),
    "NumPy's": (np.random.default_rng(0), "Generator"),
    "nothing": (None, "None"),
}
DECODERS: Faults = {
    "nothing": (None, "NoneType"),
    "a number": (3, "int"),
    "text": ("w", "str"),
    "data": (jnp.ones((N, D)), "ArrayImpl"),
    "a key": (KEY, "PRNGKeyArray"),
    "a class": (decoders.MLP, "type|_ModuleMeta|Meta"),
    "without width": (WithoutWidth(), "WithoutWidth without data_dim"),
    "mu alone": (Shaped(lambda t: ONES), "array"),
    "three parts": (Shaped(lambda t: (ONES, ONES, ONES)), "tuple"),
    "a list": (Shaped(lambda t: [ONES, ONES]), "list"),
    "too wide": (Shaped(lambda t: (jnp.ones(D + 1), jnp.ones(D + 1))), r"float32\[4\]"),
    "one sigma": (Shaped(lambda t: (ONES, jnp.ones(()))), r"float32\[\]"),
    "integers": (Shaped(lambda t: (jnp.ones(D, int), ONES)), "int32"),
    "another d": (Shaped(lambda t: (ONES * t[:3], ONES)), "TypeError"),
    "an error": (Shaped(lambda t: t.nothing), "AttributeError"),
}
NOT_LINEAR: Faults = {
    "a network": (NETWORK, "MLP"),
    "nothing": (None, "NoneType"),
    "data": (jnp.ones((N, D)), "ArrayImpl"),
    "W": (LINEAR.W, "ArrayImpl"),
}
NODES: Faults = {
    "nothing": (None, "NoneType"),
    "points": (GRID.t, "ArrayImpl"),
    "another d": (quadrature.grid(1, 4), r"float32\[4, 1\]"),
    "NaN in t": (quadrature.Nodes(with_one(np.nan, 5, d), numbers(5)), "nan"),
    "NaN in weights": (quadrature.Nodes(numbers(5, d), with_one(np.nan, 5)), "(?i)nan"),
    "infinite weight": (quadrature.Nodes(numbers(5, d), with_one(np.inf, 5)), "inf"),
    "a weight too few": (eqx.tree_at(lambda nodes: nodes.log_weight, GRID, numbers(4)), r"float32\[4\]"),
    "empty": (quadrature.Nodes(jnp.ones((0, d)), jnp.ones(0)), r"\[0, 2\]"),
    "text": ("grid", "str"),
}
ENCODERS: Faults = {
    "nothing": (None, "NoneType"),
    "a decoder": (NETWORK, r"MLP|tuple|\[3\]|encoder\(x\)|TypeError"),
    "another d": (amortised.encoders.MLP(D, d + 1, width=4, depth=1, key=KEY), "3"),
    "another width": (amortised.encoders.MLP(D + 1, d, width=4, depth=1, key=KEY), "4"),
    "text": ("encoder", "str"),
}


def gaussians(*batch: int, full: bool = True, factorised: bool = True, weighted: bool = False) -> Faults:
    """What can be wrong with a Gaussian q over t [*batch, d]."""
    faults: Faults = {
        "nothing": (None, "NoneType"),
        "its mean": (numbers(*batch, d), "ArrayImpl"),
        "another d": (Gaussian(numbers(*batch, d + 1), numbers(*batch, d + 1)), r"3\]"),
        "an axis more": (Gaussian(numbers(*batch, 5, d), numbers(*batch, 5, d)), r"5, 2\]"),
        "text": ("q", "str"),
        "a decoder": (LINEAR, "Linear"),
    }
    if not full:
        faults["a full one"] = (FullGaussian(numbers(*batch, d), factor(*batch, d, d)), "FullGaussian")
    if not weighted:
        faults["a weighted one"] = (Weighted(numbers(5, d), numbers(*batch, 5)), "Weighted")
    return faults


def without(faults: Faults, *names: str) -> Faults:
    return {name: fault for name, fault in faults.items() if name not in names}


@dataclasses.dataclass
class Kind:
    """A good value of an argument, and the bad ones."""

    good: Any
    faults: Faults


STATE = mcmc.State(jnp.ones(d), jnp.ones(()), jnp.ones(d))
STARTS: Faults = {
    "nothing": (None, "NoneType|object"),
    "text": ("mode", "<U4|str"),
    "one chain": (numbers(N, d), r"float32\[4, 2\]"),
    "for other data": (numbers(2, N + 1, d), r"float32\[2, 5, 2\]"),
    "NaN": (with_one(np.nan, 2, N, d), "nan"),
    "of another d": (FullGaussian(numbers(N, d + 1), factor(N, d + 1, d + 1)), r"float32\[4, 3\]"),
    "other chains": (eqx.tree_at(lambda c: c.t, CHAINS, numbers(2, 3, N + 1, d)), r"float32\[2, 5, 2\]"),
}
STREAMED_FAULTS = {"nothing", "text", "integers", "truth values", "complex", "bytes in the other order"}
STREAMED_FAULTS |= {"sparse", "sparse in JAX", "a table", "empty", "a number", "a key", "ragged"}
KINDS: dict[str, Kind] = {
    "w": Kind(NETWORK, DECODERS),
    "linear": Kind(LINEAR, NOT_LINEAR),
    "encoder": Kind(ENCODER, ENCODERS),
    "t": Kind(numbers(d), array_faults((d,))),
    "x": Kind(numbers(D), array_faults((D,))),
    "x or X": Kind(numbers(D), without(array_faults((D,)), "an axis more")),
    "x observed": Kind(numbers(D), array_faults((D,), missing=True)),
    "X": Kind(numbers(N, D), array_faults((N, D))),
    "any X": Kind(numbers(N, D), without(array_faults((N, D)), "one more")),
    # Its values are looked at piece by piece, by the function that gets them.
    "streamed X": Kind(numbers(N, D), {k: v for k, v in array_faults((N, D)).items() if k in STREAMED_FAULTS}),
    "over": Kind(None, {"a number": (8, "8"), "devices": (jax.devices(), "Device")}),
    "X observed": Kind(
        with_one(np.nan, N, D),
        without(array_faults((N, D), missing=True), "one more")
        | {
            "an empty row": (jnp.where(jnp.arange(N)[:, None] == 1, jnp.nan, numbers(N, D)), "row 1"),
            "an empty column": (jnp.where(jnp.arange(D)[None] == 2, jnp.nan, numbers(N, D)), "column 2"),
        },
    ),
    "T": Kind(numbers(N, d), array_faults((N, d))),
    "T of draws": Kind(numbers(5, N, d), array_faults((5, N, d))),
    "chains of numbers": Kind(
        numbers(2, 9, d),
        without(array_faults((2, 9, d)), "one more", "an axis more") | {"three draws": (numbers(2, 3, d), "got 3")},
    ),
    "n": Kind(3, count_faults(1)),
    "from zero": Kind(0, count_faults(0)),
    "from two": Kind(4, without(count_faults(2), "a truth value")),
    "even": Kind(2, count_faults(2) | {"odd": (3, "3")}),
    "index": Kind(0, count_faults(0) | {"too large": (10**9, "1000000000")}),
    "latent_dim": Kind(1, count_faults(1) | {"too large": (D, "3"), "huge": (10**9, "1000000000")}),
    "d on a grid": Kind(1, count_faults(1) | {"too large": (9, "9"), "huge": (10**3, "1000")}),
    "n on a grid": Kind(4, count_faults(2) | {"huge": (10**9, "1000000000")}),
    "depth": Kind(3, count_faults(1) | {"too large": (11, "11")}),
    "positive": Kind(0.1, POSITIVE),
    "step": Kind(None, POSITIVE),
    "share": Kind(0.5, POSITIVE | {"one": (1.0, "1.0"), "above": (1.5, "1.5")}),
    "tolerance": Kind(1e-4, POSITIVE | {"too small": (1e-30, "1e-30"), "too large": (3.0, "3.0")}),
    "sizes": Kind((2, 2), SIZES),
    "shape": Kind((2, 2), SIZES | {"three": ((2, 2, 2), r"\(2, 2, 2\)")}),
    "dims": Kind((1, 2), without(SIZES, "none") | {"twice": ((1, 1), r"\(1, 1\)"), "too large": ((1, 3), "3")}),
    "key": Kind(KEY, KEYS),
    "nodes": Kind(GRID, NODES),
    "nodes or none": Kind(None, without(NODES, "nothing")),
    "q": Kind(Gaussian(numbers(d), numbers(d)), gaussians()),
    "factorised q": Kind(Gaussian(numbers(d), numbers(d)), gaussians(full=False)),
    "any factorised q": Kind(
        Gaussian(numbers(d), numbers(d)), without(gaussians(full=False), "another d", "an axis more")
    ),
    "q or weights": Kind(Gaussian(numbers(d), numbers(d)), gaussians(weighted=True)),
    "qs": Kind(Gaussian(numbers(N, d), numbers(N, d)), gaussians(N)),
    "qs or none": Kind(None, without(gaussians(N), "nothing")),
    "factorised qs or none": Kind(None, without(gaussians(N, full=False), "nothing")),
    "factorised q or none": Kind(None, without(gaussians(full=False), "nothing")),
    "posteriors": Kind(
        Weighted(GRID.t, numbers(N, len(GRID.t))),
        {
            "nothing": (None, "NoneType"),
            "a Gaussian": (Gaussian(numbers(N, d), numbers(N, d)), "Gaussian"),
            "another d": (Weighted(numbers(5, d + 1), numbers(N, 5)), r"float32\[5, 3\]"),
            "for other data": (Weighted(numbers(5, d), numbers(N + 1, 5)), r"float32\[5, 5\]"),
        },
    ),
    "start": Kind(FullGaussian(numbers(N, d), factor(N, d, d)), STARTS),
    "chains or none": Kind(
        None,
        {
            "text": ("mode", "str"),
            "points": (numbers(2, N, d), "ArrayImpl"),
            "for other data": (STARTS["other chains"][0], r"float32\[2, 5, 2\]"),
        },
    ),
    "state": Kind(STATE, {"nothing": (None, "NoneType"), "a point": (jnp.ones(d), "ArrayImpl")}),
    "scale": Kind(jnp.eye(d), without(array_faults((d, d)), "integers")),
    "any step": Kind(0.1, {"text": ("far", "far"), "two": (np.ones(2, "f"), r"\[2\]"), "nothing": (None, "None")}),
    "objective": Kind(lambda w, *_: w.sum(), {"a number": (3, "int"), "nothing": (None, "NoneType")}),
    "optimiser": Kind(None, {"text": ("adam", "str"), "a number": (0.1, "float"), "a class": (dict, "type")}),
    "checkpoint": Kind(
        None,
        {
            "a number": (3, "3"),
            "no name": ("", "''"),
            "a folder": (".", r"'\.'"),
            "in no folder": ("no/such/folder/run.npz", "no/such/folder"),
        },
    ),
    "parameters": Kind(
        jnp.ones(3),
        {"nothing": (None, "NoneType"), "text": ("w", "str"), "integers": (jnp.ones(3, int), "ArrayImpl")},
    ),
    "lower": Kind(
        None, {"a number": (0.0, "float"), "another shape": (jnp.zeros(2), r"\(2,\)"), "text": ("zero", "str")}
    ),
    "data": Kind(IMAGES, {"an array": (numbers(N, D), "ArrayImpl"), "nothing": (None, "NoneType")}),
    "images": Kind(
        IMAGES,
        {
            "an array": (numbers(N, D), "ArrayImpl"),
            "nothing": (None, "NoneType"),
            "synthetic": (datasets.curve(3, key=KEY), "Synthetic"),
        },
    ),
    "part": Kind(2, count_faults(1) | {"all": (N, "4")}),
    "split": Kind("test", {"another": ("valid", "'valid'"), "nothing": (None, "None"), "a list": ([], r"\[\]")}),
    "W": Kind(numbers(D, d), without(array_faults((D, d)), "one more")),
    "b": Kind(numbers(D), array_faults((D,))),
    "V": Kind(numbers(d, D), without(array_faults((d, D)), "one more")),
    "log_s": Kind(numbers(d), array_faults((d,))),
    "m": Kind(numbers(d), without(array_faults((d,)), "one more", "an axis more")),
    "log_sigma": Kind(np.float32(0), without(array_faults((), scalar=True), "a number")),
    "L": Kind(
        factor(d, d),
        array_faults((d, d))
        | {
            "upper": (factor(d, d).T + jnp.eye(d)[::-1], "above the diagonal.*jnp.linalg.cholesky"),
            "a negative diagonal": (-jnp.eye(d), "-1 on the diagonal"),
            "a zero on the diagonal": (jnp.diag(jnp.arange(float(d))), "0 on the diagonal"),
        },
    ),
    "points": Kind(numbers(5, d), without(array_faults((5, d)), "one more")),
    "log_weight": Kind(
        numbers(5),
        {
            "too few": (numbers(4), r"\[4\]"),
            "NaN": (with_one(np.nan, 5), "nan"),
            "infinity": (with_one(np.inf, 5), "inf"),
            "no weight": (np.full(5, -np.inf, "f"), "-inf for all 5"),
            "text": ("w", "<U1|str"),
            "integers": (np.ones(5, int), r"int\d\d"),
            "nothing": (None, "NoneType|object"),
        },
    ),
    "function": Kind(lambda t: t, {"a number": (3, "int"), "nothing": (None, "NoneType")}),
}

# room.function: each argument, and after a colon its kind where that is not its name.
ROWS = {
    "amortised.encoded": "encoder:any-encoder X",
    "amortised.fit": "w encoder X steps:n key batch_size:n M:n learning_rate:positive optimiser chunk:n checkpoint",
    "amortised.fit_every_dimension": "w encoder X dims steps:n key batch_size:n M:n learning_rate:positive chunk:n",
    "amortised.gap_ladder": "w encoder X key starts:n n:from-two half_width:positive",
    "amortised.gaussian_bound": "w q:qs X key draws:n",
    "amortised.lower_bound": "w encoder x M:n key",
    "amortised.vae_step": "w encoder X learning_rate:rate key M:n",
    "amortised.encoders.CNN": "image_shape:shape latent_dim:n channels:sizes width:n key",
    "amortised.encoders.Linear": "V a:b log_s",
    "amortised.encoders.as_module": "encoder:any-encoder",
    "amortised.encoders.encoded": "encoder:any-encoder X",
    "amortised.encoders.MLP": "data_dim:n latent_dim:n width:n depth:n key",
    "bound.expected_log_joint": "w q:q-or-weights x n:n-on-a-grid",
    "bound.importance": "w q x:x-or-X M:n key",
    "bound.kl": "w q:q-or-weights x nodes",
    "bound.kl_to_prior": "q:any-factorised-q",
    "bound.log_weights": "w q x:x-or-X M:n key",
    "bound.lower_bound": "w q x M:n key",
    "bound.lower_bound_on_nodes": "w q:q-or-weights x nodes",
    "bound.on_nodes": "q:q-of-any-d nodes",
    "datasets.curve": "n sigma:positive key",
    "datasets.dequantise": "images key",
    "datasets.digits": "",
    "datasets.mnist": "split",
    "datasets.spiral": "n sigma:positive key",
    "datasets.split": "data n_held_out:part key",
    "datasets.swiss_roll": "n sigma:positive key",
    "decoders.CNN": "latent_dim:n image_shape:shape width:n channels:sizes sigma_min:positive key",
    "decoders.Linear": "W b log_sigma",
    "decoders.MLP": "latent_dim:n data_dim:n width:n depth:n sigma_min:positive key",
    "decoders.as_module": "w",
    "decoders.projected": "w X",
    "decoders.start_at": "w:linear-or-network X",
    "em.e_step": "w X nodes",
    "em.em_step": "w X nodes max_steps:n",
    "em.fit": "w X nodes steps:n max_steps:n",
    "em.m_step": "w q:posteriors X max_steps:n",
    "em.m_step_on_draws": "w T:T-of-draws X max_steps:n learning_rate:step",
    "em.mean_bound": "w q:posteriors X nodes",
    "likelihood.fit": "w X steps:n key n:cells half_width:positive batch_size:n learning_rate:positive optimiser "
    "chunk:n checkpoint",
    "likelihood.shifted_grid": "latent_dim:d-on-a-grid n:n-on-a-grid half_width:positive key",
    "mcmc.Chains.posterior": "i:index",
    "mcmc.effective_sample_size": "t:chains-of-numbers",
    "mcmc.fit": "w X chains:chains-or-none steps:n M:n key warm_up:from-zero target:share leapfrogs:n max_steps:n "
    "learning_rate:step audit:nodes-or-none checkpoint",
    "mcmc.hmc": "w X start M:n key chains:n warm_up:from-zero step target:share leapfrogs:n",
    "mcmc.hmc_step": "w x state step:any-step scale leapfrogs:n key",
    "mcmc.laplace": "w X key starts:n steps:n",
    "mcmc.leapfrog": "w x state momentum:t step:any-step scale leapfrogs:n",
    "mcmc.mc_em_step": "w X chains:chains-or-none M:n key warm_up:from-zero target:share leapfrogs:n max_steps:n "
    "learning_rate:step",
    "mcmc.metropolis": "w X start M:n key chains:n warm_up:from-zero step target:share",
    "mcmc.metropolis_step": "w x state step:any-step scale key",
    "mcmc.numpyro_model": "w x",
    "mcmc.nuts": "w X start M:n key chains:n warm_up:from-zero target:share max_depth:depth",
    "mcmc.r_hat": "t:chains-of-numbers",
    "mcmc.state_at": "w x t",
    "model.log_p_t": "t:any-t",
    "model.log_p_x_given_t": "w x t",
    "model.log_p_x_given_t_table": "w X T",
    "model.log_p_xt": "w x t",
    "model.sample": "w n key",
    "optimise.ascend": "objective w:parameters steps:n key optimiser learning_rate:positive chunk:n checkpoint",
    "optimise.pieces": "X:streamed-X rows:n key",
    "optimise.maximise": "objective w:parameters tolerance:positive max_steps:n lower",
    "posteriors.FullGaussian": "m L",
    "posteriors.FullGaussian.log_q": "t",
    "posteriors.FullGaussian.sample": "M:n key",
    "posteriors.Gaussian": "m log_s",
    "posteriors.Gaussian.log_q": "t",
    "posteriors.Gaussian.sample": "M:n key",
    "posteriors.Weighted": "t:points log_weight",
    "posteriors.Weighted.expect": "f:function",
    "ppca.Spectrum.log_p_x": "X",
    "ppca.Spectrum.model": "latent_dim",
    "ppca.Spectrum.padded_model": "latent_dim",
    "ppca.Spectrum.possible": "latent_dim",
    "ppca.Spectrum.sigma": "latent_dim:d-of-sigma",
    "ppca.em_step": "w:linear X",
    "ppca.fit": "X:any-X latent_dim",
    "ppca.fit_all": "X:any-X",
    "ppca.fit_factor_analysis": "X:any-X latent_dim floor:share tolerance:positive max_steps:n",
    "ppca.fit_missing": "X:X-observed latent_dim tolerance:positive max_steps:n",
    "ppca.log_p_x": "w:linear x",
    "ppca.log_p_x_observed": "w:linear x:x-observed",
    "ppca.marginal": "w:linear",
    "ppca.posterior": "w:linear x",
    "ppca.posterior_observed": "w:linear x:x-observed",
    "quadrature.Exact.posterior": "i:index",
    "quadrature.exact": "w X tolerance",
    "quadrature.gauss_hermite": "latent_dim:many-dimensions n:n-on-a-grid",
    "quadrature.grid": "latent_dim:d-on-a-grid n:n-on-a-grid half_width:positive",
    "quadrature.log_p_x": "w X nodes",
    "quadrature.monte_carlo": "latent_dim:n M:n key",
    "quadrature.posterior": "w X nodes",
    "sharding.by_process": "function X:streamed-X",
    "sharding.gathered": "",
    "sharding.mesh": "",
    "sharding.shard": "X:streamed-X over",
    "variational.cavi_grid": "w X nodes start:factorised-qs-or-none starts:n sweeps:n",
    "variational.cavi_linear": "w:linear x start:factorised-q-or-none sweeps:n",
    "variational.em_step": "w X q:qs-or-none key e_steps:n m_steps:n M:n learning_rate:positive",
    "variational.factorised_gap": "w:linear",
    "variational.fit": "w X q:qs-or-none steps:n key e_steps:n m_steps:n M:n learning_rate:positive "
    "audit:nodes-or-none",
    "variational.fit_q": "w X start:qs-or-none key starts:n steps:n M:even draws:n",
    "variational.reparameterised": "w q:factorised-q x M:n key",
    "variational.score_function": "w q:factorised-q x M:n key",
}
KINDS |= {
    "q of any d": Kind(Gaussian(numbers(d), numbers(d)), without(gaussians(), "another d")),
    "cells": Kind(None, without(KINDS["from two"].faults, "nothing")),
    "any encoder": Kind(ENCODER, without(ENCODERS, "another d", "another width")),
    "any t": Kind(numbers(d), without(array_faults((d,)), "one more")),
    "linear or network": Kind(LINEAR, without(NOT_LINEAR, "a network")),
    "many dimensions": Kind(1, count_faults(1) | {"huge": (10**3, "1000")}),
    "d of sigma": Kind(1, count_faults(0) | {"too large": (D, "3")}),
    "rate": Kind(0.1, without(POSITIVE, "an array") | {"two": (np.ones(2, "f"), r"\[2\]"), "nothing": (None, "None")}),
}

# Of any value, and so never wrong: what is only true or false, what is only handed through, and a part of Exact.
FREE = {"progress", "keep", "full", "hold_w", "constant_sigma", "download", "args"}
FREE |= {"data in ascend", "values in gathered", "w in encoders.as_module"}
# Made by the library and handed back by it; what takes one checks it.
BY_ROOM = {
    "amortised": ("EveryDimension", "Ladder", "Trained"),
    "datasets": ("Images", "Synthetic", "Truth"),
    "em": ("Run",),
    "mcmc": ("Chains", "Move", "State"),
    "optimise": ("Ascent", "NotFinite", "Optimum"),
    "ppca": ("Spectrum",),
    "quadrature": ("Exact", "Nodes"),
    "variational": ("CoordinateAscent", "Factorised", "Fitted", "Gradient"),
}
PROTOCOLS = {"amortised.encoders.Encoder", "amortised.Encoder", "decoders.Decoder"}
MADE = {f"{room}.{name}" for room, names in BY_ROOM.items() for name in names} | PROTOCOLS
SPECTRUM = ppca.fit_all(numbers(9, D))
EXACT = quadrature.Exact(np.zeros(2), np.zeros(2), 1, lambda i: (np.zeros((1, d)), np.zeros(1)))
OF = {
    "mcmc.Chains": CHAINS,
    "posteriors.FullGaussian": FullGaussian(numbers(d), factor(d, d)),
    "posteriors.Gaussian": Gaussian(numbers(d), numbers(d)),
    "posteriors.Weighted": Weighted(numbers(5, d), numbers(5)),
    "ppca.Spectrum": SPECTRUM,
    "quadrature.Exact": EXACT,
    "amortised.EveryDimension": amortised.EveryDimension(
        *amortised.dimensions.padded(NETWORK, ENCODER, (1, 2)), (1, 2), np.zeros(1)
    ),
}
ROWS["amortised.EveryDimension.model"] = "d:one-of-the-dims"
KINDS["one of the dims"] = Kind(1, {"another": (3, "3"), "text": ("1", "'1'"), "nothing": (None, "None")})


def public(room: str) -> Iterator[tuple[str, Any]]:
    """Every function, class and method that a room shows, with its full name."""
    module = importlib.import_module(f"cmog_lib.{room}")
    own = [name for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
    for name in getattr(module, "__all__", own):
        value = getattr(module, name)
        if name.startswith("_"):
            continue
        if inspect.ismodule(value):
            yield from public(f"{room}.{name}")
            continue
        if not callable(value) or not (inspect.isclass(value) or hasattr(value, "__name__")):
            continue
        yield f"{room}.{name}", value
        if inspect.isclass(value):
            for method, function in vars(value).items():
                if (
                    not method.startswith("_")
                    and callable(function)
                    and len(inspect.signature(function).parameters) > 1
                ):
                    yield f"{room}.{name}.{method}", function


PUBLIC = {name: value for room in cmog_lib.__all__ for name, value in public(room)}


def arguments(row: str) -> dict[str, str]:
    """Each argument's kind: `w q:any-q x` says that w is a w, q is an any q and x is an x."""
    pairs = (part.partition(":") for part in row.split())
    return {name: (kind or name).replace("-", " ") for name, _, kind in pairs}


def test_every_public_function_has_its_row_and_every_argument_its_kind():
    assert set(ROWS) | MADE == set(PUBLIC), "a public function needs a row, a row a public function"
    for name, row in ROWS.items():
        parameters = set(inspect.signature(PUBLIC[name]).parameters) - {"self"} - FREE
        assert set(arguments(row)) == {p for p in parameters if f"{p} in {name.partition('.')[2]}" not in FREE}, name
        assert set(arguments(row).values()) <= set(KINDS), name


def refusal(name: str, changed: dict[str, Any]) -> str:
    """What the function says to good arguments of which some are changed; it must say no."""
    kinds = arguments(ROWS[name])
    parameters = inspect.signature(PUBLIC[name]).parameters
    given = {argument: KINDS[kind].good for argument, kind in kinds.items()} | changed
    given |= {"data": None} if name == "optimise.ascend" else {}
    given |= {"progress": False} if "progress" in parameters else {}
    owner = OF.get(name.rpartition(".")[0])
    call = PUBLIC[name] if owner is None else getattr(owner, name.rpartition(".")[2])
    with pytest.raises(ValueError) as refused:
        call(**given)
    return str(refused.value)


@pytest.mark.parametrize("name", ROWS)
def test_every_fault_is_refused_by_name_with_what_came_and_what_was_expected(entry_errors, name):
    wrong = []
    for argument, kind in arguments(ROWS[name]).items():
        for fault, (value, came) in KINDS[kind].faults.items():
            try:
                said = refusal(name, {argument: value})
            except (Exception, pytest.fail.Exception) as error:
                wrong.append(f"{argument} = {fault}: {type(error).__name__}: {error}")
                continue
            named = re.search(rf"(?<!\w){argument}\b", said) and re.search(r"must|needs", said)
            if not (named and re.search(came, said)):
                wrong.append(f"{argument} = {fault}: {said}")
    assert not wrong, "\n".join(wrong)


def swapped() -> Iterator[tuple[str, str, str]]:
    """Two neighbouring arguments of one function that cannot stand for each other."""
    for name, row in ROWS.items():
        kinds = list(arguments(row).items())
        for (one, its), (other, others) in itertools.pairwise(kinds):
            values = KINDS[its].good, KINDS[others].good
            numbers = all(isinstance(value, (int, float)) for value in values)
            same = [{type(v), getattr(v, "shape", None)} for v in values]
            if its != others and not numbers and not any(value is None for value in values) and same[0] != same[1]:
                yield name, one, other


@pytest.mark.parametrize(("name", "one", "other"), list(swapped()))
def test_arguments_in_the_wrong_order_are_refused_by_name(entry_errors, name, one, other):
    kinds = arguments(ROWS[name])
    said = refusal(name, {one: KINDS[kinds[other]].good, other: KINDS[kinds[one]].good})
    assert re.search(rf"(?<!\w)({one}|{other})\b", said) and "got" in said


def test_more_bytes_than_jax_knows_are_refused_and_another_librarys_array_is_taken_for_its_numbers(entry_errors):
    class Foreign:
        dtype, shape = "their.float32", (d,)

        def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
            return np.ones(d, dtype or "f")

    assert model.log_p_t(Foreign()) == model.log_p_t(jnp.ones(d))
    if np.dtype(np.longdouble).itemsize > 8:  # on Windows it is a double
        with pytest.raises(ValueError, match=r"got float\d+\[2\]; convert it with jnp.asarray\(t, float\)"):
            model.log_p_t(np.ones(d, np.longdouble))
