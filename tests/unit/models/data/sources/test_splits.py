"""Folders of splits in the spellings of public data sets, and layouts that a setting must decide."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from made_archives import data_settings, photo, write_tree

from conf import schema
from infra.errors import ConfigError
from models.data.sources.catalog import open_source
from models.data.sources.listing import MINIVAL, TRAIN, VAL, Source
from models.data.sources.splits import find_splits


def tree(folders: dict[str, int]) -> dict[str, bytes]:
    """Numbered images in each of the folders."""
    return {f"{folder}/{i:03d}.jpg": photo(i) for folder, count in folders.items() for i in range(count)}


def open_tree(tmp_path: Path, folders: dict[str, int], **changes: object) -> Source:
    return open_source(data_settings("folder", write_tree(tmp_path / "set", tree(folders)), **changes))


def parts_of(source: Source) -> dict[str, int]:
    """The part of each top folder."""
    pairs = zip(source.names.tolist(), source.split.tolist(), strict=True)
    return {name.decode().partition("/")[0]: part for name, part in pairs}


@pytest.mark.parametrize(
    ("train", "held_out"),
    [
        ("trainset", "testset"),
        ("TrainImages", "TestImages"),
        ("train_images", "test_images"),
        ("images_train", "images_val"),
        ("train2017", "val2017"),
        ("trainval", "test"),
        ("train_val", "test"),
        ("train+val", "test"),
        ("train", "holdout"),
        ("train", "held_out"),
        ("Training Set", "Test Set"),
        ("training-data", "validation-data"),
        ("trainingset", "validationset"),
        ("TRAINING_SET", "EVALUATION_SET"),
        ("train", "test_images"),
        ("train_dataset", "validate_dataset"),
        ("flowers_train", "flowers_test"),
        ("flowersTrain", "flowersTest"),
        ("0_train", "1_test"),
        ("traindata", "testdata"),
        ("imgs_train", "imgs_dev"),
    ],
)
def test_splits_are_recognized_in_other_spellings(train: str, held_out: str, tmp_path: Path) -> None:
    folders = {f"{top}/{label}": 4 for top in (train, held_out) for label in ("ant", "bee")}
    source = open_tree(tmp_path, folders)
    assert (source.classes, source.unused) == (("ant", "bee"), ())
    assert parts_of(source) == {train: TRAIN, held_out: VAL}


def test_three_splits_in_camel_case(tmp_path: Path) -> None:
    source = open_tree(tmp_path, {f"{top}Set/{label}": 3 for top in ("Train", "Valid", "Test") for label in "ab"})
    assert parts_of(source) == {"TrainSet": TRAIN, "ValidSet": MINIVAL, "TestSet": VAL}


@pytest.mark.parametrize("name", ["train", "Train Images", "trainset", "train_val", "train2017"])
def test_a_lone_folder_of_train_is_not_skipped_as_a_common_top_folder(name: str, tmp_path: Path) -> None:
    source = open_tree(tmp_path, {f"set/{name}/{label}": 3 for label in "ab"})
    assert source.names.tolist()[0] == f"{name}/a/000.jpg".encode()


@pytest.mark.parametrize(
    ("folders", "said", "changes", "expected"),
    [
        (
            ("trainval/a", "trainval/b", "train/a", "train/b", "test/a"),
            "has trainval/, which by its name holds train and val, beside train/: data.train_folders=[trainval]",
            {"train_folders": ["train"], "val_folders": ["test"]},
            {"train": TRAIN, "test": VAL},
        ),
        (
            ("train/a", "train/b", "more"),
            "train/ may be the split train with the classes a, b, or a class beside more",
            {"train_folders": ["train"]},
            {"train": TRAIN},
        ),
        (
            ("val/a", "val/b", "test/a"),
            "has val and test, but no train folder beside them; data.train_folders=[A,B] and data.val_folders=[C] name",
            {"train_folders": ["val"], "val_folders": ["test"]},
            {"val": TRAIN, "test": VAL},
        ),
        (
            ("negative", "positive", "test"),
            "test/ may be a split, of which no train folder is beside it, or a class beside negative, positive",
            {"train_folders": ["."]},
            {"negative": TRAIN, "positive": TRAIN, "test": TRAIN},
        ),
        (
            ("fold1/a", "fold1/b", "fold2/a", "fold2/b", "fold3/a"),
            "the folders fold1, fold2, fold3 look like numbered parts of one set, not like classes; "
            "data.val_folders=[fold3] makes",
            {"val_folders": ["fold3"]},
            {"fold1": TRAIN, "fold2": TRAIN, "fold3": VAL},
        ),
        (
            ("PlantVillage", "plantvillage"),
            "the folders PlantVillage, plantvillage look like copies of one set: give data.path one of them",
            {"train_folders": ["."]},
            {"PlantVillage": TRAIN, "plantvillage": TRAIN},
        ),
        (
            ("images", "masks"),
            "images and masks look like images and their masks, not like classes; data.train_folders=[images] takes",
            {"train_folders": ["."]},
            {"images": TRAIN, "masks": TRAIN},
        ),
        (
            ("train/images", "train/labels", "val/images", "val/labels"),
            "their masks, not like classes; data.train_folders=[train/images] takes",
            {"train_folders": ["train"], "val_folders": ["val"], "allow_partial": True},
            None,
        ),
    ],
    ids=[
        "trainval beside train",
        "train beside flat",
        "no train",
        "test or class",
        "folds",
        "copies",
        "masks",
        "masks in splits",
    ],
)
def test_a_layout_that_can_be_read_in_two_ways_is_refused_until_a_setting_decides(
    folders: tuple[str, ...], said: str, changes: dict[str, object], expected: dict[str, int] | None, tmp_path: Path
) -> None:
    counts = dict.fromkeys(folders, 3)
    with pytest.raises(ConfigError, match=re.escape(said)):
        open_tree(tmp_path, counts)
    if expected is None:
        with pytest.raises(ConfigError, match=re.escape(said)):
            open_tree(tmp_path, counts, **changes)
    else:
        assert parts_of(open_tree(tmp_path, counts, **changes)) == expected


@pytest.mark.parametrize("others", [("test_tube",), ("test_stg1", "test_strip"), ("testing_ground", "bench")])
def test_a_class_whose_name_begins_with_test_is_no_part_of_the_test(others: tuple[str, ...], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"the split train with the classes a, b, or a class beside {others[-1][0]}"):
        open_tree(tmp_path, dict.fromkeys(("train/a", "train/b", *others), 12))


@pytest.mark.parametrize(
    "others", [("test_stg1", "test_stg2"), ("test_part1",), ("public_test", "private_test_images")]
)
def test_stages_of_a_test_are_counted_beside_train(others: tuple[str, ...], tmp_path: Path) -> None:
    source = open_tree(tmp_path, dict.fromkeys(("train/a", "train/b", *others), 12))
    assert parts_of(source) == {"train": TRAIN}
    assert len(source.unused) == len(others)


def test_folders_of_any_name_and_depth_can_be_named_as_splits(tmp_path: Path) -> None:
    folders = {f"2024/{top}/{label}": 3 for top in ("entrenamiento", "prueba", "demo") for label in "ab"}
    source = open_tree(tmp_path, folders, train_folders=["2024/entrenamiento/"], val_folders=["./2024/prueba"])
    assert np.bincount(source.split, minlength=3).tolist() == [6, 0, 6]
    assert source.classes == ("a", "b")
    assert source.unused == (
        "6 images in folders that neither data.train_folders nor data.val_folders name, first demo/a/000.jpg",
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"val_folders": ["fold9"]}, "data.val_folders: no images in fold9/; did you mean 'fold"),
        ({"train_folders": ["fold1"], "val_folders": ["fold1/a"]}, "fold1/a/ is in fold1/"),
        ({"val_folders": ["fold1", "fold2"]}, "no folder with images is beside them"),
    ],
)
def test_named_folders_that_cannot_be_splits_are_refused(changes: dict[str, object], said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        open_tree(tmp_path, {f"fold{fold}/{label}": 2 for fold in (1, 2) for label in "ab"}, **changes)


@pytest.mark.parametrize("changes", [{"train_folders": [".", "a"]}, {"train_folders": ["."], "val_folders": ["a"]}])
def test_the_whole_tree_is_no_split_beside_others(changes: dict[str, list[str]]) -> None:
    with pytest.raises(ValueError, match=r"data\.train_folders=\[\.\] takes all folders as classes"):
        schema.Data(name="x", source="folder", **changes)
    with pytest.raises(ValueError, match=r"_folders is for data=folder, not for cifar10"):
        schema.Data(name="x", source="cifar10", **changes)


@pytest.mark.parametrize("name", ["train_val", "training_data", "Training Set", "set/trainval/data"])
def test_a_folder_of_train_that_holds_the_splits_is_skipped(name: str, tmp_path: Path) -> None:
    source = open_tree(tmp_path, {f"{name}/{top}/{label}": 4 for top in ("train", "val") for label in ("cat", "dog")})
    assert (source.classes, parts_of(source)) == (("cat", "dog"), {"train": TRAIN, "val": VAL})


def test_splits_are_never_taken_as_classes(tmp_path: Path) -> None:
    folders = {f"{top}/{label}": 4 for top in ("train_val/train", "train_val/val", "test") for label in ("cat", "dog")}
    named = {"train_folders": ["train_val/train"], "val_folders": ["train_val/val"]}
    said = "data.train_folders=[train_val/train] data.val_folders=[train_val/val] takes them as splits"
    with pytest.raises(ConfigError, match=re.escape(said)):
        open_tree(tmp_path, folders)
    assert open_tree(tmp_path, folders, **named).classes == ("cat", "dog")


def test_the_classes_are_those_of_all_train_folders(tmp_path: Path) -> None:
    folders = {"train_1/a": 12, "train_1/b": 12, "train_2/c": 12, "train_2/d": 12}
    source = open_tree(tmp_path, folders)
    assert (source.classes, source.unused) == (tuple("abcd"), ())
    assert open_tree(tmp_path, folders, train_folders=["train_2", "train_1"]).classes == tuple("abcd")


@pytest.mark.parametrize(
    "classes",
    [("invalid", "valid"), ("non_valid", "valid"), ("dev", "prod"), ("refusé", "validé"), ("test车", "train列车")],
)
def test_a_class_that_reads_as_a_split_but_is_none(classes: tuple[str, ...], tmp_path: Path) -> None:
    source = open_tree(tmp_path, dict.fromkeys(classes, 4))
    assert (source.classes, source.own_val) == (classes, False)


@pytest.mark.parametrize("train", ["train_mini", "train_aug"])
def test_a_part_of_train_beside_val_with_its_classes_is_train(train: str, tmp_path: Path) -> None:
    """As in iNaturalist 2021 mini."""
    source = open_tree(tmp_path, {f"{top}/{label}": 3 for top in (train, "val") for label in "abc"})
    assert (source.classes, parts_of(source)) == (("a", "b", "c"), {train: TRAIN, "val": VAL})
    folders = {f"{top}/{label}": 3 for top in (train, "val", "test") for label in "abc"}
    source = open_source(data_settings("folder", write_tree(tmp_path / "three", tree(folders))))
    assert parts_of(source) == {train: TRAIN, "val": MINIVAL, "test": VAL}


def test_a_part_of_train_beside_a_flat_val_is_named_in_the_remedy(tmp_path: Path) -> None:
    said = "data.train_folders=[train_mini] data.val_folders=[val] as a split"
    with pytest.raises(ConfigError, match=re.escape(said)):
        open_tree(tmp_path, {"train_mini/a": 3, "train_mini/b": 3, "val": 3})


def test_numbers_of_parts_that_are_classes_are_taken(tmp_path: Path) -> None:
    names = ("part_01", "part_02")
    source = open_tree(tmp_path, {f"{top}/{name}": 3 for top in ("train", "test") for name in names})
    assert (source.classes, parts_of(source)) == (names, {"train": TRAIN, "test": VAL})
    folders = {f"train/{name}": 3 for name in names} | {"test/part_01": 3}
    root = write_tree(tmp_path / "unequal", tree(folders))
    with pytest.raises(ConfigError) as refused:
        open_source(data_settings("folder", root))
    assert "data.train_folders=[train] data.val_folders=[test] takes them as classes" in str(refused.value)
    named = {"train_folders": ["train"], "val_folders": ["test"]}
    assert open_source(data_settings("folder", root, **named)).classes == names


def test_the_settings_that_a_message_names_lose_no_part(tmp_path: Path) -> None:
    names = [f"images_{number:03d}" for number in range(1, 13)]
    with pytest.raises(ConfigError) as refused:
        open_tree(tmp_path, {f"{name}/{label}": 1 for name in names for label in "ab"})
    assert f"data.train_folders=[{','.join(names)}] makes all train" in str(refused.value)
    source = open_tree(tmp_path, {}, train_folders=names)
    assert (len(source.labels), source.classes) == (24, ("a", "b"))


def test_a_stray_image_in_train_does_not_make_it_a_class(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"train/ may be the split train with the classes a, b, or a class beside more"
    ):
        open_tree(tmp_path, {"train/a": 20, "train/b": 20, "train": 1, "more": 5})


def test_copies_of_a_set_inside_it_are_left_out(tmp_path: Path) -> None:
    """As in chest_xray and PlantVillage of Kaggle."""
    inner = tree({f"{top}/{label}": 20 for top in ("train", "test", "val") for label in ("NORMAL", "PNEUMONIA")})
    files = {f"chest_xray/{above}{name}": data for name, data in inner.items() for above in ("", "chest_xray/")}
    source = open_source(data_settings("folder", write_tree(tmp_path / "chest", files)))
    assert (source.classes, len(source.labels)) == (("NORMAL", "PNEUMONIA"), len(inner))
    assert parts_of(source) == {"train": TRAIN, "val": MINIVAL, "test": VAL}
    inner = tree({f"PlantVillage/{label}": 20 for label in ("blight", "healthy")})
    files = {f"{above}{name}": data for name, data in inner.items() for above in ("", "plantvillage/")}
    source = open_source(data_settings("folder", write_tree(tmp_path / "plants", files)))
    assert (source.classes, len(source.labels)) == (("blight", "healthy"), 40)
    assert source.unused == (
        "40 images in folders that repeat the others by names and sizes, first "
        "plantvillage/PlantVillage/blight/000.jpg",
    )


def test_splits_and_classes_that_were_filled_from_other_folders_are_no_copies(tmp_path: Path) -> None:
    whole = tree({"cat": 20, "dog": 20})
    files = whole | {f"{top}/{name}": data for name, data in whole.items() for top in ("train", "val")}
    with pytest.raises(ConfigError, match=r"40 images in folders that are no split, first cat/000\.jpg"):
        open_source(data_settings("folder", write_tree(tmp_path / "splits", files)))
    files = whole | {f"{i:03d}.jpg": photo(i) for i in range(5)}
    source = open_source(data_settings("folder", write_tree(tmp_path / "classes", files)))
    assert (source.classes, len(source.labels)) == (("cat", "dog"), 40)
    named = {"train_folders": ["copy"], "val_folders": ["rest"]}
    files = whole | {f"{top}/{name}": data for name, data in whole.items() for top in ("copy", "rest")}
    source = open_source(data_settings("folder", write_tree(tmp_path / "named", files), **named))
    assert parts_of(source) == {"copy": TRAIN, "rest": VAL}


def test_images_without_classes_beside_the_splits_are_counted(tmp_path: Path) -> None:
    """As in Intel's image classification."""
    folders = {f"seg_{top}/seg_{top}/{label}": 20 for top in ("train", "test") for label in ("forest", "sea")}
    source = open_tree(tmp_path, folders | {"seg_pred/seg_pred": 30})
    assert (source.classes, parts_of(source)) == (("forest", "sea"), {"seg_train": TRAIN, "seg_test": VAL})
    assert source.unused == ("30 images in folders that are no split, first seg_pred/seg_pred/000.jpg",)


