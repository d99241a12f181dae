"""Solar cells: labels of the package's table, a folder or the installed package, and what is refused."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from made_archives import data_settings, photo, set_counts, write_archive, write_tree

from infra.errors import ConfigError, DataError
from models.data.sources.catalog import open_source
from models.data.sources.listing import TRAIN

PROBABILITIES = ("1.0", "0.0", "0.3333333333333333", "0.6666666666666666")
TREE = {
    "data/labels.csv": "".join(
        f"images/cell{i:04d}.png  {probability}  mono\n" for i, probability in enumerate(PROBABILITIES)
    ).encode()
} | {f"data/images/cell{i:04d}.png": photo(i, "PNG") for i in range(4)}


def test_a_cell_is_defective_above_one_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_counts(monkeypatch, "elpv", {TRAIN: 4})
    source = open_source(data_settings("elpv", write_tree(tmp_path, TREE)))
    assert (source.classes, source.own_val) == (("functional", "defective"), False)
    assert source.names.tolist() == [f"cell{i:04d}.png".encode() for i in range(4)]
    np.testing.assert_array_equal(source.labels, [1, 0, 0, 1])
    assert source.read(2) == TREE["data/images/cell0002.png"]
    archived = open_source(data_settings("elpv", write_archive(tmp_path / "elpv.tar", TREE)))
    assert archived.digest == source.digest


def test_without_a_path_the_installed_package_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_counts(monkeypatch, "elpv", {TRAIN: 4})
    package = {f"elpv_dataset/{name}": content for name, content in TREE.items()} | {"elpv_dataset/__init__.py": b""}
    monkeypatch.syspath_prepend(str(write_tree(tmp_path, package)))
    monkeypatch.delitem(sys.modules, "elpv_dataset", raising=False)
    assert len(open_source(data_settings("elpv")).labels) == 4
    assert "elpv_dataset" not in sys.modules


def test_missing_images_and_a_damaged_table_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="2,624"):
        open_source(data_settings("elpv", write_tree(tmp_path / "few", TREE)))
    damaged = TREE | {"data/labels.csv": TREE["data/labels.csv"] + b"images/cell0004.png much mono\n"}
    with pytest.raises(DataError, match=r"labels.csv: line 5 is not IMAGE PROBABILITY TYPE"):
        open_source(data_settings("elpv", write_tree(tmp_path / "damaged", damaged)))


@pytest.mark.skipif(find_spec("elpv_dataset") is None, reason="the extra elpv is not installed")
def test_the_published_set_has_its_published_counts() -> None:
    source = open_source(data_settings("elpv"))
    assert np.bincount(source.labels).tolist() == [1_508 + 295, 106 + 715]


@pytest.mark.skipif(find_spec("elpv_dataset") is not None, reason="the extra elpv is installed")
def test_without_the_package_the_message_says_what_to_install() -> None:
    with pytest.raises(ConfigError, match=r"pip install 'effnet\[elpv\]' \(CC BY-NC-SA 4.0"):
        open_source(data_settings("elpv"))
