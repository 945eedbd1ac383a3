"""What an argument may be, by the name of its kind: the vocabulary of `door`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cmog_lib.decoders.contract import as_module
from cmog_lib.decoders.linear import only_linear
from cmog_lib.engine import table
from cmog_lib.engine.door import arrays, decoders, numbers
from cmog_lib.engine.door.entry import Kind
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
    """A q of these classes over the decoder's latents: of one datum, or, as x and X are, of `each` datum."""

    def kind(name: str, value: Any, given: Given) -> Any:
        q = numbers.kind(name, value, *classes, advice=advice)
        if sizes := _sizes(given):
            batch = (sizes["N"],) if "N" in sizes else () if not each else given["x"].shape[:-1]
            arrays.array(f"{name}.mean", q.mean, (*batch, sizes["d"]))
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
    return sizes | ({"N": len(given["X"])} if "X" in given else {})


def _X(name: str, X: Any, given: Given) -> Any:
    return arrays.array(name, X, ("N", _sizes(given).get("D", "D")))


def _nodes(name: str, nodes: Any, given: Given) -> Nodes:
    return Nodes(*arrays.nodes(nodes, _sizes(given)["d"], name))


def _nodes_of_a_table(name: str, nodes: Any, given: Given) -> Nodes:
    nodes = _nodes(name, nodes, given)
    table.affordable_table(given["X"], len(nodes.t))
    return nodes


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


def _weights(name: str, q: Any, given: Given) -> Any:
    """The E-step's posteriors of all data."""
    q, sizes = numbers.kind(name, q, Weighted, advice="as e_step returns it"), _sizes(given)
    arrays.array(f"{name}.t", q.t, ("S", sizes["d"]))
    arrays.array(f"{name}.log_weight", q.log_weight, (sizes["N"], len(q.t)), finite=False)
    return q


COUNTS = "n M steps max_steps starts sweeps chunk draws leapfrogs e_steps m_steps batch_size latent_dim max_cells"
KINDS: dict[str, Kind] = {
    "w": lambda name, w, given: as_module(w),  # as compiled functions take it
    "decoder": lambda name, w, given: decoders.decoder(w),  # as it is, of whatever class
    "linear": lambda name, w, given: only_linear(w, "whose p(x|w) is closed form"),
    "x": shaped("D"),
    "X": _X,
    "x-or-X": lambda name, x, given: arrays.one_or_many(name, x, _sizes(given)["D"]),
    "t": shaped("d"),
    "T": shaped("S,d"),
    "nodes": _nodes,
    "nodes-of-a-table": _nodes_of_a_table,
    "audit": optional(_nodes),
    "nodes-of-a-grid": _grid(3, "grid"),
    "nodes-of-gauss-hermite": _grid(None, "gauss_hermite"),
    "draws-of-the-prior": _draws_of_the_prior,
    "gaussian": of(Gaussian, FullGaussian),
    "drawn": of(Gaussian, FullGaussian, advice="from which to draw"),
    "drawn-for-each": of(Gaussian, FullGaussian, advice="from which to draw", each=True),
    "factorised": of(Gaussian),
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
