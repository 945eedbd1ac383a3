"""What an argument may be, by the name of its kind: the vocabulary of `door`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from cmog_lib.decoders.contract import as_module
from cmog_lib.decoders.linear import is_linear, only_linear
from cmog_lib.engine import encoders, table
from cmog_lib.engine.door import arrays, decoders, numbers
from cmog_lib.engine.door.entry import Kind
from cmog_lib.engine.sigma import refuse_constant
from cmog_lib.nodes import Nodes
from cmog_lib.posteriors import FullGaussian, Gaussian, Weighted

Given = dict[str, Any]


def shaped(shape: str) -> Kind:
    """An array of floats. d, D and N are the decoder's and the data's, where there are any; other letters are free."""

    def kind(name: str, value: Any, given: Given) -> Any:
        sizes = _sizes(given)
        return arrays.array(name, value, tuple(sizes.get(letter, letter) for letter in shape.split(",")))

    return kind


def counted(minimum: int) -> Kind:
    """An integer of at least so many."""
    return lambda name, value, given: numbers.count(name, value, minimum)


def of(*classes: type, advice: str = "", each: bool = False) -> Kind:
    """A q of these classes: of one datum, or of each of X, or with `each` of whatever x is."""

    def kind(name: str, value: Any, given: Given) -> Any:
        q, sizes = numbers.kind(name, value, *classes, advice=advice), _sizes(given)
        batch = given["x"].shape[:-1] if each else (sizes["N"],) if "N" in sizes else ()
        arrays.array(f"{name}.mean", q.mean, (*batch, sizes.get("d", "d")))
        return q

    return kind


def optional(kind: Kind) -> Kind:
    """The same, or None."""
    return lambda name, value, given: None if value is None else kind(name, value, given)


def one(check: Callable[[str, Any], Any]) -> Kind:
    """A kind that asks for no other argument."""
    return lambda name, value, given: check(name, value)


def named(kind: str) -> Kind:
    """The kind of this name; "[N,D]" is an array of that shape, and "nodes-or-none" may be None."""
    if kind.startswith("["):
        return shaped(kind[1:-1])
    return optional(KINDS[kind.removesuffix("-or-none")]) if kind.endswith("-or-none") else KINDS[kind]


def _sizes(given: Given) -> Given:
    sizes = {"d": given["w"].latent_dim, "D": given["w"].data_dim} if "w" in given else {}
    if "self" in given or ("encoder" in given and not sizes):
        sizes = {"D": given["self" if "self" in given else "encoder"].data_dim}
    elif "q" in given and not sizes:
        sizes = {"d": given["q"].mean.shape[-1]}
    return sizes | ({"N": len(given["X"])} if "X" in given else {})


def _X(name: str, X: Any, given: Given) -> Any:
    return arrays.array(name, X, ("N", _sizes(given).get("D", "D")))


def _X_of_a_regression(name: str, X: Any, given: Given) -> Any:
    X, w = _X(name, X, given), given["w"]
    if is_linear(w):
        refuse_constant(X, each=w.log_sigma.ndim > 0)
    return X


def _X_that_varies(name: str, X: Any, given: Given) -> Any:
    X = _X(name, X, given)
    refuse_constant(X, each=True)
    return X


def _linear_in_range(name: str, w: Any, given: Given) -> Any:
    """A linear decoder for which the precision holds the variances of x."""
    w = KINDS["linear"](name, w, given)
    values = jnp.sum(w.W**2, axis=1) + w.sigma**2
    arrays.variances(name, values, lambda: jnp.maximum(jnp.abs(w.W).max(), w.sigma.max()))
    return w


def _nodes(name: str, nodes: Any, given: Given) -> Nodes:
    return Nodes(*arrays.nodes(nodes, _sizes(given)["d"], name))


def _nodes_of_a_table(name: str, nodes: Any, given: Given) -> Nodes:
    nodes = _nodes(name, nodes, given)
    table.affordable_table(given["X"], len(nodes.t))
    return nodes


def _nodes_of_q(name: str, nodes: Any, given: Given) -> Nodes:
    nodes = _nodes(name, nodes, given)
    arrays.same("q.t", given["q"].t, f"{name}.t", nodes.t)
    return nodes


def _on_nodes(name: str, q: Any, given: Given) -> Any:
    """A posterior of one datum, which lives on the nodes if it is of weights."""
    q, nodes = numbers.kind(name, q, Gaussian, FullGaussian, Weighted), given["nodes"]
    if isinstance(q, Weighted):
        arrays.array(f"{name}.log_weight", q.log_weight, (len(nodes.t),), finite=False)
        arrays.same(f"{name}.t", q.t, "nodes.t", nodes.t)
    else:
        arrays.array(f"{name}.mean", q.mean, (_sizes(given)["d"],))
    return q


def _around_q(name: str, n: Any, given: Given) -> int:
    """Gauss–Hermite nodes a dimension, where the expectation is not closed form."""
    n, d = numbers.count(name, n, 2), _sizes(given)["d"]
    if not is_linear(given["w"]) and not isinstance(given["q"], Weighted) and n**d > 2**20:
        raise ValueError(
            f"{name} must leave at most {2**20:,} nodes, got {n}^{d} = {float(n) ** d:.3g} for latent_dim={d};"
            f" take fewer, or draws: lower_bound(w, q, x, M=M, key=key)"
        )
    return n


def _cells(name: str, n: Any, given: Given) -> Any:
    d = given["w"].latent_dim
    _grid(3, "grid")(name, table.CELLS.get(d, 2) if n is None else n, {"latent_dim": d})
    return n


def _grid(most: int | None, rule: str) -> Kind:
    def kind(name: str, n: Any, given: Given) -> int:
        n = numbers.count(name, n, 2)
        table.affordable(rule, given["latent_dim"], n, most)
        return n

    return kind


def _draws_of_the_prior(name: str, M: Any, given: Given) -> int:
    M = numbers.count(name, M)
    table.affordable_draws(given["latent_dim"], M)
    return M


def _draws_in_pairs(name: str, M: Any, given: Given) -> int:
    if numbers.count(name, M, 2) % 2:
        raise ValueError(f"{name} must be even, for pairs of draws m ± s ε, got {M}")
    return int(M)


def _dims_of_w(name: str, value: Any, given: Given) -> tuple[int, ...]:
    dims, most = numbers.sizes(name, value), given["w"].latent_dim
    if len(set(dims)) != len(dims) or max(dims) > most:
        raise ValueError(f"{name} must be different numbers from 1 to w.latent_dim = {most}, got {dims}")
    return dims


def _weights(name: str, q: Any, given: Given) -> Any:
    """The E-step's posteriors of all data."""
    q, sizes = numbers.kind(name, q, Weighted, advice="as e_step returns it"), _sizes(given)
    arrays.array(f"{name}.t", q.t, ("S", sizes["d"]))
    arrays.array(f"{name}.log_weight", q.log_weight, (sizes["N"], len(q.t)), finite=False)
    return q


