"""datasets: what is claimed of each set, and that no damaged or half file ever passes for MNIST. No network is used."""

from __future__ import annotations

import contextlib
import gc
import gzip
import hashlib
import threading
import time
import warnings
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pooch
import pytest
from needs import mnist_folder

from cmog_lib import _mnist, datasets
from cmog_lib.engine import door

SYNTHETIC = {
    "curve": (datasets.curve, 1, 2),
    "spiral": (datasets.spiral, 1, 2),
    "swiss_roll": (datasets.swiss_roll, 2, 3),
}
synthetic = pytest.mark.parametrize(("make", "latent_dim", "data_dim"), SYNTHETIC.values(), ids=SYNTHETIC)


def test_digits_are_1797_images_with_grey_values_from_0_to_1(dtype):
    data = datasets.digits()
    assert data.X.shape == (1797, 64) and data.X.dtype == dtype
    assert data.image_shape == (8, 8)
    assert float(data.X.min()) == 0 and float(data.X.max()) == 1
    assert jnp.issubdtype(data.labels.dtype, jnp.integer)
    # The set's own documentation counts the ten classes so.
    assert np.bincount(np.asarray(data.labels)).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_split_parts_the_data_once_and_the_same_key_parts_it_alike():
    data = datasets.digits()
    train, held_out = datasets.split(data, 360, key=jax.random.key(0))
    assert train.X.shape == (1437, 64) and held_out.X.shape == (360, 64) and train.image_shape == (8, 8)
    rows = np.concatenate([train.X, held_out.X])
    order = np.lexsort(rows.T)
    assert np.array_equal(rows[order], np.asarray(data.X)[np.lexsort(np.asarray(data.X).T)])
    labels = np.concatenate([train.labels, held_out.labels])
    for row, label in zip(rows[:20], labels[:20], strict=True):
        assert label in np.asarray(data.labels)[(np.asarray(data.X) == row).all(axis=1)]
    again, _ = datasets.split(data, 360, key=jax.random.key(0))
    other, _ = datasets.split(data, 360, key=jax.random.key(1))
    assert jnp.array_equal(train.X, again.X) and not jnp.array_equal(train.X, other.X)


@pytest.mark.parametrize("n_held_out", [0, -1, 1797, 2.5, True])
def test_split_refuses_an_empty_part(entry_errors, n_held_out):
    with pytest.raises(ValueError, match="n_held_out must be an integer from 1 to 1796"):
        datasets.split(datasets.digits(), n_held_out, key=jax.random.key(0))


def test_split_keeps_latents_with_their_data_and_the_decoder_whole():
    data = datasets.swiss_roll(50, 1e-6, key=jax.random.key(0))
    for part in datasets.split(data, 20, key=jax.random.key(1)):
        assert jnp.allclose(part.X, jax.vmap(part.w)(part.t)[0], atol=1e-5)
        assert part.w.latent_dim == 2


@synthetic
def test_synthetic_latents_are_standard_normal(dtype, make, latent_dim, data_dim):
    n = 4000
    data = make(n, key=jax.random.key(3))
    assert data.t.shape == (n, latent_dim) and data.X.shape == (n, data_dim)
    assert data.t.dtype == dtype and data.X.dtype == dtype
    # Four standard errors of a mean, of a variance, of a correlation.
    assert jnp.abs(data.t.mean(axis=0)).max() < 4 / n**0.5
    covariance = data.t.T @ data.t / n
    assert jnp.abs(covariance - jnp.eye(latent_dim)).max() < 4 * (2 / n) ** 0.5


@synthetic
def test_synthetic_noise_has_the_standard_deviation_asked_for(dtype, make, latent_dim, data_dim):
    n, sigma = 4000, 0.03
    data = make(n, sigma, key=jax.random.key(4))
    mu, sigmas = jax.vmap(data.w)(data.t)
    assert jnp.allclose(sigmas, sigma)
    noise = (data.X - mu) / sigma
    # Four standard errors of a mean and of a standard deviation over n · D independent standard normals.
    assert abs(float(noise.mean())) < 4 / (n * data_dim) ** 0.5
    assert abs(float(noise.std()) - 1) < 4 / (2 * n * data_dim) ** 0.5


@synthetic
def test_synthetic_data_are_the_same_for_the_same_key_only(make, latent_dim, data_dim):
    one, two, other = (make(10, key=jax.random.key(seed)) for seed in (0, 0, 1))
    assert jnp.array_equal(one.X, two.X) and not jnp.array_equal(one.X, other.X)


