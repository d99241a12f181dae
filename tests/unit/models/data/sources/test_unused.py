"""Images that cannot be used: what is said where train has none of them, or those of one class."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from made_archives import counts, flat, open_tree, photo, tree

from infra.errors import ConfigError

TIFFS = {f"train/{label}/{i}.tif": photo(i, "TIFF") for label in "ab" for i in range(20)}


@pytest.mark.parametrize("test", [{}, flat("test/")])
def test_a_train_folder_of_another_format_is_said_with_the_setting_that_converts_it(
    test: dict[str, bytes], tmp_path: Path
) -> None:
    files = TIFFS | tree({"val/a": 3, "val/b": 3}) | test
    said = "40 TIFF files (data.convert=true converts them to PNG), first train/a/0.tif"
    with pytest.raises(ConfigError, match=re.escape(said)):
        open_tree(tmp_path, files)
    with pytest.raises(ConfigError, match=re.escape(f"train has no image that can be used ({said}), val/ of 2 class")):
        open_tree(tmp_path, {}, allow_partial=True)
    assert counts(open_tree(tmp_path, {}, convert=True)) == [40, 0, 6]


@pytest.mark.parametrize("count", [3, 20])
def test_a_class_of_train_in_another_format_is_no_data_for_anomaly_detection(count: int, tmp_path: Path) -> None:
    files = {f"train/b/{i}.tif": photo(i, "TIFF") for i in range(count)}
    said = re.escape(f"{count} TIFF files (data.convert=true converts them to PNG), first train/b/0.tif")
    with pytest.raises(ConfigError, match=said) as refused:
        open_tree(tmp_path, files | tree({"train/a": 20, "val/a": 3, "val/b": 3}))
    assert "anomaly" not in str(refused.value)


@pytest.mark.parametrize("count", [4, 12])
def test_a_table_of_held_out_images_alone_trains_nothing(count: int, tmp_path: Path) -> None:
    files = flat("train/", count) | {f"{split}/{split}{i}.jpg": photo(i) for split in ("val", "test") for i in range(6)}
    table = "name,label\n" + "".join(f"val{i}.jpg,{'ab'[i % 2]}\n" for i in range(6))
    said = f"{count} images without a label in train/" if count > 10 else "train has no image that can be used"
    with pytest.raises(ConfigError, match=said):
        open_tree(tmp_path, files | {"val.csv": table.encode()})
