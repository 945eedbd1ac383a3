"""What every test runs under: shapes enforced, rank promotion an error, compiled code shared, and both precisions."""

from __future__ import annotations

import atexit
import gc
import os
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import jax
import jax.numpy as jnp
import pytest
from compiled import QUICKLY_COMPILED, taken_from
from jaxtyping import config as jaxtyping_config
from jaxtyping import install_import_hook
from xdist.scheduler import LoadScopeScheduling

# The same examples at every run, and no deadline: compilation takes what it takes.
hypothesis.settings.register_profile("fixed", derandomize=True, deadline=None)
hypothesis.settings.load_profile("fixed")
install_import_hook("cmog_lib", "beartype.beartype")
# Nearly everything here is compiled for one call or a few, and XLA's optimisation takes more time than it saves: the
# tests take less than half of the time without it. The lectures' kernels optimise a little (`of_a_lecture`). On the
# newest versions, in weekly.yml, everything is compiled as in a reader's kernel. XLA reads its flags once, when it
# starts, so that no other process inherits these.
if "CMOG_OPTIMISED" not in os.environ:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XLA_FLAGS", f"{os.environ.get('XLA_FLAGS', '')} {QUICKLY_COMPILED}".strip())
        jax.devices()
# The processes of one run share what they compile, also those that tests start; the first of them makes the folder.
if "CMOG_COMPILED" not in os.environ:
    os.environ["CMOG_COMPILED"] = tempfile.mkdtemp(prefix="cmog-compiled-")
    atexit.register(shutil.rmtree, os.environ["CMOG_COMPILED"], ignore_errors=True)
os.environ |= taken_from(Path(os.environ["CMOG_COMPILED"]))
jax.config.update("jax_compilation_cache_dir", os.environ["CMOG_COMPILED"])  # JAX has read its environment already
jax.config.update("jax_persistent_cache_enable_xla_caches", "none")
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
jax.config.update("jax_numpy_rank_promotion", "raise")
gc.set_threshold(50_000)  # compiling makes many objects, of which none is garbage yet


class ByWhatTheyShare(LoadScopeScheduling):
    """In several processes, these go together: a file's tests, those of a lecture's run, of the book, of JupyterLab."""

    def _split_scope(self, nodeid: str) -> str:
        file, _, test = nodeid.partition("::")
        name, _, lecture = test.partition("[")
        if "tests/browser/" in nodeid:
            return "book" if file.endswith(("test_book.py", "test_slides.py")) else "jupyterlab"
        return f"{lecture} {'all_of_it' in name}" if file.endswith("test_notebooks.py") else file


@pytest.hookimpl(optionalhook=True)  # the tests run without xdist too
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> LoadScopeScheduling:
    config.option.loadscopereorder = False  # in the order below
    return ByWhatTheyShare(config, log)


# These take minutes: begun first, so that at the end nobody waits for one of them.
LONG = ["mcmc", "variational_gaussian", "interrupts", "amortised", "sharding", "variational", "calibration", "ppca"]


# Where precision is the point. At a push the other tests run in one of the two, half of them in each; weekly in both.
IN_BOTH = {"compiler", "extremes", "identities", "model", "posteriors"}
IN_BOTH |= {"ppca", "precision", "quadrature", "scale"}


@pytest.hookimpl(tryfirst=True)  # before the tests of a mark are chosen
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    place = {f"test_{name}.py": k for k, name in enumerate(LONG)}
    items.sort(key=lambda item: place.get(item.path.name, len(LONG)))
    for item in items:
        dtype = item.callspec.params.get("dtype") if hasattr(item, "callspec") else None
        if dtype and item.path.stem.removeprefix("test_") not in IN_BOTH:
            fact = item.nodeid.replace("float32", "").replace("float64", "")
            if dtype != ("float32", "float64")[zlib.crc32(fact.encode()) % 2]:
                item.add_marker(pytest.mark.weekly)


@pytest.fixture(scope="module", autouse=True)
def let_go_of_compiled_code() -> Iterator[None]:
    """What a file's tests compiled is let go of after it.

    Every compiled function takes some of the 65,530 places that Linux maps for a process; all tests together compile
    more than that, and a process that has none left dies in the compiler, without a word.
    """
    yield
    jax.clear_caches()
    gc.collect()


@pytest.fixture(params=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> Iterator[jnp.dtype]:
    """The precision that a test runs in; a test that takes this fixture runs once in each."""
    with jax.enable_x64(request.param == "float64"):
        yield jnp.dtype(request.param)


@pytest.fixture
def entry_errors() -> Iterator[None]:
    """Without the import hook's own checks, so that a test sees the ValueError that a reader of the library sees."""
    before = jaxtyping_config.jaxtyping_disable
    jaxtyping_config.update("jaxtyping_disable", True)
    yield
    jaxtyping_config.update("jaxtyping_disable", before)