COUNTS = "n M steps max_steps starts sweeps chunk draws leapfrogs e_steps m_steps batch_size latent_dim"
KINDS: dict[str, Kind] = {
    "w": lambda name, w, given: as_module(w),  # as compiled functions take it
    "decoder": lambda name, w, given: decoders.decoder(w),  # as it is, of whatever class
    "encoder": lambda name, encoder, given: encoders.checked(encoder, given.get("w")),
    "linear": lambda name, w, given: only_linear(w, "whose p(x|w) is closed form"),
    "linear-in-range": _linear_in_range,
    "linear-for-cavi": lambda name, w, given: only_linear(
        w, "for which E_(-j) log p(x,t|w) is closed form", "; for any other decoder: cavi_grid"
    ),
    "x": shaped("D"),
    "x-observed": lambda name, x, given: arrays.array(name, x, (_sizes(given)["D"],), missing=True),
    "X": _X,
    "X-as-it-is": lambda name, X, given: arrays.array(name, X, ("N", "D"), mapped=True),
    "X-mapped": lambda name, X, given: arrays.array(name, X, ("N", _sizes(given)["D"]), mapped=True),
    "X-that-varies": _X_that_varies,
    "X-of-a-regression": _X_of_a_regression,
    "x-or-X": lambda name, x, given: arrays.one_or_many(name, x, _sizes(given)["D"]),
    "t": shaped("d"),
    "T": shaped("S,d"),
    "nodes": _nodes,
    "nodes-of-a-table": _nodes_of_a_table,
    "audit": optional(_nodes),
    "nodes-of-q": _nodes_of_q,
    "on-nodes": _on_nodes,
    "nodes-around-q": _around_q,
    "cells": _cells,
    "nodes-of-a-grid": _grid(3, "grid"),
    "nodes-of-gauss-hermite": _grid(None, "gauss_hermite"),
    "draws-of-the-prior": _draws_of_the_prior,
    "draws-in-pairs": _draws_in_pairs,
    "dims-of-w": _dims_of_w,
    "gaussian": of(Gaussian, FullGaussian),
    "drawn": of(Gaussian, FullGaussian, advice="from which to draw"),
    "drawn-for-each": of(Gaussian, FullGaussian, advice="from which to draw", each=True),
    "factorised": of(Gaussian),
    "factorised-of-any": lambda name, q, given: numbers.kind(name, q, Gaussian),
    "posterior": of(Gaussian, FullGaussian, Weighted),
    "weights": _weights,
    "key": lambda name, key, given: numbers.key(key),
    "from-zero": counted(0),
    "from-two": counted(2),
    "positive": one(numbers.positive),
    "number": one(arrays.scalar),
    "function": one(numbers.function),
    "sizes": one(numbers.sizes),
} | {name: counted(1) for name in ("count", *COUNTS.split())}
