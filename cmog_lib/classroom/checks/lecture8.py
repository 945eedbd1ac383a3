"""The exercises of lecture 8, each with its answer and the mistakes that the checker recognises."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from cmog_lib.classroom.checks import Exercise


def _two_shares():
    rng = np.random.default_rng(51)

    def moments(n, D, centre):
        X = centre + rng.normal(size=(n, D)) @ rng.normal(size=(D, D))
        b = X.mean(axis=0)
        return n, jnp.asarray(b), jnp.asarray((X - b).T @ (X - b) / n)

    return [(*moments(300, D, 0.0), *moments(n, D, 2.0)) for n, D in ((100, 2), (40, 3))]


def _pooled(weights=lambda n_1, n_2: (n_1 / (n_1 + n_2), n_2 / (n_1 + n_2)), of_S=None, between=1.0):
    def pooled(n_1, b_1, S_1, n_2, b_2, S_2):
        p_1, p_2 = weights(n_1, n_2)
        r_1, r_2 = (of_S or weights)(n_1, n_2)
        b = p_1 * b_1 + p_2 * b_2
        apart = p_1 * jnp.outer(b_1 - b, b_1 - b) + p_2 * jnp.outer(b_2 - b, b_2 - b)
        return b, r_1 * S_1 + r_2 * S_2 + between * apart

    return pooled


pooled = Exercise(
    answer=_pooled(),
    cases=_two_shares,
    mistakes={
        "The two shares count the same here, and they are not equally large. "
        "Look at n₁ and n₂: a share weighs as much as it has data.": _pooled(lambda n_1, n_2: (0.5, 0.5)),
        "The spread between the two means is missing. "
        "Try two shares with no spread inside: S is not 0 where their means differ.": _pooled(between=0.0),
        "The covariances were added up, and S is a mean. Look at the weights of S₁ and S₂: they sum to one.": _pooled(
            of_S=lambda n_1, n_2: (1.0, 1.0)
        ),
        "The spread between the means was taken off. Look at its sign: two heaps lie wider than one.": _pooled(
            between=-1.0
        ),
    },
    praise="Right. Nobody needs more than n, b and S of the other, however many data those stand for.",
)


def _steps():
    return [(8e12, k, 5e7, 1e12, 1e10) for k in (1, 2, 8, 64)]


def _step(devices=lambda k: k, sent=lambda k: 2 * (k - 1) / k):
    def step_seconds(work, k, numbers, work_rate, link_rate):
        return work / (devices(k) * work_rate) + sent(k) * numbers / link_rate

    return step_seconds


step_seconds = Exercise(
    answer=_step(),
    cases=_steps,
    mistakes={
        "Here every device does all of the work. Look at its share: the data were dealt out to k of them.": _step(
            devices=lambda k: 1
        ),
        "The sums are made and nobody is told. "
        "Count both rounds: one adds up, the other hands the sums on, each (k − 1)/k of the numbers.": _step(
            sent=lambda k: (k - 1) / k
        ),
        "This sends to a device what it has already. "
        "Try k = 1: one device alone has nothing to send, so the factor is 2 (k − 1)/k.": _step(sent=lambda k: 2.0),
        "Here one device hears all others out, and the link carries k − 1 times the numbers. "
        "Look at the ring: everybody sends at the same time, a k-th of the numbers in each turn.": _step(
            sent=lambda k: 2.0 * (k - 1)
        ),
        "The devices do not talk to each other here. Look at what they need after their sums: everybody else's.": _step(
            sent=lambda k: 0.0
        ),
    },
    praise="Right. The work falls with k, the talk does not: that is all there is to scaling.",
)


def _padded():
    rng = np.random.default_rng(52)
    shares, counts = rng.normal(size=(3, 4, 2)), np.array([4, 4, 1])
    beyond = np.arange(4)[None] >= counts[:, None]
    return [
        (jnp.asarray(np.where(beyond[..., None], filling, shares)), jnp.asarray(counts)) for filling in (100.0, np.nan)
    ]


def _there(shares, counts):
    return (jnp.arange(shares.shape[1])[None] < counts[:, None])[..., None]


def _mean(shares, counts):
    return jnp.where(_there(shares, counts), shares, 0).sum(axis=(0, 1)) / counts.sum()


mean_of_shares = Exercise(
    answer=_mean,
    cases=_padded,
    mistakes={
        "This is the mean of the shares' means. Count the data of each share: one has fewer, and must weigh less.": (
            lambda shares, counts: jnp.mean(
                jnp.where(_there(shares, counts), shares, 0).sum(axis=1) / counts[:, None], axis=0
            )
        ),
        "Rows that were made up count as data here. Look at counts: row j of share i is real where j < counts[i].": (
            lambda shares, counts: shares.mean(axis=(0, 1))
        ),
        "The sum is right, and it was divided by all rows. Count those that are there: counts.sum().": (
            lambda shares, counts: (
                jnp.where(_there(shares, counts), shares, 0).sum(axis=(0, 1)) / (shares.shape[0] * shares.shape[1])
            )
        ),
        "0 · NaN is NaN, so a product with a mask lets a made-up row through. "
        "Write jnp.where, and put the 0 there before the sum.": (
            lambda shares, counts: (shares * _there(shares, counts)).sum(axis=(0, 1)) / counts.sum()
        ),
    },
    praise="Right. A sum and a count travel; a mean would have forgotten how many it stands for.",
)
