"""`import cmog_lib` stays as light as JAX with Equinox. What it costs in seconds, make bench ARGS=imports tells."""

from __future__ import annotations

import json
import subprocess
import sys

# Notebook and plotting packages, what only some functions use, and data.
HEAVY = ["matplotlib", "PIL", "IPython", "ipywidgets", "anywidget", "sklearn", "scipy.optimize", "optax", "numpyro"]
HEAVY += ["pooch", "requests", "tqdm", "cmog_lib.classroom"]
ROOMS = ["amortised", "bound", "datasets", "decoders", "em", "engine", "likelihood", "mcmc"]
ROOMS += ["model", "nodes", "optimise", "posteriors", "ppca", "quadrature", "sharding", "variational"]


def fresh(code: str) -> list[str]:
    """What `code` leaves in `result`, run in an interpreter that has imported nothing."""
    run = [sys.executable, "-c", f"import json, sys\n{code}\nprint(json.dumps(result))"]
    return json.loads(subprocess.run(run, check=True, capture_output=True, text=True).stdout)


def test_import_loads_no_plotting_no_widgets_and_no_data():
    loaded = fresh("import cmog_lib\nresult = sorted(sys.modules)")
    assert "jax" in loaded
    assert [name for name in HEAVY if name in loaded] == []


def test_import_brings_every_room_and_the_engine_into_reach_and_nothing_else():
    assert fresh("import cmog_lib\nresult = [m for m in dir(cmog_lib) if not m.startswith('_')]") == ROOMS


def test_import_starts_no_computation():
    # A device that is already chosen could no longer be chosen by the reader, and an array made at import would cost.
    assert fresh("import cmog_lib, jax\nresult = list(jax._src.xla_bridge._backends)") == []
