"""`effnet plan` counts the networks that are trained, and does so without torch."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
import yaml
from checkout import ROOT

from conf import compose
from models.data.sources import catalog
from models.networks.build import build_model
from tasks import plan


def test_the_counts_are_those_of_the_networks_that_the_readme_s_run_trained() -> None:
    trained = re.findall(
        r"^\| (B\d) \| ([\d,]+) \| ([\d,]+) \| (\d+) \|", (ROOT / "README.md").read_text(), re.MULTILINE
    )
    table = list(plan.lines(compose.compose(["profile=laptop"])))
    assert table[0] == "mnist5k: 10 classes"
    rows = [line.split()[:4] for line in table[4:]]
    assert [(f"B{name[-1]}", params, adds, px) for name, px, params, adds in rows] == trained


@pytest.mark.parametrize("name", ["digits", "mnist5k"])
def test_the_classes_are_those_of_the_shards(name: str) -> None:
    config = compose.compose([f"data={name}", "variants=[efficientnet_b0]"])
    network = build_model(config.model, len(catalog.open_source(config.data).classes))
    params = sum(parameter.numel() for parameter in network.parameters())
    assert f" {params:,} " in list(plan.lines(config))[4]


def test_every_data_set_but_those_of_users_has_its_number_of_classes() -> None:
    files = (ROOT / "conf/data").glob("*.yaml")
    sources = {yaml.safe_load(path.read_text()).get("source", path.stem) for path in files}
    assert {name for name in sources if not catalog.DATA_SETS[name].classes} == {"folder", "webdataset"}


def test_the_classes_of_a_folder_are_assumed_and_the_table_says_so() -> None:
    first, *_ = plan.lines(compose.compose(["data=folder", "variants=[efficientnet_b0]"]))
    assert first == "folder: 1,000 classes, assumed: the true number is known once the data are sharded"


def test_the_costs_of_a_reproduction_are_summed_and_priced() -> None:
    config = compose.compose(["profile=paper", "variants=[efficientnet_b0,efficientnet_b4]", "transfer.sets=[pets]"])
    lines = list(plan.describe_costs(config, 2.5))
    rows = {line[:27].strip(): line[27:].replace(",", "").split() for line in lines[2:7]}
    assert rows["train efficientnet_b0"][:3] == ["1", "107100", "438681600"]  # 350 epochs of 306 steps of 4,096 images
    assert float(rows["train efficientnet_b0"][3]) == pytest.approx(438_681_600 / 4930 / 3600, abs=1e-3)
    hours = sum(float(row[3]) for row in rows.values())
    total = next(line for line in lines if line.startswith("in total")).replace(",", "")
    measured = re.search(r"in total +([\d.]+) H200-hours ([\d.]+) at 2.5 an hour; or [\d.]+ CPU core-hours; ", total)
    assert measured is not None, total
    assert float(measured[1]) == pytest.approx(hours, abs=0.1)
    assert float(measured[2]) == pytest.approx(2.5 * hours, rel=1e-3)
    assert "at" not in next(line for line in plan.describe_costs(config, None) if line.startswith("in total")).split()


def test_a_folder_has_no_costs_before_it_is_sharded_and_the_plan_says_so() -> None:
    lines = list(plan.describe_costs(compose.compose(["data=folder", "variants=[efficientnet_b0]"]), None))
    assert "folder: the number of its images is known once it is sharded" in lines
    assert not any(line.startswith("train ") for line in lines)


def test_a_plan_of_the_family_does_not_wait_for_torch() -> None:
    code = "import sys\nfrom flows.__main__ import main\nmain(['plan'])\nprint('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1:] == ["False"], done.stdout + done.stderr
