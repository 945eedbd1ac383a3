"""The compiler under the library computes what it is asked to: jaxlib 0.10.2 does not, and is excluded for it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
from compiled import taken_from

# A reader's process compiles with these; the other tests here do without them.
AS_EVERYWHERE = {"xla_backend_optimization_level": 3, "xla_cpu_use_fusion_emitters": True}


def test_jit_of_a_vmapped_product_and_sum_is_right_for_many_points(dtype):
    n = 40_000  # the fault of jaxlib 0.10.2 (jax-ml/jax issue 39103) shows from 32,769 points, in float64 from 16,385
    rows = jnp.stack([jnp.arange(n, dtype=dtype), jnp.zeros(n, dtype), jnp.zeros(n, dtype)], axis=1)
    matrix = jnp.eye(3, dtype=dtype)
    squares = jax.jit(jax.vmap(lambda row: jnp.sum((matrix @ row) ** 2)), compiler_options=AS_EVERYWHERE)(rows)
    assert np.array_equal(np.asarray(squares), np.arange(n, dtype=dtype) ** 2)


def test_what_one_process_compiled_another_finds_in_a_copy(tmp_path):
    """As the kernels of JupyterLab and of `make robust` take what the lectures' kernels have compiled."""
    program = "import jax.numpy as jnp; print((jnp.arange(3) + 1).sum())"

    def kept_after_running_in(folder):
        environment = {**os.environ, **taken_from(folder)}
        subprocess.run([sys.executable, "-c", program], env=environment, check=True, capture_output=True)
        return {path.name for path in folder.glob("*-cache")}

    compiled = kept_after_running_in(tmp_path / "first")
    shutil.copytree(tmp_path / "first", tmp_path / "copy")
    assert len(compiled) >= 2 and kept_after_running_in(tmp_path / "copy") == compiled
