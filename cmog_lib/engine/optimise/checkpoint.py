"""What a long run leaves on disk, so that one that was killed goes on from there: arrays and a few words, no pickle.

A file of NumPy's .npz format, each entry with a checksum, and in it a manifest that says what it is: the version of
this format, which run wrote it, how many steps that had taken, and the shape of every array. It is written under
another name and then renamed: under its own name it is whole or absent.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import PyTree

FORMAT, VERSION = "cmog_lib checkpoint", 1
# What reading a file that is no such archive, or a spoilt one, may raise; a pickle inside is a ValueError.
BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, KeyError, NotImplementedError, RuntimeError, MemoryError, OSError)
UNREADABLE = (*BROKEN, ValueError)


class Checkpoint:
    """The file of one run. path: where. run: what the run is made of; a file of another run is refused.

    Raises ValueError for what is no path, and for a folder that is not there.
    """

    def __init__(self, path: str | Path, *run: PyTree) -> None:
        if not isinstance(path, (str, Path)) or not str(path):
            raise ValueError(f"checkpoint must be the path of a file, got {path!r}")
        self.path = Path(path).expanduser()
        if not self.path.parent.is_dir() or self.path.is_dir():
            raise ValueError(f"checkpoint must be the path of a file in a folder that exists, got {str(path)!r}")
        self.run = fingerprint(run)

    def save(self, step: int, state: PyTree) -> None:
        """Puts `state`, a pytree of arrays, after so many steps, in the place of what was there.

        Of several processes, which all have the same state, the first one writes, and all of them read.
        """
        if jax.process_index() > 0:
            return
        arrays = {f"array{k}": np.asarray(leaf) for k, leaf in enumerate(jax.tree.leaves(state))}
        manifest = {"format": FORMAT, "version": VERSION, "run": self.run, "step": step, "arrays": _said(arrays)}
        part = self.path.with_name(f"{self.path.name}.part")
        with part.open("wb") as file:
            np.savez(file, manifest=np.frombuffer(json.dumps(manifest).encode(), np.uint8), **arrays)  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())
        part.replace(self.path)

    def load(self, like: Callable[[int], PyTree]) -> tuple[int, PyTree] | None:
        """The steps taken and the state, if there is a file. like: from the steps to a state of that shape.

        Raises ValueError, naming the file and the reason, for one that is damaged, of another format, version or run.
        """
        if not self.path.exists():
            return None
        manifest, arrays = self._read()
        for what, ours in (("format", FORMAT), ("version", VERSION), ("run", self.run)):
            if manifest.get(what) != ours:
                other = "run: other data, another key, batch, start or optimiser" if what == "run" else what
                self._refuse(f"one of another {other} (its {what} is {manifest.get(what)!r}, not {ours!r})")
        step = manifest.get("step")
        if not isinstance(step, int) or step < 1 or manifest.get("arrays") != _said(arrays):
            self._refuse("one whose arrays are not those that it says it has")
        leaves, structure = jax.tree.flatten(like(step))
        expected = {f"array{k}": leaf for k, leaf in enumerate(leaves)}
        # Not by their precisions, which are the run's own affair: what a step makes of two is known only to it.
        shapes, wanted = ({name: array.shape for name, array in each.items()} for each in (arrays, expected))
        if shapes != wanted:
            self._refuse(f"one with arrays {_said(arrays)} where this run has {_said(expected)}")
        kept = [
            arrays[name] if isinstance(leaf, np.ndarray) else jnp.asarray(arrays[name])
            for name, leaf in expected.items()
        ]
        return step, jax.tree.unflatten(structure, kept)

    def _read(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        try:
            with zipfile.ZipFile(self.path), np.load(self.path, allow_pickle=False) as file:
                # What is no array in an archive comes as bytes.
                arrays = {name: np.asarray(file[name]) for name in file.files}
            manifest = json.loads(arrays.pop("manifest").tobytes())
        except UNREADABLE as error:
            self._refuse(f"a damaged or foreign one ({type(error).__name__}: {error})", error)
        if not isinstance(manifest, dict):
            self._refuse("a foreign one, whose manifest is none")
        return manifest, dict(sorted(arrays.items(), key=lambda item: (len(item[0]), item[0])))

    def _refuse(self, came: str, cause: Exception | None = None) -> NoReturn:
        raise ValueError(
            f"checkpoint must be a file that this run wrote, or none, got {str(self.path)!r}, {came}; move it away to"
            " begin anew"
        ) from cause


def fingerprint(tree: PyTree) -> str:
    """A short name for all arrays of a pytree: the same for the same numbers, shapes and precision."""
    digest = hashlib.blake2b(digest_size=16)
    for leaf in jax.tree.leaves(tree):
        if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        if isinstance(leaf, jax.Array) and not (leaf.is_fully_addressable or leaf.is_fully_replicated):
            # No process holds all of it: of each row a number is made where the row lies.
            leaf = multihost_utils.process_allgather(_of_rows(leaf), tiled=True)
        if isinstance(leaf, (jax.Array, np.ndarray, float, int)):
            array = np.ascontiguousarray(leaf)
            digest.update(f"{array.dtype}{array.shape}".encode())
            digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


@jax.jit
def _of_rows(X: jax.Array) -> jax.Array:
    """A checksum of each row's bits, in which their order counts."""
    bits = jax.lax.bitcast_convert_type(X, jnp.uint32).reshape(len(X), -1)
    return jnp.sum(bits * (2 * jnp.arange(bits.shape[1], dtype=jnp.uint32) + 1)[None], axis=1, dtype=jnp.uint32)


def _said(arrays: dict[str, Any]) -> dict[str, str]:
    return {name: f"{array.dtype}{list(array.shape)}" for name, array in arrays.items()}
