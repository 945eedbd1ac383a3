"""The four files of MNIST: where they are, how they come, and that they are the right ones."""

from __future__ import annotations

import gzip
import hashlib
import os
import time
import zlib
from pathlib import Path

import numpy as np

# SHA-256 of the uncompressed files: the same on every mirror, where the archives' own need not be.
SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
PREFIX = {"train": "train", "test": "t10k"}
MIRRORS = (
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
)
TIMEOUT = 20.0  # seconds without an answer
LONGEST = 900.0  # seconds for one file, however steadily it trickles
# Bytes: the largest of the four is 9.9 MB as it travels and 47 MB as it is. What is more is not MNIST, whatever it is.
MOST_SENT, MOST_HELD = 16 * 2**20, 64 * 2**20
SECURE = ("https://",)  # how an address begins from which, or through which, a file may come
WAYS_OUT = (
    "set CMOG_DATA_DIR to a folder that holds mnist/*-ubyte.gz, "
    "or use cmog_lib.datasets.digits(), which needs no network"
)


class Damaged(ValueError):
    """A file that is not the official one."""


def read(split: str, download: bool) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [N, 28, 28] and labels uint8 [N] of one split. Errors as in `datasets.mnist`."""
    images, labels = (
        idx(content(f"{PREFIX[split]}-{part}-ubyte", download)) for part in ("images-idx3", "labels-idx1")
    )
    return images, labels


def content(name: str, download: bool) -> bytes:
    """The uncompressed bytes of one file, from CMOG_DATA_DIR, else from the cache, else (on request) a mirror."""
    import pooch

    own = os.environ.get("CMOG_DATA_DIR")
    if own and (path := Path(own).expanduser() / "mnist" / f"{name}.gz").exists():
        return checked(path, name)
    cached = Path(pooch.os_cache("cmog_lib")) / "mnist" / f"{name}.gz"
    if cached.exists():
        try:
            return checked(cached, name)
        except Damaged as error:
            # This copy is ours, so it is ours to throw away; one in CMOG_DATA_DIR is left alone.
            cached.unlink()
            if not download:
                raise Damaged(f"{error}; it is removed, and mnist(download=True) fetches it again") from error
    if not download:
        searched = f"{Path(own) / 'mnist'} (CMOG_DATA_DIR) and {cached.parent}" if own else str(cached.parent)
        raise FileNotFoundError(
            f"{name}.gz is not in {searched}: call mnist(download=True), once, 11 MB for both splits, or {WAYS_OUT}"
        )
    fetch(cached, name)
    return checked(cached, name)


def fetch(target: Path, name: str) -> None:
    """Downloads one file from the first mirror that has it. `target` appears whole and checked, or not at all."""
    import pooch
    from requests.exceptions import RequestException

    def download(url: str, part: str, mover: pooch.Pooch) -> None:
        stream(url, Path(part))
        checked(Path(part), name, url)

    failures: list[Exception] = []
    for mirror in MIRRORS:
        # pooch downloads beside the target, calls the check above, and only then gives the file its name.
        box = pooch.create(target.parent, mirror, registry={target.name: None})
        try:
            box.fetch(target.name, downloader=download)
            return
        except (RequestException, Damaged) as error:
            failures.append(error)
    tried = "; ".join(f"{mirror}: {error}" for mirror, error in zip(MIRRORS, failures, strict=True))
    if all(isinstance(error, Damaged) for error in failures):
        raise Damaged(f"no mirror sent the official {name}: {tried}; {WAYS_OUT}")
    raise ConnectionError(f"no network, or no mirror of MNIST answers: {WAYS_OUT}. Tried {tried}") from failures[-1]


def stream(url: str, part: Path) -> None:
    """Writes what `url` sends to `part`. Raises Damaged for more than MNIST is, or an address that is not secure."""
    import requests

    deadline, received = time.monotonic() + LONGEST, 0
    with requests.get(url, stream=True, timeout=TIMEOUT) as answer, part.open("wb") as file:
        for hop in (*answer.history, answer):
            if not hop.url.startswith(SECURE):
                raise Damaged(f"{url} led to {hop.url}, which is not secured by TLS")
        answer.raise_for_status()
        for block in answer.iter_content(2**16):
            received += len(block)
            if received > MOST_SENT:
                raise Damaged(f"{url} sends more than {MOST_SENT} bytes")
            if time.monotonic() > deadline:
                raise requests.Timeout(f"{url} had not sent all after {LONGEST:g} s")
            file.write(block)


def checked(path: Path, name: str, source: str | None = None) -> bytes:
    """The uncompressed bytes of `path`. Raises Damaged where their SHA-256 is not that of the official file."""
    try:
        with gzip.open(path) as file:
            uncompressed = file.read(MOST_HELD + 1)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise Damaged(f"{source or path} is no whole gzip file: {error}") from error
    if len(uncompressed) > MOST_HELD:
        raise Damaged(f"{source or path} holds more than {MOST_HELD} bytes")
    digest = hashlib.sha256(uncompressed).hexdigest()
    if digest != SHA256[name]:
        raise Damaged(
            f"{source or path} is not the official {name}: "
            f"SHA-256 of its uncompressed content is {digest}, expected {SHA256[name]}"
        )
    return uncompressed


def idx(raw: bytes) -> np.ndarray:
    """The IDX format: two zero bytes, the type (8: unsigned byte), the rank, each length big-endian, the entries."""
    rank = raw[3]
    shape = np.frombuffer(raw, ">u4", count=rank, offset=4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * rank).reshape(shape)
