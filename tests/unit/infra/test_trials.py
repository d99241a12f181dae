"""The database of proposals: real SQLite files, killed and shared."""

import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from infra import trials as database
from infra.errors import ConfigError, TransientError
from infra.trials import Trials, open_trials

CHOICES = {"kernel": (3, 5), "layers": (1, 2, 3, 4), "op": ("conv", "mbconv3", "mbconv6")}


def opened(folder: Path, sampler: str = "tpe", seed: int = 0, name: str = "search") -> Trials:
    url = f"sqlite:///{folder}/trials.db"
    return open_trials(url, name, directions=("maximize", "minimize"), sampler=sampler, startup=3, seed=seed)


def trained(trials: Trials, number: int) -> list[dict[str, object]]:
    """Asks and tells some trials; each is as good as it is deep, and as dear."""
    points = []
    for _ in range(number):
        trial = database.ask(trials, CHOICES)
        database.complete(trials, trial, (trial.params["layers"], trial.params["kernel"]), {"blocks": ["x"]})
        points.append(dict(trial.params))
    return points


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["tpe", pytest.param("nsga2", marks=pytest.mark.slow)])
def test_a_search_begun_again_in_another_process_s_place_proposes_what_an_undisturbed_one_does(
    tmp_path: Path, sampler: str
) -> None:
    undisturbed = trained(opened(tmp_path, sampler, name="one"), 9)
    in_parts = [point for part in (4, 1, 4) for point in trained(opened(tmp_path, sampler, name="two"), part)]
    assert undisturbed == in_parts
    other = trained(opened(tmp_path, sampler, seed=1, name="three"), 9)
    assert other[:3] not in (undisturbed[:3], undisturbed[1:4])


@pytest.mark.slow
def test_a_point_of_one_s_own_comes_first_and_once(tmp_path: Path) -> None:
    point = {"kernel": 5, "layers": 4, "op": "conv"}
    for _ in range(2):
        database.enqueue(opened(tmp_path), point)
    trials = opened(tmp_path)
    assert trained(trials, 1) == [point]
    assert [each.state for each in database.list_trials(trials)] == ["complete"]


def test_every_end_of_a_trial_is_known_with_its_facts(tmp_path: Path) -> None:
    trials = opened(tmp_path)
    for _ in range(4):
        database.ask(trials, CHOICES)
    first, second, third = (database.ask(trials, CHOICES) for _ in range(3))
    database.complete(trials, first, (90.0, 100), {"n": 500})
    database.refuse(trials, second, {"multiply_adds": 0.5}, {"reason": "too dear"})
    database.fail(trials, third, {"reason": "diverged"})
    found = database.list_trials(trials)
    assert [each.state for each in found] == ["running"] * 4 + ["complete", "refused", "failed"]
    assert [each.facts for each in found[4:]] == [{"n": 500}, {"reason": "too dear"}, {"reason": "diverged"}]
    assert found[4].point == first.params


@pytest.mark.slow
def test_a_trial_without_a_sign_of_life_is_lost_and_given_out_again_once(tmp_path: Path) -> None:
    dead, living = (database.ask(opened(tmp_path), CHOICES) for _ in range(2))
    trials = opened(tmp_path)
    now = time.time() + database.GRACE_S
    living.set_user_attr("beat", now)
    assert database.find_lost(database.list_trials(trials), now - 1) == []
    assert database.find_lost(database.list_trials(trials), now + 1) == [dead.number]
    for _ in range(2):  # two machines that both noticed
        database.requeue(opened(tmp_path), dead.number)
    assert [each.state for each in database.list_trials(trials)] == ["abandoned", "running", "waiting"]
    assert trained(trials, 1) == [dead.params]
    database.record_heartbeat(trials, dead)  # it was only slow: too late, and no error
    database.complete(trials, dead, (1.0, 1.0), {"blocks": ["x"]})
    assert database.list_trials(trials)[dead.number].state == "abandoned"


@pytest.mark.slow
def test_a_trial_of_a_process_of_this_machine_that_died_is_lost_at_once(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; import sys; sys.path.insert(0, str(Path(sys.argv[1])));"
        "from test_trials import CHOICES, database, opened;"
        "database.ask(opened(Path(sys.argv[2])), CHOICES)"
    )
    subprocess.run([sys.executable, "-c", code, str(Path(__file__).parent), str(tmp_path)], check=True)
    trials = opened(tmp_path)
    database.ask(trials, CHOICES)
    assert database.find_lost(database.list_trials(trials), time.time()) == [0]


@pytest.mark.slow
def test_refused_trials_teach_the_sampler(tmp_path: Path) -> None:
    """Five layers of 40 options are feasible; TPE comes to propose them more often than chance does."""
    space = {"x": tuple(range(40))}
    trials, kept = opened(tmp_path), []
    for _ in range(60):
        trial = database.ask(trials, space)
        excess = trial.params["x"] - 4
        kept.append(excess <= 0)
        if excess > 0:
            database.refuse(trials, trial, {"layers": excess}, {"reason": "deep"})
        else:
            database.complete(trials, trial, (trial.params["x"], trial.params["x"]), {})
    assert sum(kept[30:]) > 2 * 30 * 5 / 40


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("postgresql://me:secret@host/trials", "must hold no password"),
        ("trials.db", "Could not parse"),
        ("nosuch://host/trials", "nosuch"),
    ],
)
def test_an_address_that_is_none_is_one_clear_line(url: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        open_trials(url, "search", directions=("maximize",), sampler="tpe", startup=3, seed=0)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_database_that_is_damaged_is_an_error_of_ours(tmp_path: Path) -> None:
    trials = opened(tmp_path)
    trained(trials, 1)
    with sqlite3.connect(tmp_path / "trials.db") as connection:
        connection.execute("drop table trials")
    with pytest.raises(TransientError, match=r"trials\.db: .*no such table"):
        database.list_trials(trials)
