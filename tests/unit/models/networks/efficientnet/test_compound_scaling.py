"""Compound scaling against the paper's numbers and hand-worked roundings."""

from fractions import Fraction
from itertools import product

import pytest

from conf.compose import compose
from conf.schema import Search
from models.networks.efficientnet.compound_scaling import PAPER, Coefficients, grid, round_channels, round_repeats
from models.networks.efficientnet.variants import VARIANTS, architecture


@pytest.mark.parametrize(
    ("channels", "width", "expected"),
    [
        (32, 1.1, 32),  # 35.2 -> 32, which is more than 0.9 * 35.2 = 31.68
        (40, 1.1, 48),  # 44.0 lies between 40 and 48: half goes up
        (24, 1.2, 32),  # 28.8 -> 32
        (16, 1.4, 24),  # 22.4 -> 24
        (1280, 4.3, 5504),  # L2's head
        (24, 0.25, 8),  # 6 -> 8, the smallest there is
        (16, 0.25, 8),  # 4 -> 8
    ],
)
def test_channels_are_rounded_to_the_nearest_multiple_of_eight(channels: int, width: float, expected: int) -> None:
    assert round_channels(channels, width) == expected


@pytest.mark.parametrize(
    ("channels", "width", "nearest", "expected"),
    [
        (72, 0.25, 16, 24),  # 18: 16 is less than 16.2
        (40, 0.25, 8, 16),  # 10: 8 is less than 9
        (112, 0.1, 8, 16),  # 11.2: 8 is less than 10.08
        (24, 0.7, 16, 16),  # 16.8: 16 is more than 15.12
    ],
)
def test_channels_never_shrink_by_more_than_a_tenth(channels: int, width: float, nearest: int, expected: int) -> None:
    assert int(channels * width + 4) // 8 * 8 == nearest
    assert round_channels(channels, width) == expected


def test_width_one_leaves_channels_alone() -> None:
    assert round_channels(100, 1.0) == 100


@pytest.mark.parametrize(
    ("repeats", "depth", "expected"),
    [(1, 1.1, 2), (2, 1.1, 3), (4, 1.1, 5), (1, 3.1, 4), (4, 3.1, 13), (4, 0.2, 1), (3, 1.0, 3)],
)
def test_repeats_are_rounded_up(repeats: int, depth: float, expected: int) -> None:
    assert round_repeats(repeats, depth) == expected


# Channels, repeats, head, stem of each member. Source: facts, section 1.3 (timm and torchvision agree).
FAMILY = {
    "b0": ([16, 24, 40, 80, 112, 192, 320], [1, 2, 2, 3, 3, 4, 1], 1280, 32),
    "b1": ([16, 24, 40, 80, 112, 192, 320], [2, 3, 3, 4, 4, 5, 2], 1280, 32),
    "b2": ([16, 24, 48, 88, 120, 208, 352], [2, 3, 3, 4, 4, 5, 2], 1408, 32),
    "b3": ([24, 32, 48, 96, 136, 232, 384], [2, 3, 3, 5, 5, 6, 2], 1536, 40),
    "b4": ([24, 32, 56, 112, 160, 272, 448], [2, 4, 4, 6, 6, 8, 2], 1792, 48),
    "b5": ([24, 40, 64, 128, 176, 304, 512], [3, 5, 5, 7, 7, 9, 3], 2048, 48),
    "b6": ([32, 40, 72, 144, 200, 344, 576], [3, 6, 6, 8, 8, 11, 3], 2304, 56),
    "b7": ([32, 48, 80, 160, 224, 384, 640], [4, 7, 7, 10, 10, 13, 4], 2560, 64),
    "b8": ([32, 56, 88, 176, 248, 424, 704], [4, 8, 8, 11, 11, 15, 4], 2816, 72),
    "l2": ([72, 104, 176, 344, 480, 824, 1376], [6, 11, 11, 16, 16, 22, 6], 5504, 136),
}


@pytest.mark.parametrize("member", FAMILY)
def test_every_member_has_the_published_channels_and_repeats(member: str) -> None:
    arch = architecture(VARIANTS[f"efficientnet_{member}"])
    scaled = ([s.channels for s in arch.stages], [s.repeats for s in arch.stages], arch.head, arch.stem)
    assert scaled == FAMILY[member]


def test_the_paper_s_coefficients_cost_almost_twice_the_flops() -> None:
    assert Fraction("1.2") * Fraction("1.1") ** 2 * Fraction("1.15") ** 2 == Fraction("1.92027")
    assert PAPER.cost == pytest.approx(1.92027, abs=1e-12)


def test_the_default_grid_has_just_the_fifteen_points_within_the_budget() -> None:
    search = Search()
    points = grid(search.alpha, search.beta, search.gamma, search.budget, search.tolerance)
    exact = [
        tuple(map(float, (a, b, g)))
        for a, b, g in product(
            ("1.0", "1.1", "1.2", "1.3", "1.4"), ("1.0", "1.1", "1.2"), ("1.0", "1.1", "1.15", "1.2", "1.3")
        )
        if abs(Fraction(a) * Fraction(b) ** 2 * Fraction(g) ** 2 - 2) <= Fraction("0.1")
    ]
    assert [(p.alpha, p.beta, p.gamma) for p in points] == exact
    assert len(points) == 15
    assert PAPER in points


def test_the_laptop_s_grid_has_five_points_and_the_paper_s_is_one() -> None:
    search = compose(["profile=laptop"]).search
    points = grid(search.alpha, search.beta, search.gamma, search.budget, search.tolerance)
    assert points == [
        Coefficients(1.0, 1.1, 1.3),
        Coefficients(1.0, 1.2, 1.15),
        Coefficients(1.2, 1.0, 1.3),
        Coefficients(1.2, 1.1, 1.15),
        Coefficients(1.4, 1.2, 1.0),
    ]


def test_a_point_on_the_edge_of_the_tolerance_is_not_lost_by_its_last_bit() -> None:
    assert 1.2 * 1.1**2 != 1.452
    assert grid([1.2], [1.1], [1.0], budget=1.452, tolerance=0.0) == [Coefficients(1.2, 1.1, 1.0)]
    assert grid([1.2], [1.1], [1.0], budget=1.4521, tolerance=0.0) == []
