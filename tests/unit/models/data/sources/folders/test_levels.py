"""Classes at a deeper level of folders, and groups of images that no split divides."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from made_archives import counts, flat, open_tree, photo, tree, write_tree

from conf.schema import Data
from infra.errors import ConfigError
from models.data.sources.files import walk
from models.data.sources.listing import Source

PATIENTS = {f"{8000 + patient}/{label}": 2 for patient in range(12) for label in (0, 1)}


def patients_of(source: Source, part: int) -> set[str]:
    return {name.decode().split("/")[0] for name in source.names[source.split == part].tolist()}


@pytest.mark.parametrize("top", ["", "IDC_regular/"])
@pytest.mark.parametrize("level", [2, -1])
def test_the_folders_of_patients_are_no_classes_where_the_level_says_so(top: str, level: int, tmp_path: Path) -> None:
    """As in the histopathology images of invasive ductal carcinoma, ``PATIENT/{0,1}/IMAGE``."""
    files = tree({top + folder: count for folder, count in PATIENTS.items()})
    with pytest.raises(ConfigError, match=r"data.class_level=2 takes them, with data.group_level=1 if all images of"):
        open_tree(tmp_path, files)
    source = open_tree(tmp_path, {}, class_level=level)
    assert (source.classes, counts(source)) == (("0", "1"), [48, 0, 0])
    assert all(f"/{label}/" in name.decode() for label, name in zip(source.labels, source.names, strict=True))


def test_patients_of_whom_many_lack_a_class_are_no_classes(tmp_path: Path) -> None:
    lacking = [f"{8000 + patient}/1" for patient in range(5)]
    with pytest.raises(ConfigError, match="every class has the same folders 0, 1, which count neither as classes nor"):
        open_tree(tmp_path, tree({folder: count for folder, count in PATIENTS.items() if folder not in lacking}))


def test_levels_count_below_the_folders_of_splits(tmp_path: Path) -> None:
    files = tree({f"{split}/{folder}": count for split in ("train", "val") for folder, count in PATIENTS.items()})
    source = open_tree(tmp_path, files, class_level=2)
    assert (source.classes, counts(source)) == (("0", "1"), [48, 0, 48])


def test_no_patient_is_in_two_splits_and_more_patients_move_none(tmp_path: Path) -> None:
    settings = {"class_level": 2, "group_level": 1, "val_share": 0.3, "minival_share": 0.3}
    source = open_tree(tmp_path / "1", tree(PATIENTS), **settings)
    parts = [patients_of(source, part) for part in range(3)]
    assert (sum(map(len, parts)), len(set().union(*parts)), min(map(len, parts)) > 0) == (12, 12, True)
    assert source.class_differences[0].startswith("12 groups of images, as 8000, 8001, 8002, 8003, 8004 and 7 more: ")
    more = open_tree(tmp_path / "2", tree(PATIENTS | {"9000/0": 2, "9000/1": 2, "9001/1": 2}), **settings)
    assert [patients_of(more, part) - {"9000", "9001"} for part in range(3)] == parts


def test_patients_in_the_folders_of_classes_are_groups_where_the_level_says_so(tmp_path: Path) -> None:
    """As ``CLASS/PATIENT/IMAGE``, where every class has the same patients."""
    files = tree({f"{label}/{8000 + patient}": 2 for patient in range(12) for label in "ab"})
    with pytest.raises(ConfigError, match=r"every class has the same folders 8000, 8001, .*data\.group_level=2 "):
        open_tree(tmp_path, files)
    source = open_tree(tmp_path, {}, group_level=2, val_share=0.3, minival_share=0.3)
    parts = [{name.decode().split("/")[1] for name in source.names[source.split == part].tolist()} for part in range(3)]
    assert (source.classes, sum(map(len, parts)), len(set().union(*parts))) == (("a", "b"), 12, 12)
    assert [line.partition(",")[0] for line in source.class_differences] == ["12 groups of images"]


def test_a_split_without_a_group_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none of 2 groups \(folders at data.group_level=1\) is in minival and val;"):
        open_tree(tmp_path, tree({"a/x": 4, "a/y": 4, "b/x": 4, "b/y": 4}), class_level=2, group_level=1, seed=2)


def test_groups_beside_held_out_folders_divide_train_alone(tmp_path: Path) -> None:
    files = tree({f"train/{folder}": count for folder, count in PATIENTS.items()} | {"val/9000/0": 3, "val/9000/1": 3})
    source = open_tree(tmp_path, files, class_level=2, group_level=1, minival_share=0.3)
    assert counts(source)[2] == 6
    assert counts(source)[1] > 0


def test_folders_at_different_depths_are_no_classes_of_the_last_level(tmp_path: Path) -> None:
    files = tree({"a/abbey": 2, "a/building/outdoor": 2, "a/building/indoor": 2, "b/bank/outdoor": 2})
    with pytest.raises(ConfigError, match=r"\(2 of a/abbey/000.jpg, 3 of a/building/indoor/000.jpg\).*class_level=2 c"):
        open_tree(tmp_path, files, class_level=-1)
    source = open_tree(tmp_path, {}, class_level=2)
    assert source.classes == ("abbey", "bank", "building")
    said = "images in several folders below data.class_level=2 count as one class: a/building (indoor, outdoor)"
    assert said in source.class_differences


def test_first_letters_are_no_classes(tmp_path: Path) -> None:
    """As in SUN397."""
    files = tree({"a/abbey": 2, "a/airport": 2, "b/bank": 2})
    with pytest.raises(
        ConfigError, match="the folders a, b are the first letters of the folders in them, as abbey: da"
    ):
        open_tree(tmp_path, files)
    assert open_tree(tmp_path, {}, class_level=2).classes == ("abbey", "airport", "bank")
    assert open_tree(tmp_path, {}, train_folders=["."]).classes == ("a", "b")


def test_images_without_a_folder_of_that_level_are_counted(tmp_path: Path) -> None:
    files = tree({"1/a": 20, "2/b": 20}) | {f"1/{i}.jpg": photo(i) for i in range(3)}
    source = open_tree(tmp_path, files, class_level=2)
    assert source.unused == ("3 images without a label in a folder at data.class_level=2, first 1/0.jpg",)
    with pytest.raises(ConfigError, match=r"no image has 3 folders above it, which data.class_level=3 needs"):
        open_tree(tmp_path, {}, class_level=3)


def slides() -> dict[str, bytes]:
    """As BreaKHis: ``{benign,malignant}/SOB/SUBTYPE/PATIENT/ZOOM/IMAGE``."""
    subtypes = ("benign/SOB/adenosis", "benign/SOB/fibroadenoma", "malignant/SOB/ductal", "malignant/SOB/lobular")
    return tree(
        {f"{one}/{one[-4:]}-{patient}/{zoom}X": 1 for one in subtypes for patient in range(9) for zoom in (40, 100)}
    )


def test_the_level_that_is_advised_is_that_of_the_folders_named(tmp_path: Path) -> None:
    assert open_tree(tmp_path, slides()).class_differences == (
        "all images are in folders of the classes (adenosis, fibroadenoma in benign/SOB/), 4 in all, and count as "
        "those of the class above: data.class_level=3 takes them as the classes; data.group_level=4 keeps the images "
        "of each folder there, as of a patient, in one split",
    )
    source = open_tree(tmp_path, {}, class_level=3)
    assert source.classes == ("adenosis", "ductal", "fibroadenoma", "lobular")
    (said,) = source.class_differences
    assert said.startswith("images in several folders below data.class_level=3 count as one class: benign/SOB/adenosis")
    assert said.endswith(" and 1 more; data.group_level=4 keeps the images of each, as of a patient, in one split")
    assert len(said) < 400
    grouped = open_tree(tmp_path, {}, class_level=3, group_level=4, val_share=0.3, minival_share=0.3)
    assert not any("data.group_level" in line for line in grouped.class_differences)


def test_some_classes_with_folders_below_a_common_one_are_said_with_their_level(tmp_path: Path) -> None:
    source = open_tree(tmp_path, tree({"a/x/1": 3, "a/x/2": 3, "b/x/3": 3, "c/y": 3}))
    (said,) = source.class_differences
    assert said.startswith("1 of 3 classes have several folders (1, 2 in a/x), whose images count as those of the ")
    assert "data.class_level=3 takes the folders of that level as the classes, without the images directly in c" in said


def test_no_level_is_advised_where_the_folders_are_at_several(tmp_path: Path) -> None:
    (said,) = open_tree(tmp_path, tree({"a/x/1": 3, "a/x/2": 3, "b/3": 3, "b/4": 3})).class_differences
    assert said.endswith(": data.train_folders names folders whose folders are the classes")


@pytest.mark.parametrize("level", [2, -4])
def test_a_level_of_one_class_is_refused_with_the_next_that_has_several(level: int, tmp_path: Path) -> None:
    said = f"at data.class_level={level} all images are in SOB/: data.class_level=3 takes adenosis, ductal, fibroadenom"
    with pytest.raises(ConfigError, match=re.escape(said)):
        open_tree(tmp_path, slides(), class_level=level)
    assert open_tree(tmp_path, {}, class_level=level, val_folders=["."]).classes == ("SOB",)


@pytest.mark.parametrize(
    "settings", [{"class_level": 2}, {"train_folders": ["fold_1", "fold_2"], "val_folders": ["fold_3"]}]
)
def test_the_splits_of_folds_are_never_classes(settings: dict[str, object], tmp_path: Path) -> None:
    folders = {f"fold_{i}/{split}/{label}": 3 for i in (1, 2, 3) for split in ("train", "val") for label in "ab"}
    with pytest.raises(ConfigError, match=r"have splits of their own, .* takes one of them"):
        open_tree(tmp_path, tree(folders))
    with pytest.raises(ConfigError, match="the settings take train, val as classes, which are splits by their names"):
        open_tree(tmp_path, {}, **settings)


@pytest.mark.parametrize("is_old", [False, True])
def test_images_that_the_splits_link_to_are_used(is_old: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_tree(tmp_path / "set", tree({"train/a": 1, "train/b": 1, "val/a": 1, "val/b": 1}) | flat("all/"))
    for i in range(12):
        (root / ("val", "train")[i % 3 > 0] / "ab"[i % 2] / f"link{i}.jpg").symlink_to(f"../../all/{i}.jpg")
    if is_old:
        monkeypatch.setattr(walk, "RECENT_S", -1e6)  # the files have stamps
    source = open_tree(tmp_path, {})
    assert source.unused == ("12 images that are used through links to them, first all/0.jpg",)
    assert (source.classes, len(source.labels)) == (("a", "b"), 16)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"class_level": 0}, "data.class_level counts folders from 1"),
        ({"group_level": 1}, "is another level than data.class_level, is 1"),
        ({"group_level": 0}, "data.group_level counts folders from 1"),
        ({"class_level": 2, "source": "webdataset"}, "data.class_level is for data=folder, not for webdataset"),
    ],
)
def test_levels_that_name_no_folder_are_refused(settings: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        Data(**{"name": "x", "source": "folder"} | settings)
