"""The duration of a reproduction that was repeated, on a store of files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import made_parts

from conf import compose
from infra import store
from models.results import FineTunedRow, Summary, VariantRow, result_from
from tasks.reproduction import describe_on_page, keep_first_duration

ROW = made_parts.variant(0) | {"mlflow_run": "ab12"}
REPEATED = Summary(
    wall_s=18.0, jobs=21, jobs_found=21, variants=(result_from(VariantRow, ROW, "row"),), config_sha256="cd"
)
EARLIER = {"wall_s": 505.0, "jobs": 21, "jobs_found": 0, "variants": [ROW], "config_sha256": "ab"}


def test_the_duration_of_the_run_that_did_the_jobs_is_kept_through_repetitions(tmp_path: Path) -> None:
    config = compose.compose([f"storage=file://{tmp_path}"])
    uri = f"file://{tmp_path}/reports/{config.profile}/summary.json"
    assert keep_first_duration(config, REPEATED) == REPEATED, "nothing is known of an earlier run"
    store.write_json(uri, EARLIER | {"first_wall_s": None})
    repeated = keep_first_duration(config, REPEATED)
    assert (repeated.wall_s, repeated.first_wall_s) == (18.0, 505.0), "also by a version with other settings"
    store.write_json(uri, EARLIER | {"wall_s": 18.0, "jobs_found": 21, "first_wall_s": 505.0})
    assert keep_first_duration(config, REPEATED).first_wall_s == 505.0


def test_other_trainings_new_jobs_or_a_damaged_summary_keep_nothing(tmp_path: Path) -> None:
    config = compose.compose([f"storage=file://{tmp_path}"])
    uri = f"file://{tmp_path}/reports/{config.profile}/summary.json"
    store.write_json(uri, EARLIER)
    assert keep_first_duration(config, replace(REPEATED, jobs_found=20)).first_wall_s is None
    for other in ({"variants": [ROW | {"mlflow_run": "cd34"}]}, {"jobs": 20}, {"wall_s": 18.0, "jobs_found": 21}):
        store.write_json(uri, EARLIER | other)
        assert keep_first_duration(config, REPEATED).first_wall_s is None
    for damaged in (b"{", b"[]", json.dumps(EARLIER | {"wall_s": "long"}).encode(), b'{"variants": 3}'):
        store.write(uri, damaged)
        assert keep_first_duration(config, REPEATED).first_wall_s is None


def test_the_description_of_a_reproduction_links_to_its_networks_side_by_side() -> None:
    rows = [made_parts.variant(i) | {"name": f"efficientnet_b{i}", "mlflow_run": f"run{i}"} for i in (0, 7)]
    tuned = made_parts.fine_tuned("digits", 95.4, 1000) | {"name": "efficientnet_b7", "mlflow_run": "run8"}
    summary = Summary(
        variants=tuple(result_from(VariantRow, row, "row") for row in rows),
        transfer=(result_from(FineTunedRow, tuned, "row"),),
        missing=("efficientnet_b1: out of *memory*",),
    )
    text = describe_on_page(summary, lambda ids: f"#/{'+'.join(ids)}")
    links, _, first, last, missing = text.splitlines()
    assert links == "[networks side by side](#/run0+run7)", "one fine-tuned network is beside no other"
    assert first.startswith(f"- efficientnet_b0: {rows[0]['top1']:.2f} ± "), first
    assert last.endswith("fine-tuned on digits"), last
    assert missing == "- missing: efficientnet_b1: out of \\*memory\\*"
