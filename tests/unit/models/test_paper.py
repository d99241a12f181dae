"""The published numbers against the reference sheet of the project, where that sheet is at hand."""

from dataclasses import astuple
from typing import Any

import pytest
from checkout import ROOT

from conf import compose
from models import paper
from models.experiments import scaling_study

SHEET = ROOT.parent / "shared" / "reference" / "paper.yaml"


@pytest.fixture(scope="module")
def sheet() -> dict[str, Any]:
    if not SHEET.is_file():
        pytest.skip("the reference sheet ../shared/reference/paper.yaml is not here")
    yaml = pytest.importorskip("yaml")
    loaded: dict[str, Any] = yaml.safe_load(SHEET.read_text(encoding="utf-8"))
    return loaded


def _sheet_name(printed: str) -> str:
    """``EfficientNet-B3`` and ``B3`` are ``efficientnet_b3`` in the code; rivals keep their name."""
    if printed.startswith("EfficientNet-"):
        return printed.lower().replace("-", "_")
    return f"efficientnet_{printed.lower()}" if len(printed) == 2 and printed[0] == "B" else printed


def test_every_number_of_table_2_is_the_sheet_s(sheet: dict[str, Any]) -> None:
    expected = [
        (
            _sheet_name(row["model"]),
            row["top1"],
            row["top5"],
            row["params_m"],
            row["flops_b"],
            f"efficientnet_{row['group']}",
            row["ratio_params"],
            row["ratio_flops"],
            row.get("ours", False),
        )
        for row in sheet["table2_imagenet"]["rows"]
    ]
    actual = [
        (
            row.name,
            row.top1,
            row.top5,
            row.params_m,
            row.flops_b,
            row.group,
            row.params_ratio,
            row.flops_ratio,
            row.ours,
        )
        for row in paper.TABLE2
    ]
    assert actual == expected


def test_every_number_of_table_5_is_the_sheet_s(sheet: dict[str, Any]) -> None:
    expected = []
    for row in sheet["table5_transfer"]["rows"]:
        four = [row[key] for key in ("public", "ours_public", "sota", "ours_sota")]
        quoted = [(_sheet_name(cell["model"]), cell["acc"], cell["params_m"]) for cell in four]
        expected.append((row["dataset"], quoted, row["ours_public"]["ratio"], row["ours_sota"]["ratio"]))
    actual = []
    for ours in paper.TABLE5:
        cells = (ours.public, ours.ours_public, ours.best, ours.ours_best)
        quoted = [(cell.name, cell.accuracy, cell.params_m) for cell in cells]
        actual.append((ours.data, quoted, ours.public_ratio, ours.best_ratio))
    assert actual == expected
    means = sheet["table5_transfer"]["geo_mean_param_ratio"]
    assert (means["vs_public"], means["vs_reported"]) == paper.TABLE5_GEO_MEAN_RATIOS


@pytest.mark.slow
def test_every_number_of_table_6_is_the_sheet_s_and_the_sets_are_configured_by_it(sheet: dict[str, Any]) -> None:
    rows = sheet["table6_transfer_datasets"]["rows"]
    metrics = {"top1": "top-1", "mean_per_class": "mean per class"}
    expected = {
        row["dataset"]: (row["train"], row.get("true_test_size", row["test"]), row["classes"], metrics[row["metric"]])
        for row in rows
    }
    table = paper.TABLE6_BY_SOURCE
    assert {
        row.data: (row.train, row.misprinted or row.test, row.classes, row.metric) for row in table.values()
    } == expected
    assert {name: row.data for name, row in table.items()} == {n: r.data for n, r in paper.TABLE5_BY_SOURCE.items()}
    for name, row in table.items():
        assert compose.compose([f"data={name}"]).data.metric == row.metric


def test_the_compound_coefficients_are_the_sheet_s(sheet: dict[str, Any]) -> None:
    scaling = sheet["compound_scaling"]
    assert (scaling["alpha"], scaling["beta"], scaling["gamma"]) == (paper.ALPHA, paper.BETA, paper.GAMMA)
    product = paper.ALPHA * paper.BETA**2 * paper.GAMMA**2
    assert product == pytest.approx(scaling["product_at_optimum"], abs=1e-5)
    assert abs(product - paper.PRODUCT) < 0.1