@pytest.mark.parametrize("folders", [("training", "validation", "evaluation"), ("train", "dev", "eval")])
def test_evaluation_beside_validation_is_the_test_split(folders: tuple[str, str, str], tmp_path: Path) -> None:
    """As in Food-11."""
    source = open_tree(tmp_path, {f"{split}/{label}": 3 for split in folders for label in "ab"})
    assert parts_of(source) == dict(zip(folders, (TRAIN, MINIVAL, VAL), strict=True))


@pytest.mark.parametrize(
    ("names", "numbers"),
    [
        (("tr", "te"), [6, 0, 2]),
        (("TRN", "TST"), [6, 0, 2]),
        (("tr", "va", "te"), [6, 2, 2]),
        (("tr", "test"), [6, 0, 2]),
    ],
)
def test_short_names_are_splits_if_the_folders_have_the_same_classes(
    names: tuple[str, ...], numbers: list[int], tmp_path: Path
) -> None:
    source = open_tree(tmp_path, {f"{top}/{label}": 3 if top == names[0] else 1 for top in names for label in "ab"})
    assert (source.classes, np.bincount(source.split, minlength=3).tolist()) == (("a", "b"), numbers)


@pytest.mark.parametrize("names", [("en", "fr", "te", "tr"), ("te", "tr")])
def test_languages_are_classes(names: tuple[str, ...], tmp_path: Path) -> None:
    source = open_tree(tmp_path, {f"{name}/{name}_{i}": 2 for name in names for i in range(2)})
    assert source.classes == names


