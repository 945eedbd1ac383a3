"""The lectures share one split and one set of weights; the files of weights are small, whole and no pickles."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cmog_lib import datasets, quadrature
from cmog_lib.classroom import course
from cmog_lib.classroom.course import DIMS, FOLDER, RECIPES, Course


def test_the_split_is_the_same_in_both_precisions(dtype):
    with jax.enable_x64(True):
        reference = Course()
    lectures = Course()
    for name in ("train", "held_out"):
        ours, theirs = getattr(lectures, name), getattr(reference, name)
        assert ours.X.dtype == dtype and np.array_equal(ours.labels, theirs.labels)
        np.testing.assert_allclose(ours.X, theirs.X, atol=1e-7)
    assert len(lectures.held_out.X) == 297 and len(lectures.train.X) == 1500


def test_rounded_and_dequantised_images_are_the_same_images():
    lectures = Course()
    for images, rounded in zip((lectures.train, lectures.held_out), lectures.rounded, strict=True):
        assert np.array_equal(np.floor(np.asarray(images.X) * 17), np.rint(np.asarray(rounded.X) * 16))


@pytest.mark.parametrize("name", RECIPES)
def test_every_model_of_the_lectures_has_a_file_and_decodes_in_the_sessions_precision(name, dtype):
    path = Course().path(name)
    assert tuple(path) == RECIPES[name].stages
    for found in path.values():
        assert {leaf.dtype for leaf in jax.tree.leaves(found)} <= {dtype, jnp.dtype(bool)}
    w = found[0] if isinstance(found, tuple) else found
    if name.endswith("every d"):
        assert w.used.shape == (len(DIMS), max(DIMS))
        w = jax.tree.map(lambda leaf: leaf[0], w)
    mu, sigma = w(jnp.zeros(w.latent_dim))
    assert jnp.isfinite(mu).all() and (sigma > 0).all()


def test_training_has_made_held_out_images_more_probable():
    lectures = Course()
    nodes = quadrature.grid(2, 96, half_width=4.0)
    path = lectures.path("MLP, d = 2").values()
    assert (np.diff([quadrature.log_p_x(w, lectures.held_out.X, nodes).mean() for w in path]) > 0).all()


def test_the_files_are_small_and_there_is_none_that_nobody_loads():
    files = sorted(FOLDER.glob("*"))
    assert files == sorted(course._file(name).path for name in RECIPES)
    assert sum(file.stat().st_size for file in files) < 4e6
    for file in files:
        with np.load(file, allow_pickle=False) as found:
            assert all(found[name].dtype != object for name in found.files)


def test_a_missing_file_says_what_writes_it(tmp_path, monkeypatch):
    monkeypatch.setattr(course, "FOLDER", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"mlp-d2\.npz is missing; `make models` writes it"):
        Course().model("MLP, d = 2")


def test_what_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="images must be 'digits' or 'mnist', got 'letters'"):
        Course("letters")
    with pytest.raises(ValueError, match=r"name must be one of 'MLP, d = 1', .*, got 'MLP'"):
        Course().path("MLP")


def test_a_model_that_is_trained_again_is_written_and_read(tmp_path, monkeypatch):
    monkeypatch.setattr(course, "FOLDER", tmp_path)
    recipe = RECIPES["MLP, d = 1"]
    monkeypatch.setitem(RECIPES, "MLP, d = 1", course.Recipe(recipe.untrained, recipe.fit, (0, 3), (1,)))
    course.main(["MLP, d = 1", "--key", "5"])
    first, last = Course().path("MLP, d = 1").values()
    assert jnp.abs(first.nn1.layers[0].weight - last.nn1.layers[0].weight).max() > 1e-3


def test_other_images_are_trained_on_the_spot(monkeypatch):
    few = datasets.Images(jnp.asarray(np.random.default_rng(0).random((40, 12))), jnp.zeros(40, int), (3, 4), 17)
    lectures = Course()
    lectures.images, lectures.train = "others", few
    recipe = RECIPES["MLP, d = 1"]
    monkeypatch.setitem(RECIPES, "MLP, d = 1", course.Recipe(recipe.untrained, recipe.fit, (0, 9), (0, 2)))
    assert [*lectures.path("MLP, d = 1")] == [0, 2]
    assert lectures.model("MLP, d = 1").data_dim == 12
