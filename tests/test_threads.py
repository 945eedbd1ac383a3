"""The arithmetic of a lecture does not hang on how many cores there are."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

# Where XLA and BLAS split a sum after their threads: in long products of a transposed matrix, in convolutions to one
# channel, and in eigenvalues.
NUMBERS = """
import os, sys
cores = sorted(os.sched_getaffinity(0))
os.sched_setaffinity(0, cores[: int(sys.argv[1])])
import jax, jax.numpy as jnp, numpy as np
from cmog_lib.classroom import style
if sys.argv[2] == "begun":
    style.begin(x64=False)
a, b = (jax.random.normal(jax.random.key(k), (4096, 64)) for k in (0, 1))
product = jax.jit(lambda a, b: a.T @ b)(a, b)
values = jnp.linalg.eigvalsh(a.T @ a), np.linalg.eigvalsh(np.asarray(a).T @ np.asarray(a))
print([np.asarray(part).tobytes().hex() for part in (product, *values)])
"""


def numbers(cores: int, begun: str = "begun") -> str:
    environment = {name: value for name, value in os.environ.items() if name not in ("NPROC", "OPENBLAS_NUM_THREADS")}
    command = [sys.executable, "-c", NUMBERS, str(cores), begun]
    done = subprocess.run(command, capture_output=True, text=True, env=environment | {"JAX_PLATFORMS": "cpu"})
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


MANY = min(4, len(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else 1


@pytest.mark.skipif(MANY == 1, reason="needs several cores, and a system that lets a process choose among them")
def test_a_lecture_that_has_begun_computes_the_same_bits_on_one_core_and_on_several():
    assert numbers(1) == numbers(MANY)
    assert numbers(1, "not begun") != numbers(MANY, "not begun"), "nothing here is split: the test sees nothing"