@synthetic
def test_synthetic_truth_is_a_decoder_that_compiled_functions_know_again(make, latent_dim, data_dim):
    w = make(1, key=jax.random.key(0)).w
    assert door.decoder(w) is w
    assert (w.latent_dim, w.data_dim) == (latent_dim, data_dim)
    # The same static part at each call: no second compilation.
    assert jax.tree.structure(w) == jax.tree.structure(make(5, 0.2, key=jax.random.key(1)).w)


def test_spiral_and_swiss_roll_lie_where_their_formulas_say():
    X = datasets.spiral(500, 1e-6, key=jax.random.key(0)).X
    r = np.hypot(*np.asarray(X).T)
    assert r.min() > 0.25 - 1e-4 and r.max() < 1 + 1e-4
    theta = 3 * np.pi * (r - 0.25) / 0.75
    assert np.allclose(X, r[:, None] * np.stack([np.cos(theta), np.sin(theta)], 1), atol=1e-3)
    X = datasets.swiss_roll(500, 1e-6, key=jax.random.key(0)).X
    r = np.hypot(X[:, 0], X[:, 2])
    assert r.min() > 1 / 3 - 1e-4 and r.max() < 1 + 1e-4 and np.abs(X[:, 1]).max() < 1 + 1e-4
    theta = 4.5 * np.pi * r
    assert np.allclose(X[:, [0, 2]], r[:, None] * np.stack([np.cos(theta), np.sin(theta)], 1), atol=1e-3)


@synthetic
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 0}, "n must be an integer of at least 1, got 0"),
        ({"n": 2.0}, "n must be an integer of at least 1, got 2.0"),
        ({"sigma": 0.0}, "sigma must be a positive finite number, got 0.0"),
        ({"sigma": float("nan")}, "sigma must be a positive finite number, got nan"),
    ],
)
def test_synthetic_data_refuse_what_makes_no_sense(entry_errors, make, latent_dim, data_dim, arguments, message):
    with pytest.raises(ValueError, match=message):
        make(**({"n": 3, "key": jax.random.key(0)} | arguments))


def test_synthetic_data_refuse_an_old_style_key(entry_errors):
    with pytest.raises(ValueError, match=r"key must be a typed key, as jax\.random\.key"):
        datasets.curve(3, key=jax.random.PRNGKey(0))


# MNIST.


def test_mnist_is_the_official_set(dtype):
    mnist_folder()
    data = datasets.mnist("test")
    assert data.X.shape == (10000, 784) and data.X.dtype == dtype and data.image_shape == (28, 28)
    assert float(data.X.min()) == 0 and float(data.X.max()) == 1
    assert np.bincount(np.asarray(data.labels)).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    if dtype == jnp.float32:
        assert datasets.mnist().X.shape == (60000, 784)


def test_mnist_refuses_an_unknown_split():
    with pytest.raises(ValueError, match="split must be one of 'train', 'test', got 'valid'"):
        datasets.mnist("valid")


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


IMAGES = np.random.default_rng(0).integers(0, 256, (5, 28, 28), np.uint8)
LABELS = np.array([3, 1, 4, 1, 5], np.uint8)
FILES = {"t10k-images-idx3-ubyte": idx(IMAGES), "t10k-labels-idx1-ubyte": idx(LABELS)}
GOOD = {f"/{name}.gz": gzip.compress(content) for name, content in FILES.items()}


class Mirror(ThreadingHTTPServer):
    """A mirror of a five-image MNIST on loopback: `answer` maps paths to bodies, `promised` overstates their length."""

    daemon_threads = True

    def __init__(self) -> None:
        self.answer = dict(GOOD)
        self.promised = 0
        self.moved = ""  # where it sends those who ask
        self.silent = 0.0  # seconds before it answers
        self.slow = 0.0  # seconds that it takes over a body
        self.holds = False  # in the middle of a body, as long as this is so
        self.asked: list[str] = []
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/"


