"""Architecture search: its space, objective and Pareto front."""

import itertools
import random

import pytest

from conf import schema
from models.experiments.architecture_space import OPERATIONS, choices, pareto, point, reward, size, stages
from models.networks.build import compute_cost, resolve_architecture
from models.networks.efficientnet.block_strings import decode, encode
from models.networks.efficientnet.variants import B0_STAGES


def drawn(seed: int) -> dict[str, str | int | float]:
    rng = random.Random(seed)
    return {name: rng.choice(options) for name, options in choices().items()}


def test_b0_is_a_point_of_the_space() -> None:
    ours = point(B0_STAGES)
    assert stages(ours) == B0_STAGES
    assert all(ours[name] in options for name, options in choices().items())


def test_each_stage_has_the_options_of_mnasnet_around_mobilenet_v2() -> None:
    options = choices()
    assert [options[f"stage{n}_channels"] for n in range(2, 9)] == [
        (16, 24),
        (24, 32),
        (24, 32, 40),
        (48, 64, 80),
        (72, 96, 112, 120),
        (120, 160, 192, 200),
        (240, 320, 400),
    ]
    assert [options[f"stage{n}_layers"] for n in range(2, 9)] == [
        (1, 2),
        (1, 2, 3),
        (2, 3, 4),
        (3, 4, 5),
        (2, 3, 4),
        (2, 3, 4),
        (1, 2),
    ]
    # By hand: 32 for operation, kernel, gate and residual in each stage, times channels, times layers.
    assert size() == 32**7 * (2 * 2 * 3 * 3 * 4 * 4 * 3) * (2 * 3 * 3 * 3 * 3 * 3 * 2)


@pytest.mark.parametrize("seed", range(20))
def test_every_point_is_a_network_whose_blocks_come_back_from_their_text(seed: int) -> None:
    table = stages(drawn(seed))
    assert decode(encode(table)) == table
    model = schema.Model(width=0.25, depth=0.2, resolution=0.107142857, blocks=encode(table))
    assert compute_cost(model, 10)[1] > 0
    assert resolve_architecture(schema.Model(blocks=encode(table))).stages == table


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_operation_is_in_the_count_of_its_stage(operation: str) -> None:
    # One layer of stage 5, 40 -> 80 channels, 28 -> 14 px, kernel 3, no gate; everything else is B0's.
    choice = point(B0_STAGES) | {"stage5_op": operation, "stage5_layers": 3, "stage5_se": 0.0}
    one, two = (compute_cost(schema.Model(blocks=encode(stages(choice | {"stage5_layers": n}))), 10)[1] for n in (3, 4))
    per_pixel = {
        "conv": 9 * 80 * 80 + 80 * 80,
        "dconv": 9 * 80 + 80 * 80,
        "mbconv3": 2 * 80 * 240 + 9 * 240,
        "mbconv6": 2 * 80 * 480 + 9 * 480,
    }[operation]
    assert two - one == per_pixel * 14 * 14


def test_points_whose_residual_is_nowhere_possible_are_one_network() -> None:
    with_skip, without = (point(B0_STAGES) | {"stage2_skip": skip} for skip in ("identity", "none"))
    assert stages(with_skip) == stages(without)
    assert stages(point(B0_STAGES) | {"stage4_skip": "none"}) != B0_STAGES


def test_the_reward_is_the_paper_s() -> None:
    assert reward(77.1, 400_000_000, 400e6, -0.07) == 77.1
    # MnasNet's rule: at twice the cost, 5 % more accuracy is worth the same.
    assert reward(1.05, 800, 400, -0.07) == pytest.approx(1.0, abs=0.001)
    assert reward(77.1, 385_814_752, 400e6, -0.07) == pytest.approx(77.1 * (400 / 385.814752) ** 0.07)


def test_the_front_is_what_nothing_else_beats() -> None:
    assert pareto([(90.0, 100), (80.0, 50), (85.0, 100), (70.0, 60), (90.0, 100), (80.0, 40)]) == [
        True,
        False,
        False,
        False,
        True,
        True,
    ]


@pytest.mark.parametrize("seed", range(5))
def test_the_front_is_optuna_s(seed: int) -> None:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    rng = random.Random(seed)
    points = [(float(rng.randrange(20)), rng.randrange(20)) for _ in range(30)]
    study = optuna.create_study(directions=["maximize", "minimize"])
    for values in points:
        study.add_trial(optuna.create_trial(values=list(values)))
    assert {trial.number for trial in study.best_trials} == set(itertools.compress(range(30), pareto(points)))