@pytest.mark.parametrize("lacking", [0, 1, 3])
@pytest.mark.parametrize("names", [("entrenamiento", "prueba"), ("训练集", "测试集"), ("learn", "check", "final")])
def test_a_few_folders_with_the_same_classes_are_refused_with_the_settings_that_take_them(
    names: tuple[str, ...], lacking: int, tmp_path: Path
) -> None:
    """No list has the words for splits of all languages; a set for test may lack classes."""
    train, *held_out = names
    folders = {f"{train}/{label}": 3 for label in "abcdef"}
    folders |= {f"{top}/{label}": 1 for top in held_out for label in "abcdef"[: 6 - lacking]}
    said = f"data.train_folders=[{train}] data.val_folders=[{','.join(sorted(held_out))}] takes them"
    with pytest.raises(ConfigError, match=re.escape(said)):
        open_tree(tmp_path, folders)
    source = open_tree(tmp_path, folders, train_folders=[train], val_folders=held_out)
    assert len(source.classes) == 6


def test_a_folder_of_other_words_beside_test_is_refused_with_the_settings_that_take_it(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"data\.train_folders=\[entra.nement\] data\.val_folders=\[test\] as a split"
    ):
        open_tree(tmp_path, {f"{top}/{label}": 2 for top in ("entraînement", "test") for label in "ab"})


def test_short_names_of_splits_below_the_classes_are_named(tmp_path: Path) -> None:
    folders = {f"{label}/{top}": 2 for label in "abc" for top in ("tr", "te")}
    with pytest.raises(ConfigError, match="if they are splits, name them train, val and test") as refused:
        open_tree(tmp_path, folders)
    assert "data.val_folders=[b,c]" not in str(refused.value)


def test_flat_folders_with_short_names_of_splits_are_no_classes_unless_a_setting_says_so(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"no folders of classes in tr/ and te/ .*; data\.train_folders=\[\.\] takes all"
    ):
        open_tree(tmp_path, {"tr": 4, "te": 4})
    assert open_tree(tmp_path, {}, train_folders=["."]).classes == ("te", "tr")


def test_a_held_out_folder_beside_folders_of_images_is_not_offered_as_val() -> None:
    images = [f"{folder}/{i}.jpg" for folder in ("a", "b", "val/a", "val/b") for i in range(3)]
    with pytest.raises(ConfigError, match="as a class; a split needs the classes in a folder train"):
        find_splits(images, "/set", data_settings("folder"), "")