class Handler(BaseHTTPRequestHandler):
    server: Mirror

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        time.sleep(self.server.silent)
        if self.server.moved:
            self.send_response(302)
            self.send_header("Location", self.server.moved + self.path[1:])
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = self.server.answer.get(self.path)
        if body is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(body) + self.server.promised))
        self.end_headers()
        with contextlib.suppress(ConnectionError):  # who asked may have gone
            for k in range(0, len(body), max(len(body) // 20, 1)):
                self.wfile.write(body[k : k + max(len(body) // 20, 1)])
                time.sleep(self.server.slow / 20)
                while self.server.holds and k > len(body) // 2:
                    time.sleep(0.001)

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def serving() -> Iterator[Mirror]:
    with Mirror() as mirror:
        thread = threading.Thread(target=mirror.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield mirror
        mirror.shutdown()
        thread.join()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache, no CMOG_DATA_DIR, and the small files' hashes in place of the official ones."""
    monkeypatch.delenv("CMOG_DATA_DIR", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / "cache" / project)
    for name, content in FILES.items():
        monkeypatch.setitem(_mnist.SHA256, name, hashlib.sha256(content).hexdigest())
    yield tmp_path / "cache" / "cmog_lib" / "mnist"
    # pooch leaves a refused download's connection to the garbage collector, which complains: here, not in a later test.
    with warnings.catch_warnings(action="ignore", category=ResourceWarning):
        gc.collect()


@pytest.fixture
def mirror(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    with serving() as server:
        monkeypatch.setattr(_mnist, "MIRRORS", (server.address,))
        monkeypatch.setattr(_mnist, "SECURE", ("https://", server.address))
        yield server


def kept(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.iterdir()) if cache.exists() else []


def test_mnist_is_downloaded_once_on_request(cache, mirror):
    data = datasets.mnist("test", download=True)
    assert jnp.allclose(data.X, jnp.asarray(IMAGES.reshape(5, -1) / 255))
    assert data.labels.tolist() == LABELS.tolist()
    assert kept(cache) == [f"{name}.gz" for name in FILES]
    datasets.mnist("test")
    datasets.mnist("test", download=True)
    assert sorted(mirror.asked) == sorted(GOOD)


def test_mnist_is_not_downloaded_unasked(cache, mirror):
    with pytest.raises(FileNotFoundError, match=r"mnist\(download=True\).*or set CMOG_DATA_DIR") as raised:
        datasets.mnist("test")
    assert str(cache) in str(raised.value)
    assert mirror.asked == [] and kept(cache) == []


def test_mnist_is_read_from_the_folder_that_is_named(cache, mirror, tmp_path, monkeypatch):
    folder = tmp_path / "with space" / "mnist"
    folder.mkdir(parents=True)
    for path, body in GOOD.items():
        (folder / path[1:]).write_bytes(body)
    monkeypatch.setenv("CMOG_DATA_DIR", str(folder.parent))
    assert datasets.mnist("test", download=True).X.shape == (5, 784)
    assert mirror.asked == []


def test_damaged_file_in_the_named_folder_is_refused_and_left_alone(cache, mirror, tmp_path, monkeypatch):
    folder = tmp_path / "mnist"
    folder.mkdir()
    damaged = folder / "t10k-images-idx3-ubyte.gz"
    damaged.write_bytes(gzip.compress(b"something else"))
    monkeypatch.setenv("CMOG_DATA_DIR", str(tmp_path))
    with pytest.raises(ValueError, match="is not the official t10k-images-idx3-ubyte: SHA-256") as raised:
        datasets.mnist("test", download=True)
    assert str(damaged) in str(raised.value)
    assert damaged.exists() and mirror.asked == []


def spoilt(body: bytes) -> bytes:
    """The same archive of almost the same content: only the hash of what is inside tells."""
    content = bytearray(gzip.decompress(body))
    content[-1] ^= 1
    return gzip.compress(bytes(content))


@pytest.mark.parametrize("spoil", [spoilt, lambda body: body[:-20], lambda body: b"<html>", lambda body: b""])
def test_wrong_file_from_a_mirror_leaves_nothing_behind(cache, mirror, spoil):
    mirror.answer = {path: spoil(body) for path, body in GOOD.items()}
    with pytest.raises(ValueError, match="no mirror sent the official t10k-images-idx3-ubyte"):
        datasets.mnist("test", download=True)
    assert kept(cache) == []


def test_truncated_download_leaves_nothing_behind(cache, mirror):
    mirror.promised = 1000
    with pytest.raises(ConnectionError, match="no network, or no mirror"):
        datasets.mnist("test", download=True)
    assert kept(cache) == []


def test_interrupted_download_leaves_nothing_behind(cache, mirror, monkeypatch):
    def interrupted(url, part):
        part.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(_mnist, "stream", interrupted)
    with pytest.raises(KeyboardInterrupt):
        datasets.mnist("test", download=True)
    assert kept(cache) == []


def test_damaged_file_in_the_cache_is_thrown_away_and_fetched_again(cache, mirror):
    datasets.mnist("test", download=True)
    damaged = cache / "t10k-labels-idx1-ubyte.gz"
    damaged.write_bytes(b"half")
    with pytest.raises(ValueError, match=r"it is removed, and mnist\(download=True\) fetches it again"):
        datasets.mnist("test")
    assert not damaged.exists()
    damaged.write_bytes(b"half")
    assert datasets.mnist("test", download=True).labels.tolist() == LABELS.tolist()


def test_second_mirror_serves_where_the_first_is_wrong(cache, mirror, monkeypatch):
    with serving() as wrong:
        wrong.answer = {}
        monkeypatch.setattr(_mnist, "MIRRORS", (wrong.address, mirror.address))
        monkeypatch.setattr(_mnist, "SECURE", (wrong.address, mirror.address))
        assert datasets.mnist("test", download=True).X.shape == (5, 784)
    assert len(wrong.asked) == len(mirror.asked) == 2


def test_mirrors_are_asked_over_tls_only():
    assert all(address.startswith("https://") for address in _mnist.MIRRORS) and _mnist.SECURE == ("https://",)


def test_what_comes_without_tls_or_by_way_of_it_is_refused(cache, mirror, monkeypatch):
    monkeypatch.setattr(_mnist, "SECURE", ("https://",))
    with pytest.raises(ValueError, match=r"led to http://127\.0\.0\.1:\d+/t10k\S+, which is not secured by TLS"):
        datasets.mnist("test", download=True)
    assert kept(cache) == []
    monkeypatch.setattr(_mnist, "SECURE", (mirror.address,))
    with serving() as elsewhere:
        mirror.moved = elsewhere.address
        with pytest.raises(ValueError, match=f"led to {elsewhere.address}t10k"):
            datasets.mnist("test", download=True)
    assert kept(cache) == []


def test_a_mirror_that_sends_too_much_or_for_too_long_is_left(cache, mirror, monkeypatch):
    monkeypatch.setattr(_mnist, "MOST_SENT", 100)
    with pytest.raises(ValueError, match="sends more than 100 bytes"):
        datasets.mnist("test", download=True)
    monkeypatch.setattr(_mnist, "MOST_SENT", 2**20)
    monkeypatch.setattr(_mnist, "MOST_HELD", 100)
    with pytest.raises(ValueError, match="holds more than 100 bytes"):
        datasets.mnist("test", download=True)
    monkeypatch.setattr(_mnist, "MOST_HELD", 2**20)
    monkeypatch.setattr(_mnist, "LONGEST", -1.0)
    with pytest.raises(ConnectionError, match="had not sent all after"):
        datasets.mnist("test", download=True)
    monkeypatch.setattr(_mnist, "LONGEST", 900.0)
    monkeypatch.setattr(_mnist, "TIMEOUT", 0.05)
    mirror.silent = 0.3
    with pytest.raises(ConnectionError, match="timed out"):
        datasets.mnist("test", download=True)
    assert kept(cache) == []


def test_the_limits_let_the_official_files_through():
    # 60000 images of 28 × 28 bytes behind a header of 16; its archive is 9,912,422 bytes long.
    assert _mnist.MOST_HELD > 60000 * 784 + 16 and _mnist.MOST_SENT > 9_912_422


def test_without_network_the_error_names_the_ways_out(cache, monkeypatch):
    with serving() as gone:
        address = gone.address
    monkeypatch.setattr(_mnist, "MIRRORS", (address,))
    with pytest.raises(ConnectionError, match=r"no network.*set CMOG_DATA_DIR.*datasets\.digits\(\)"):
        datasets.mnist("test", download=True)
    assert kept(cache) == []


def test_dequantised_pixels_round_down_to_the_grey_values_they_came_from(dtype):
    images = datasets.digits()
    smooth = datasets.dequantise(images, key=jax.random.key(0))
    assert smooth.X.min() >= 0 and smooth.X.max() <= 1
    # Not all: (k + u)/17 may be rounded up to a whole number in float32 where u is nearly 1.
    agree = np.floor(np.asarray(smooth.X, float) * 17) == np.round(np.asarray(images.X, float) * 16)
    assert agree.mean() > 0.9999
