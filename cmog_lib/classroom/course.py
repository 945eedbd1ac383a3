"""The images and the trained models that the lectures share: one split, and the same weights in every lecture.

A claim about a trained model holds on every machine only if its weights are given: training ends elsewhere if the last
digit of a product differs. So the models of the digits are files in `models/`, which `make models` writes. For other
images, the same recipes train them when they are needed.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from cmog_lib import amortised, datasets, decoders, likelihood
from cmog_lib.amortised import encoders
from cmog_lib.amortised.dimensions import padded
from cmog_lib.datasets import Images
from cmog_lib.optimise.checkpoint import Checkpoint

# The weekly workflow trains all models again, into another folder, and runs the lectures with those.
FOLDER = Path(os.environ.get("CMOG_MODELS") or Path(__file__).parent / "models")
HELD_OUT = 297  # images
KEPT = np.float16  # the precision of the files: it costs a decoder less than 0.01 nats per image


class Course:
    """The images of a lecture, split into training and held-out images, and the decoders trained on them.

    The split is the same in every lecture, whatever its seed. `model` and `path` return the decoders.

    Args:
        images: "digits", or "mnist", of which 1797 are taken.
        held_out: number of held-out images.

    Attributes:
        train: dequantised `Images`.
        held_out: dequantised `Images`.
        rounded: the same two before dequantisation.

    Raises:
        ValueError: for other images.
        FileNotFoundError: if MNIST is not there.
    """

    def __init__(self, images: str = "digits", held_out: int = HELD_OUT) -> None:
        if images not in ("digits", "mnist"):
            raise ValueError(f"images must be 'digits' or 'mnist', got {images!r}")
        self.images, key = images, jax.random.key(0)
        with jax.enable_x64(True):  # in another precision, the random numbers would differ
            whole = datasets.digits() if images == "digits" else datasets.split(datasets.mnist(), 1797, key=key)[1]
            rounded = datasets.split(whole, held_out, key=key)
            dequantised = datasets.split(datasets.dequantise(whole, key=key), held_out, key=key)
        self.rounded = tuple(map(_in_session, rounded))
        self.train, self.held_out = map(_in_session, dequantised)
        self.image_shape, self.data_dim = whole.image_shape, whole.X.shape[1]
        self._trained: dict[str, dict[int, Any]] = {}

    def model(self, name: str) -> Any:
        """The trained model of that name.

        Args:
            name: one of `RECIPES`.

        Returns:
            A decoder, or a decoder and its encoder, in the session's precision.

        Raises:
            ValueError: for another name.
            FileNotFoundError: if a file is missing.
        """
        return [*self.path(name).values()][-1]

    def path(self, name: str) -> dict[int, Any]:
        """The model at every stage of its training.

        Args:
            name: one of `RECIPES`.

        Returns:
            Number of steps ↦ model, in the session's precision.

        Raises:
            ValueError: for another name.
            FileNotFoundError: if a file is missing.
        """
        if name not in RECIPES:
            raise ValueError(f"name must be one of {', '.join(map(repr, RECIPES))}, got {name!r}")
        if self.images == "digits":
            return load(name)
        if name not in self._trained:
            self._trained[name] = RECIPES[name].train(self.train, jax.random.key(0), RECIPES[name].elsewhere)
        return _in_session(self._trained[name])


@dataclass(frozen=True)
class Recipe:
    """How a model is made, and the numbers of training steps after which it is kept.

    Attributes:
        untrained: from the shape of the images and a key to a decoder, or to a decoder and its encoder.
        fit: from that to the model after some of `total` steps.
        stages: for the digits.
        elsewhere: for other images, which take longer.
        trained: what `fit` makes of the untrained model's arrays, if the structure differs.
    """

    untrained: Callable[[tuple[int, int], Key[Array, ""]], Any]
    fit: Callable[[Any, Images, int, int, Key[Array, ""]], Any]
    stages: tuple[int, ...]
    elsewhere: tuple[int, ...]
    trained: Callable[[Any], Any] = lambda model: model

    def train(self, images: Images, key: Key[Array, ""], stages: tuple[int, ...]) -> dict[int, Any]:
        """The model at each of the stages, trained in single precision."""
        from tqdm.auto import tqdm

        with jax.enable_x64(False):
            images, (key_start, key_fit) = _in_session(images), jax.random.split(key)
            start = _at_the_data(self.untrained(images.image_shape, key_start), images)
            # Each stage starts anew: the draws depend on the step, so a longer run begins with the shorter one.
            return {
                steps: self.fit(start, images, steps, stages[-1], key_fit) if steps else start
                for steps in tqdm(stages, desc="training", delay=2, leave=False)
            }

    def blank(self) -> Any:
        """A trained model of the digits without its numbers: the shapes, and everything that is not an array."""
        return eqx.filter_eval_shape(lambda key: self.trained(self.untrained((8, 8), key)), jax.random.key(0))


def by_likelihood(w: Any, images: Images, steps: int, total: int, key: Key[Array, ""]) -> Any:
    """max_w log p(X|w) with the integral in the gradient, as in lecture 3; the learning rate falls to 0 at `total`."""
    return likelihood.fit(w, images.X, steps=steps, key=key, optimiser=_settling(total), progress=False).w


@lru_cache
def _settling(total: int) -> Any:
    import optax  # type: ignore[import-untyped]

    # One object for all stages, because the training loop is compiled once for each optimiser.
    return optax.adam(optax.cosine_decay_schedule(5e-3, total))


def by_bound(both: Any, images: Images, steps: int, total: int, key: Key[Array, ""]) -> Any:
    """max L(w, q) over decoder and encoder, as in lecture 7."""
    w, encoder = both
    found = amortised.fit(w, encoder, images.X, steps=steps, key=key, progress=False)
    return found.w, found.encoder


def every_d_by_bound(both: Any, images: Images, steps: int, total: int, key: Key[Array, ""]) -> Any:
    """The same for all latent dimensions of DIMS at once: padded models, as in `amortised.EveryDimension`."""
    w, encoder = both
    found = amortised.fit_every_dimension(w, encoder, images.X, DIMS, steps=steps, key=key, progress=False)
    return found.w, found.encoder


def _mlp(d: int, **options: Any) -> Any:
    return lambda shape, key: decoders.MLP(d, math.prod(shape), key=key, **options)


def _cnn(d: int, **options: Any) -> Any:
    return lambda shape, key: decoders.CNN(d, shape, key=key, **options)


def _cnn_with_pixel_sigmas(shape: tuple[int, int], key: Key[Array, ""]) -> Any:
    w = _cnn(2, constant_sigma=True)(shape, key)
    return eqx.tree_at(lambda w: w.c, w, jnp.zeros(w.data_dim))


def _mlps(d: int) -> Any:
    return lambda shape, key: (_mlp(d)(shape, key), encoders.MLP(math.prod(shape), d, key=key))


def _cnns(d: int) -> Any:
    small = {"width": 64, "channels": (16, 8)}
    return lambda shape, key: (_cnn(d, **small)(shape, key), encoders.CNN(shape, d, key=key))


DIMS = (1, 2, 3, 4, 6, 8, 16)  # latent dimensions that lecture 7 compares
CLIMB, HALF = (0, 10, 30, 60, 120, 240, 480, 1000), (0, 10, 30, 60, 120, 240, 360)
RECIPES = {
    "MLP, d = 1": Recipe(_mlp(1), by_likelihood, (1000,), (360,)),
    "MLP, d = 2": Recipe(_mlp(2), by_likelihood, CLIMB, HALF),
    "CNN, d = 1": Recipe(_cnn(1), by_likelihood, (1000,), (100,)),
    "CNN, d = 2": Recipe(_cnn(2), by_likelihood, CLIMB, (0, 10, 30, 60, 100)),
    "CNN, d = 2, one sigma": Recipe(_cnn(2, constant_sigma=True), by_likelihood, (1000,), (100,)),
    "CNN, d = 2, a sigma for each pixel": Recipe(_cnn_with_pixel_sigmas, by_likelihood, (1000,), (100,)),
    "VAE, MLP, d = 2": Recipe(_mlps(2), by_bound, (0, 20, 60, 150, 400, 1000, 3000), (0, 20, 60, 150, 400, 1000)),
    "VAE, MLP, d = 8": Recipe(_mlps(8), by_bound, (1500,), (500,)),
    "VAE, CNN, every d": Recipe(
        _cnns(16), every_d_by_bound, (3000,), (60,), lambda both: padded(both[0], both[1], DIMS)
    ),
}


def load(name: str) -> dict[int, Any]:
    """The path of a model of the digits, from its file. Raises FileNotFoundError if there is none."""
    recipe, file = RECIPES[name], _file(name)
    blank = recipe.blank()
    found = file.load(lambda _: [eqx.filter(blank, _is_array) for _ in recipe.stages])
    if found is None:
        raise FileNotFoundError(f"{file.path} is missing; `make models` writes it, in about twenty minutes")
    return dict(zip(recipe.stages, [_in_session(eqx.combine(kept, blank)) for kept in found[1]], strict=True))


def save(name: str, path: dict[int, Any]) -> None:
    """Writes the path of a model of the digits to its file, in half precision."""
    arrays = [eqx.filter(model, _is_array) for model in path.values()]
    _file(name).save(max(path), _floats_as(KEPT, arrays))


def _file(name: str) -> Checkpoint:
    FOLDER.mkdir(parents=True, exist_ok=True)
    slug = name.lower().replace(",", "").replace(" = ", "").replace(" ", "-")
    return Checkpoint(FOLDER / f"{slug}.npz", RECIPES[name].stages)


def _is_array(leaf: Any) -> bool:
    return hasattr(leaf, "dtype")


def _floats_as(dtype: Any, tree: Any) -> Any:
    """The same with floating-point arrays in that precision; NumPy converts them, which compiles nothing."""

    def cast(leaf: Any) -> Any:
        if _is_array(leaf) and jnp.issubdtype(leaf.dtype, jnp.floating):
            return jnp.asarray(np.asarray(leaf).astype(dtype))
        return leaf

    return jax.tree.map(cast, tree)


def _in_session(tree: Any) -> Any:
    """The same with floats, and whole numbers such as labels, in the session's precision."""

    def cast(leaf: Any) -> Any:
        if _is_array(leaf) and jnp.issubdtype(leaf.dtype, jnp.signedinteger):
            return jnp.asarray(np.asarray(leaf), jnp.result_type(int))
        return leaf

    return jax.tree.map(cast, _floats_as(jnp.result_type(float), tree))


def _at_the_data(model: Any, images: Images) -> Any:
    if isinstance(model, tuple):
        return decoders.start_at(model[0], images.X), model[1]
    return decoders.start_at(model, images.X)


def main(arguments: list[str]) -> None:
    """Train models of the digits and write their files. arguments: --key, and names of RECIPES (default: all)."""
    parser = argparse.ArgumentParser(prog="make models", description=main.__doc__)
    parser.add_argument("names", nargs="*", metavar="name")
    parser.add_argument("--key", type=int, default=0, help="the seed of start and training (default: 0, the lectures')")
    chosen = parser.parse_args(arguments)
    if unknown := [name for name in chosen.names if name not in RECIPES]:
        parser.error(f"name must be one of {', '.join(map(repr, RECIPES))}, got {unknown[0]!r}")
    train = Course().train
    for name in chosen.names or RECIPES:
        began = time.perf_counter()
        save(name, RECIPES[name].train(train, jax.random.key(chosen.key), RECIPES[name].stages))
        print(f"models: {name}, {time.perf_counter() - began:.0f} s, {_file(name).path}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
