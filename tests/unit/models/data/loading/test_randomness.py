"""Per-sample random numbers: identical for every reader, with the quality of a generator."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.data.loading.randomness import uniforms

MASK = 2**64 - 1
GOLDEN = 0x9E3779B97F4A7C15


def mix(z: int) -> int:
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & MASK
    return z ^ (z >> 31)


def one(seed: int, epoch: int, sample: int, draw: int) -> float:
    """Computes the same number with Python integers."""
    key = mix(mix(seed + GOLDEN & MASK) + epoch * GOLDEN & MASK)
    bits = mix(mix(key + sample * GOLDEN & MASK) + (draw + 1) * GOLDEN & MASK)
    return (bits >> 11) * 2.0**-53


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**34), st.integers(0, 1000), st.lists(st.integers(0, 2**40), min_size=1, max_size=5))
def test_the_numbers_are_those_of_plain_integers(seed: int, epoch: int, ids: list[int]) -> None:
    expected = [[one(seed, epoch, sample, draw) for draw in range(4)] for sample in ids]
    assert uniforms(seed, epoch, np.array(ids), 4).tolist() == expected


def test_the_mixing_is_splitmix64() -> None:
    # Source: the first outputs of SplitMix64 from state 1234567 (Rosetta Code, Pseudo-random numbers/Splitmix64).
    outputs = [mix(1234567 + n * GOLDEN & MASK) for n in (1, 2, 3)]
    assert outputs == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_the_numbers_of_a_sample_do_not_depend_on_the_batch() -> None:
    whole = uniforms(3, 1, np.arange(100), 6)
    assert np.array_equal(uniforms(3, 1, np.array([70, 5]), 6), whole[[70, 5]])
    assert np.array_equal(uniforms(3, 1, np.arange(100), 2), whole[:, :2])


@pytest.mark.parametrize("other", [(1, 0, 0), (0, 1, 0), (0, 0, 1)], ids=["seed", "epoch", "sample"])
def test_numbers_of_neighbouring_keys_are_uncorrelated(other: tuple[int, int, int]) -> None:
    seed, epoch, step = other
    ids = np.arange(5000)
    first, second = uniforms(0, 0, ids, 4), uniforms(seed, epoch, ids + step, 4)
    for draw in range(4):
        assert abs(np.corrcoef(first[:, draw], second[:, draw])[0, 1]) < 0.05
    assert len(np.intersect1d(first[:, 0], second[:, 1])) == 0


def test_the_numbers_are_uniform() -> None:
    drawn = uniforms(7, 3, np.arange(20_000), 5)
    assert drawn.min() >= 0
    assert drawn.max() < 1
    for draw in range(5):
        counts, _ = np.histogram(drawn[:, draw], bins=20, range=(0, 1))
        assert ((counts - 1000) ** 2 / 1000).sum() < 45.3  # chi-squared, 19 degrees of freedom, p = 0.0006
    assert abs(np.corrcoef(drawn.T) - np.eye(5)).max() < 0.03


def test_no_samples_and_no_draws_are_fine() -> None:
    assert uniforms(0, 0, np.zeros(0, np.int64), 3).shape == (0, 3)
    assert uniforms(0, 0, np.arange(3), 0).shape == (3, 0)
