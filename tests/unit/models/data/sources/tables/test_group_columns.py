from pathlib import Path

import pytest
from made_archives import data_settings, photo, write_tree

from models.data.sources.catalog import open_source
from models.data.sources.listing import Source

HEADERS = "image_id,{},dx\n"


def open_table(tmp_path: Path, header: str, groups: list[object], **files: bytes) -> Source:
    rows = "".join(f"{i},{group},{'ab'[i % 2]}\n" for i, group in enumerate(groups))
    images = {f"images/{i}.jpg": photo(i) for i in range(len(groups))}
    tree = images | {"labels.csv": (HEADERS.format(header) + rows).encode()} | files
    return open_source(data_settings("folder", write_tree(tmp_path / "set", tree)))


@pytest.mark.parametrize(
    ("header", "what"),
    [("lesion_id", "lesion"), ("PatientID", "patient"), ("subject", "subject"), ("Patient Name", "patient")],
)
def test_images_of_a_patient_that_drawn_splits_divide_are_said(header: str, what: str, tmp_path: Path) -> None:
    """As lesions of HAM10000, which has several images of some."""
    source = open_table(tmp_path, header, [i // 3 for i in range(12)])
    (said,) = source.class_differences
    assert said.startswith("the classes of 12 images are those of labels.csv, dx; labels.csv has 4 different ")
    settings = "data.label_field=dx data.group_level=1"
    assert said.endswith(f"in folders {what.upper()}/IMAGE, {settings} keep them together")


def test_the_settings_that_are_named_keep_the_images_of_each_together(tmp_path: Path) -> None:
    images = {f"images/{i // 3}/{i}.jpg": photo(i) for i in range(90)}
    rows = "".join(f"{i},{i // 3},{'ab'[i % 2]}\n" for i in range(90))
    tree = write_tree(tmp_path / "set", images | {"labels.csv": (HEADERS.format("lesion_id") + rows).encode()})
    shares = {"val_share": 0.3, "minival_share": 0.3}
    source = open_source(data_settings("folder", tree, label_field="dx", group_level=1, **shares))
    splits = {
        (name.decode().split("/")[0], split)
        for name, split in zip(source.names.tolist(), source.split.tolist(), strict=True)
    }
    assert len(splits) == 30
    assert "data.label_field" not in str(source.class_differences)


@pytest.mark.parametrize(
    ("header", "groups"), [("lesion_id", range(12)), ("patient_age", [40, 50] * 6), ("id", [1, 2] * 6)]
)
def test_columns_without_groups_are_not_mentioned(header: str, groups: list[object], tmp_path: Path) -> None:
    assert "data.group_level" not in str(open_table(tmp_path, header, list(groups)).class_differences)


def test_splits_that_the_table_states_are_not_drawn(tmp_path: Path) -> None:
    groups = [f"{i // 3},{'train' if i < 9 else 'test'}" for i in range(12)]
    assert "data.group_level" not in str(open_table(tmp_path, "lesion_id,split", list(groups)).class_differences)