def test_table_2_has_the_eight_networks_in_order_and_sixteen_rivals() -> None:
    assert [row.name for row in paper.EFFICIENTNETS] == [f"efficientnet_b{phi}" for phi in range(8)]
    assert len(paper.RIVALS) == 16
    assert len({row.name for row in paper.TABLE2}) == len(paper.TABLE2) == 24


def test_the_printed_ratios_follow_from_the_printed_sizes() -> None:
    """To the rounding of the print: sizes have two digits, so their ratio may be off by several percent."""
    for row in paper.TABLE2:
        ours = paper.table2(row.group)
        assert row.params_m / ours.params_m == pytest.approx(row.params_ratio, rel=0.06), row.name
        if row.flops_b is not None and ours.flops_b is not None:
            assert row.flops_b / ours.flops_b == pytest.approx(row.flops_ratio, rel=0.09), row.name


def test_table2_finds_a_row_by_name_and_says_what_it_has_otherwise() -> None:
    assert paper.table2("efficientnet_b3").top1 == 81.6
    assert paper.table2("ResNet-50").params_m == 26
    with pytest.raises(KeyError, match=r"no network 'efficientnet_b9'; it has efficientnet_b0, ResNet-50"):
        paper.table2("efficientnet_b9")


def test_every_number_of_table_3_and_table_7_is_the_sheet_s(sheet: dict[str, Any]) -> None:
    for actual, key, base in (
        (scaling_study.TABLE3, "table3_scaling_existing", "base"),
        (scaling_study.TABLE7, "table7_cam_models", "model"),
    ):
        rows = sheet[key]["rows"]
        assert len(actual) == len(rows)
        for ours, row in zip(actual, rows, strict=True):
            name = (ours.base, ours.method) if base == "base" else (ours.method,)
            expected = (row["base"], row["method"]) if base == "base" else (row["model"],)
            assert name == expected
            assert (ours.depth, ours.width, ours.resolution) == (row["d"], row["w"], row["r"])
            assert (ours.flops_b, ours.top1) == (row["flops_b"], row["top1"])


def test_what_the_scaled_networks_count_is_the_sheet_s(sheet: dict[str, Any]) -> None:
    counts = sheet["table3_scaling_existing"]["computed_check"]
    keys = {
        "baseline": "baseline",
        "depth": "depth4",
        "width": "width2",
        "resolution": "res448",
        "compound": "compound_stagewise_288",
    }
    for row in scaling_study.TABLE3:
        known = counts["ResNet-50_v1.5" if row.base == "ResNet-50" else row.base]
        expected = known[keys[row.method]]["macs_b"] if row.depth else None
        assert row.counted_b == expected, row
    counts = sheet["table7_cam_models"]["computed_check"]
    assert [row.counted_b for row in scaling_study.TABLE7] == [
        counts[row.method]["macs_b"] for row in scaling_study.TABLE7
    ]


def test_the_settings_of_figures_3_and_4_are_the_sheet_s(sheet: dict[str, Any]) -> None:
    for dimension, points in scaling_study.FIGURE3.items():
        drawn = sheet["fig3_single_dimension"][dimension]
        assert points == tuple(zip(drawn["labels"], drawn["computed_macs_b"], strict=True))
    lines = sheet["fig4_width_under_settings"]["lines"]
    assert tuple((line["d"], line["r"]) for line in lines) == scaling_study.FIGURE4


def test_every_number_of_tables_4_and_6_is_the_sheet_s(sheet: dict[str, Any]) -> None:
    expected = [
        (
            row["baseline"],
            row["baseline_top1"],
            row["baseline_s"],
            _sheet_name(row["ours"]),
            row["ours_top1_printed"],
            row["ours_s"],
            row["speedup"],
        )
        for row in sheet["table4_latency"]["pairs"]
    ]
    assert [astuple(row) for row in paper.TABLE4] == expected
    for row in paper.TABLE4:
        assert row.rival_s / row.ours_s == pytest.approx(row.speedup, rel=0.02)
    sets = [
        (row["dataset"], row["train"], row["test"], row["classes"], row["metric"].replace("top1", "top-1"))
        for row in sheet["table6_transfer_datasets"]["rows"]
    ]
    ours = [(row.data, row.train, row.test, row.classes, row.metric.replace(" ", "_")) for row in paper.TABLE6]
    assert ours == sets
    assert [row.data for row in paper.TABLE6] == [row.data for row in paper.TABLE5]


def test_every_data_set_of_table_6_has_a_configuration() -> None:
    assert {row.key for row in paper.TABLE6} <= set(compose.options("data"))
