"""Keys of jobs: what is asked for again is found again, also by a later version of this code."""

from dataclasses import replace

from conf import schema
from models.results import ShardResult
from tasks.train import evaluate_job, train_job

SHARDS = ShardResult("x", "file:///m", "0" * 64, 10, 4096, 64, 64, 1, True)
CONFIG = schema.Config(profile="paper")


def key(model: schema.Model) -> str:
    return train_job(replace(CONFIG, model=model), schema.Data("x", "folder"), schema.Recipe(), SHARDS, None).key


def test_a_job_of_before_keeps_its_key() -> None:
    """Of commit c6376bc. A new setting must be marked LATER in the schema, or finished jobs are trained again."""
    assert key(schema.Model()) == "train-b0-x-e88d8cbb21"


def test_every_setting_of_the_network_away_from_its_default_changes_the_key() -> None:
    models = (
        schema.Model(),
        schema.Model(padding="same"),
        schema.Model(bn_epsilon=1e-5),
        schema.Model(preprocessing="lite"),
    )
    assert len({key(model) for model in models}) == len(models)
    weights = ("file:///w", "1" * 64)
    assert len({evaluate_job(CONFIG, model, SHARDS, weights, "m/1").key for model in models}) == len(models)
