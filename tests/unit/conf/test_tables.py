"""Tables of settings, and lists of them: every mistake in one line, in the words of the settings."""

from __future__ import annotations

import pytest

from conf import compose
from conf.compose import OverrideError


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["scaling.points=[{width:2}]"], "scaling.points[0] needs network, as {network: VALUE}"),
        (
            ["runtime.stop_below=[{network:b0,epoch:x}]"],
            "runtime.stop_below[0].epoch must be a whole number, is 'x'; runtime.stop_below[0] needs data and top1, as "
            "{data: VALUE, top1: VALUE}",
        ),
        (
            ["scaling.points=[{network:b0},{netwrok:b1}]"],
            "scaling.points[1] has no setting 'netwrok'; did you mean 'network'?; scaling.points[1] needs network, as "
            "{network: VALUE}",
        ),
        (["explain.models=[b0]"], "explain.models[0] takes a table, as {network: VALUE}, is 'b0'"),
        (
            ["explain.models=[{zzz:1}]"],
            "explain.models[0] has no setting 'zzz'; it has network, width, depth, resolution, r",
        ),
        (["explain.models=[{depth:[1]}]"], "explain.models[0].depth must be a number, is [1]"),
        (["explain.models=[{depth:null}]"], "explain.models[0].depth must be a number, is null"),
        (["data.augment={eval_crop_pad:1.5}"], "data.augment.eval_crop_pad must be a whole number, is 1.5"),
        (["launch.slurm={options:x}"], "launch.slurm.options takes a list, is 'x'"),
        (["runtime={ledger:2}"], "runtime.ledger must be true or false, is 2"),
        (["nightly={alerts:{email:x}}"], "nightly.alerts.email takes a table, as {host: VALUE}, is 'x'"),
        (["explain={models:[{x:1}],count:a}", "data.limit=x"], "explain.count must be a whole number, is 'a'"),
        (["explain={models:[{x:1}],count:a}", "data.limit=x"], "data.limit must be a whole number, is 'x'"),
        (["scaling.points=[{network=b0}]"], "cannot be read: give it as scaling.points=[{KEY: VALUE}], with quotes"),
        (["services={s3=aws}"], "cannot be read: give it as services={KEY: VALUE}, with quotes"),
        (["recipe={epochs:2}"], "settings inside are given one by one, as recipe.epochs=VALUE"),
        (["profile={}"], "no profile named '{}'; choices:"),
        (["scaling.points=[{network:b0,width:1e400}]"], "scaling.points[0].width must be a finite number, is inf"),
        (["explain.models=[{network:b0,depth:inf}]"], "explain.models[0].depth must be a finite number, is inf"),
    ],
)
def test_a_mistake_in_a_table_names_setting_value_and_what_is_allowed(words: list[str], message: str) -> None:
    with pytest.raises(OverrideError) as refusal:
        compose.compose(words)
    assert message in str(refusal.value)
    assert "OmegaConf" not in str(refusal.value)
    assert "tructured" not in str(refusal.value)


def test_tables_as_omegaconf_takes_them_are_taken() -> None:
    words = [
        "scaling.points=[{network: b0, width: '2', dimension: width},{network:b1}]",
        "explain.models=[{registered:b0@champion},{}]",
        "data.augment={eval_crop_pad:32,flip_prob:1}",
        "runtime={ledger:yes,micro_batches:null}",
        "launch={slurm:{partition:3,options:[--exclusive]}}",
    ]
    config = compose.compose(words)
    assert [(point.network, point.width) for point in config.scaling.points] == [("b0", 2.0), ("b1", 1.0)]
    assert (config.data.augment.eval_crop_pad, config.data.augment.flip_prob) == (32, 1.0)
    assert (config.runtime.ledger, config.launch.slurm.partition, len(config.explain.models)) == (True, "3", 2)
