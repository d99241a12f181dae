"""When training continues, rewinds, and gives up."""

import math

import pytest

from models.training.supervision.health import Health


def after(*losses: float) -> Health:
    health = Health()
    for loss in losses:
        assert health.observe(loss, math.isfinite(loss)) is None
    return health


def test_four_bad_steps_in_a_row_are_borne_and_the_fifth_is_not() -> None:
    health = after(1.0, *[math.nan] * 4)
    assert health.observe(math.nan, False) == "5 steps in a row whose loss or gradients are not finite"
    assert health.may_rewind(0)


def test_a_good_step_ends_the_row() -> None:
    assert after(*[math.nan] * 4, 1.0, *[math.nan] * 4).bad_in_row == 4


def test_an_infinite_gradient_under_a_finite_loss_is_bad_too() -> None:
    health = Health()
    health.observe(1.0, False)
    assert (health.bad_in_row, health.good_steps) == (1, 0)


def test_a_loss_of_more_than_ten_times_its_average_sends_back() -> None:
    trouble = after(*[2.0] * 25).observe(20.1, True)
    assert trouble == "a loss of 20.1, more than 10 times its average of 2"


@pytest.mark.parametrize("losses", [[2.0] * 19 + [50.0], [2.0] * 25 + [19.9]])
def test_a_young_average_accuses_nobody_and_ten_times_is_allowed(losses: list[float]) -> None:
    after(*losses)


def test_a_mislabelled_image_among_learned_ones_is_no_explosion() -> None:
    learned = after(*[0.005] * 100)
    assert learned.observe(16.0 / 32, True) is None  # a batch of 32 in which one image has a probability of 1e-7
    assert learned.observe(2.1, True) == "a loss of 2.1, more than 10 times its average of 0.0149"


def test_each_way_back_halves_the_rate_and_there_are_two() -> None:
    health = after(1.0).rewound(20)
    assert (health.rewinds, health.rate_scale) == (1, 0.5)
    assert health.may_rewind(21)
    health = health.rewound(21)
    assert (health.rate_scale, health.may_rewind(30)) == (0.25, False)


def test_after_a_way_back_the_average_still_accuses() -> None:
    health = after(*[2.0] * 25).rewound(20)
    assert health.observe(2.5, True) is None
    assert health.observe(21.0, True) is not None


def test_where_going_back_brought_training_no_further_it_is_not_tried_again() -> None:
    health = after(1.0).rewound(20)
    assert not health.may_rewind(20)
