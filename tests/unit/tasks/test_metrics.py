"""Names of metrics in MLflow."""

from tasks.metrics import EPOCH_METRICS, RESULT_METRICS, split_result

RESULT = {"top1": 95.0, "top5": 99.0, "minival_top1": 0.0, "minutes": 2.0, "steps": 7, "params": 9, "n_val": 100}


def test_a_number_that_never_changes_is_a_tag_and_no_metric() -> None:
    metrics, tags = split_result({**RESULT, "n_minival": 50, "minival_top1": 90.0, "weights_uri": "s3://w"})
    assert metrics == {"val/top1": 95.0, "val/top5": 99.0, "system/minutes": 2.0}
    assert tags.pop("mlflow.note.content") == "95.00 % top-1 on 100 val images (± 4.27, 95 %)"
    assert tags == {"params": "9", "steps": "7", "minival_top1": "90.00", "val_n": "100", "minival_n": "50"}


def test_the_charts_of_a_run_begin_with_its_accuracy() -> None:
    names = {*EPOCH_METRICS.values(), *RESULT_METRICS.values()}
    groups = {name.partition("/")[0] for name in names}
    assert sorted(groups - {"system"}) == ["minival", "speed", "train", "val"]  # MLflow's order


def test_a_calibration_error_is_a_metric_if_it_was_measured() -> None:
    assert split_result({**RESULT, "calibration_error": 3.5})[0]["val/calibration_error"] == 3.5
    assert "val/calibration_error" not in split_result({**RESULT, "calibration_error": None})[0]


def test_a_job_that_selected_nothing_on_minival_has_no_accuracy_there() -> None:
    assert "minival_top1" not in split_result({**RESULT, "n_minival": 0})[1]
