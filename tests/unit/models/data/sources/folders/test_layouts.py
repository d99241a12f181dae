"""Layouts of public data sets: tests without labels, several versions of a set, splits below the classes."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest
from made_archives import counts, flat, open_tree, photo, tree

from infra.errors import ConfigError
from models.data.sources.listing import MINIVAL, TRAIN, VAL

DOGS = {f"train/{label}.{i}.jpg": photo(i) for label in ("cat", "dog") for i in range(8)}
BANDS = ("EuroSAT/{label}/{label}_{i}.jpg", "EuroSATallBands/{label}/{label}_{i}.tif")


@pytest.mark.parametrize(
    ("held_out", "more"),
    [
        ("test1/", {}),
        ("test1/", {"sampleSubmission.csv": "id,label\n" + "".join(f"{i},{i % 2}\n" for i in range(12))}),
        (
            "test/",
            {"README_test.txt": "Images of the test.", "data_test.txt": "".join(f"{i}.jpg\n" for i in range(12))},
        ),
        ("test/images/", {"cat_to_name.json": '{"1": "a cat", "2": "a dog"}'}),
        ("test/", {"test.csv": "id_code\n" + "".join(f"{i}\n" for i in range(12))}),
        ("test/test/", {"train_annotations.json": "[{}]" * 99}),
        ("test/unknown/", {}),
        ("test/all_classes/", {}),
        ("test/", {"notes.txt": "A line.\n" * 9, "train_labels.txt": "cat\n" * 12, "val.txt": "cat\n" * 12}),
    ],
)
def test_a_test_folder_of_a_competition_whose_classes_nobody_published_is_said_and_not_used(
    held_out: str, more: dict[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As in dogs-vs-cats of Kaggle."""
    source = open_tree(tmp_path, DOGS | flat(held_out) | {name: text.encode() for name, text in more.items()})
    assert (source.classes, counts(source)) == (("cat", "dog"), [16, 0, 0])
    top = held_out.partition("/")[0]
    said = f"12 images without a label in {top}/ (no file has their classes, so they are in no split), first {held_out}"
    assert source.unused[0].startswith(said)
    assert said in caplog.text


@pytest.mark.parametrize(
    ("held_out", "more", "said"),
    [
        (
            "test/",
            {"labels.json": '{"11.jpg": "cat"}' * 9},
            "(labels.json may have their classes and is not read) (data.train_f",
        ),
        ("test/", {"test_labels.txt": "cat\ndog\n" * 6}, "(test_labels.txt may have their classes and is not read)"),
        (
            "test/",
            {"x.csv": "".join(f"{i}.jpg,{i % 2}\n" for i in range(12))},
            "(x.csv names images, but no column of it has these classes) (data.train_folders=[train] trains with",
        ),
        (
            "test/",
            {"labels.txt": "cat\ndog\n" * 6},
            "(labels.txt may have their classes and is not read) (data.train_f",
        ),
        (
            "test/",
            {"answers.csv": "label\n" + "cat\ndog\n" * 6},
            "(answers.csv may have their classes and is not read)",
        ),
        (
            "test/",
            {"meta/solution.txt": "cat,dog," * 5 + "cat,dog"},
            "(meta/solution.txt may have their classes and is not",
        ),
        (
            "test/",
            {"truth.csv": "row,label\n" + "".join(f"{i},{'ab'[i % 2]}\n" for i in range(12))},
            "(truth.csv names images, but no column of it has these classes) (data.train_folders=[train] trains with",
        ),
        (
            "test/a",
            {"truth.txt": "".join(f"{i} {'ab'[i % 2]}\n" for i in range(12))},
            "(truth.txt may have their class",
        ),
        ("test/", {"truth.jsonl": '{"label": "cat"}\n' * 12}, "(truth.jsonl may have their classes and is not read)"),
        (
            "test/",
            {"truth.json": '{"labels": [0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1]}'},
            "(truth.json may have their clas",
        ),
        ("test/", {"y.npy": "x" * 99}, "(y.npy may have their classes and is not read)"),
        ("test/feline/", {}, "(data.train_folders=[train] trains without them)"),
        ("val/", {}, "(data.train_folders=[train] trains without them)"),
    ],
)
def test_held_out_images_that_may_have_labels_are_refused(
    held_out: str, more: dict[str, str], said: str, tmp_path: Path
) -> None:
    files = tree({"train/cat": 8, "train/dog": 8}) | flat(held_out)
    with pytest.raises(ConfigError, match="12 images without a label in ") as refused:
        open_tree(tmp_path, files | {name: text.encode() for name, text in more.items()})
    assert said in str(refused.value) or "are none of the classes" in str(refused.value)
    assert len(open_tree(tmp_path, {}, train_folders=["train"]).labels) == 16


def test_the_settings_that_exclude_an_unlabelled_test_keep_a_labelled_val(tmp_path: Path) -> None:
    files = DOGS | tree({"val/cat": 3, "val/dog": 3}) | flat("test/") | {"labels.txt": b"cat\ndog\n" * 6}
    files = {name.replace("cat.", "cat/").replace("dog.", "dog/"): data for name, data in files.items()}
    settings = "data.train_folders=[train] data.val_folders=[val]"
    said = f"(labels.txt may have their classes and is not read) ({settings} trains without them)"
    with pytest.raises(ConfigError, match=re.escape(said)):
        open_tree(tmp_path, files)
    assert counts(open_tree(tmp_path, {}, train_folders=["train"], val_folders=["val"])) == [16, 0, 6]


@pytest.mark.parametrize("names", [BANDS, ("2750/{label}/{label}_{i}.jpg", "ds/images/tif/{label}/{label}_{i}.tif")])
def test_the_version_of_a_set_in_a_format_that_is_not_read_is_said_and_not_used(
    names: tuple[str, str], tmp_path: Path
) -> None:
    """As EuroSAT with 3 and with 13 bands."""
    files = {
        name.format(label=label, i=i): photo(i, kind)
        for name, kind in zip(names, ("JPEG", "TIFF"), strict=True)
        for label in ("Forest", "River")
        for i in range(20)
    }
    source = open_tree(tmp_path, files)
    assert (source.classes, len(source.labels)) == (("Forest", "River"), 40)
    first = names[0].partition("/")[0]
    assert source.unused[0].startswith(f"40 images of the same names as in {first}/, in a format that is not read, ")
    with pytest.raises(ConfigError, match="every class has the same folders Forest, River"):
        open_tree(tmp_path, {}, convert=True)


def test_classes_in_different_formats_are_no_versions_of_one_set(tmp_path: Path) -> None:
    files = {f"cat/{i}.jpg": photo(i) for i in range(12)} | {f"dog/{i}.webp": photo(i, "WebP") for i in range(12)}
    with pytest.raises(ConfigError, match="12 of 24 files would not be used: 12 WebP files"):
        open_tree(tmp_path / "2", files)
    files = {f"cat/{place}/{i}.jpg": photo(i) for place in ("in", "out") for i in range(6)}
    files |= {f"dog/{place}/{i + 6}.webp": photo(i, "WebP") for place in ("in", "out") for i in range(6)}
    with pytest.raises(ConfigError, match="every class has the same folders in, out, which count neither as classes"):
        open_tree(tmp_path, files)


def test_versions_of_a_set_are_refused_with_the_setting_that_takes_one(tmp_path: Path) -> None:
    """As in PlantVillage."""
    folders = {f"{top}/{label}": 4 for top in ("color", "grayscale", "segmented") for label in ("blight", "healthy")}
    with pytest.raises(ConfigError, match=re.escape("data.train_folders=[color] takes those of one alone")):
        open_tree(tmp_path, tree(folders))
    source = open_tree(tmp_path, {}, train_folders=["color"])
    assert (source.classes, len(source.labels)) == (("blight", "healthy"), 8)


@pytest.mark.parametrize("top", ["", "set/"])
@pytest.mark.parametrize(
    ("names", "parts"),
    [
        (("train", "test"), {"train": TRAIN, "test": VAL}),
        (("Train", "Valid", "Test"), {"Train": TRAIN, "Valid": MINIVAL, "Test": VAL}),
    ],
)
def test_splits_may_be_below_the_classes(
    names: tuple[str, ...], parts: dict[str, int], top: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = tree({f"{top}{label}/{name}": 3 for label in ("ant", "bee") for name in names})
    with caplog.at_level(logging.INFO, "effnet"):
        source = open_tree(tmp_path, files)
    assert source.unused == ()
    for name, label, part in zip(source.names.tolist(), source.labels.tolist(), source.split.tolist(), strict=True):
        folder, split, _ = name.decode().split("/")
        assert (source.classes[label], part) == (folder, parts[split])
    assert "train is train, " in caplog.text
    whole = open_tree(tmp_path, {}, train_folders=["."])
    assert whole.own_val is False
    (said,) = whole.class_differences
    assert "splits by their names, and taken as such without data.train_folders" in said


def test_archives_of_further_classes_above_splits_are_refused(tmp_path: Path) -> None:
    files = tree({f"{label}/{name}": 3 for label in ("ant", "bee") for name in ("train", "test")})
    files |= {f"{label}.tar.gz": b"\x1f\x8b" + bytes(99) for label in "cdefgh"}
    with pytest.raises(ConfigError, match=re.escape("6 archives in the folder (unpack them, they are not read)")):
        open_tree(tmp_path, files)


@pytest.mark.parametrize(
    ("folders", "said"),
    [
        ({"cat/other": 3}, "ant/ has the splits test and train by their names, and cat/ has other/: move the splits"),
        ({"cat": 3}, "and cat/ has images in no folder: move the splits above the classes"),
        ({"cat/test": 3}, "and cat/ has test/: move the splits above the classes; data.train_folders=[.] takes"),
        (
            {"cat/train/x": 3, "cat/test/x": 3},
            "cat/train/ is a split by its name, and has folders of its own, x: data.train_folders=[cat/train] "
            "data.val_folders=[cat/test] takes these as the classes; data.train_folders=[.] takes the top folders as",
        ),
    ],
)
def test_splits_below_some_of_the_classes_are_refused(folders: dict[str, int], said: str, tmp_path: Path) -> None:
    nested = {f"{label}/{split}": 3 for label in ("ant", "bee") for split in ("train", "test")}
    with pytest.raises(ConfigError, match=re.escape(said)):
        open_tree(tmp_path, tree(nested | folders))


def test_images_and_masks_with_splits_below_them_are_no_classes(tmp_path: Path) -> None:
    folders = {f"{top}/{split}": 3 for top in ("images", "masks") for split in ("train", "val")}
    with pytest.raises(ConfigError, match="images and masks look like images and their masks, not like classes"):
        open_tree(tmp_path, tree(folders))


ANOMALIES = {"train/good": 20, "test/good": 4, "test/broken_small": 5, "ground_truth/broken_small": 5}


def test_data_for_anomaly_detection_are_named(tmp_path: Path) -> None:
    """As MVTec AD, whole and one of its products."""
    folders = {f"{product}/{name}": count for product in ("bottle", "cable") for name, count in ANOMALIES.items()}
    with pytest.raises(
        ConfigError, match=r"bottle/train/ is a split .* as in data for anomaly detection, such as MVTec"
    ):
        open_tree(tmp_path / "whole", tree(folders))
    assert counts(open_tree(tmp_path / "whole", {}, train_folders=["bottle/test"])) == [9, 0, 0]
    said = "train has images of good alone, test/ of 2 classes, as in data for anomaly detection, such as MVTec AD: no"
    with pytest.raises(ConfigError, match=said) as refused:
        open_tree(tmp_path, tree(ANOMALIES))
    assert "data.train_folders=[test] takes these alone" in str(refused.value)
    assert counts(open_tree(tmp_path, {}, train_folders=["test"])) == [9, 0, 0]


def test_folders_that_every_class_has_are_found_below_a_common_one(tmp_path: Path) -> None:
    """As in VisA."""
    below = ("Data/Images/Normal", "Data/Images/Anomaly", "Data/Masks/Anomaly")
    files = tree({f"{product}/{name}": 3 for product in ("candle", "fryum") for name in below})
    with pytest.raises(ConfigError, match="every class has the same folders Images, Masks, which count neither as cl"):
        open_tree(tmp_path, files)


def test_a_set_with_splits_beside_another_version_of_it_without_is_refused(tmp_path: Path) -> None:
    """As in casting_data of Kaggle; the two folders would be the classes."""
    folders = {f"casting_data/casting_data/{split}/{label}": 3 for split in ("train", "test") for label in "ab"}
    folders |= {f"casting_512/casting_512/{label}": 3 for label in "ab"}
    named = {"train_folders": ["casting_data/casting_data/train"], "val_folders": ["casting_data/casting_data/test"]}
    said = f"data.train_folders={named['train_folders']} data.val_folders={named['val_folders']} takes these as the cl"
    with pytest.raises(ConfigError, match=re.escape(said.replace("'", ""))):
        open_tree(tmp_path, tree(folders))
    source = open_tree(tmp_path, {}, **named)
    assert (source.classes, counts(source)) == (("a", "b"), [6, 0, 6])


def test_classes_in_a_folder_whose_name_says_nothing_beside_others_are_refused(tmp_path: Path) -> None:
    """As in best-artworks-of-all-time of Kaggle."""
    files = tree({"images/images/Dali": 3, "images/images/Monet": 3, "resized/resized": 6})
    said = (
        "images/ has the folders Dali, Monet and is beside resized: data.train_folders=[images/images/] takes them as"
    )
    with pytest.raises(ConfigError, match=re.escape(said)):
        open_tree(tmp_path, files)
    assert open_tree(tmp_path, {}, train_folders=["images/images/"]).classes == ("Dali", "Monet")
    with pytest.raises(ConfigError, match="labelled/ has the folders a, b and is beside unlabelled"):
        open_tree(tmp_path / "2", tree({"labelled/a": 3, "labelled/b": 3, "unlabelled": 9}))


def test_images_to_predict_beside_the_classes_are_no_class(tmp_path: Path) -> None:
    """As in Br35H of Kaggle."""
    source = open_tree(tmp_path, tree({"no": 12, "yes": 12, "pred": 12}))
    assert (source.classes, len(source.labels)) == (("no", "yes"), 24)
    assert source.unused == (
        "12 images in no class folder (named as images to predict; data.train_folders=[.] takes all folders as "
        "classes), first pred/000.jpg",
    )
    assert open_tree(tmp_path, {}, train_folders=["."]).classes == ("no", "pred", "yes")


def test_folders_that_are_the_beginnings_of_names_are_no_classes(tmp_path: Path) -> None:
    """As in Google Landmarks."""
    names = [f"{i:016x}"[::-1] for i in range(24)]
    images = {f"train/{name[0]}/{name[1]}/{name}.jpg": photo(i) for i, name in enumerate(names)}
    with pytest.raises(
        ConfigError, match=r"the folders 0, 1, 2, .* are the beginnings of the names of their images, not"
    ):
        open_tree(tmp_path / "2", images)
    rows = "".join(f"{name},{7000 + i % 3}\n" for i, name in enumerate(names))
    source = open_tree(tmp_path, images | {"train.csv": f"id,landmark_id\n{rows}".encode()})
    truth = {name: str(7000 + i % 3) for i, name in enumerate(names)}
    labels = {
        Path(name.decode()).stem: source.classes[label] for name, label in zip(source.names, source.labels, strict=True)
    }
    assert labels == truth


def test_a_folder_that_repeats_another_under_its_name_in_lower_case_is_not_used(tmp_path: Path) -> None:
    """As in HAM10000 of Kaggle."""
    images = {f"HAM10000_images_part_{1 + i // 6}/ISIC_{i}.jpg": photo(i) for i in range(12)}
    images |= {name.replace("HAM", "ham"): data for name, data in images.items()}
    rows = "".join(f"HAM_{i},ISIC_{i},{('nv', 'mel')[i % 2]}\n" for i in range(12))
    source = open_tree(tmp_path, images | {"HAM10000_metadata.csv": f"lesion_id,image_id,dx\n{rows}".encode()})
    assert (source.classes, len(source.labels)) == (("mel", "nv"), 12)
    assert source.unused[0].startswith(
        "12 images in folders that repeat the others by names and sizes, first ham10000_"
    )


def test_classes_that_hold_folders_of_their_own_are_said(tmp_path: Path) -> None:
    """As the species of iNaturalist, below groups of them."""
    folders = {"Aves/12": 3, "Aves/7": 3, "Fungi/8": 3, "Fungi/9": 3, "Fungi/10": 3}
    source = open_tree(tmp_path, tree(folders))
    assert source.class_differences == (
        "all images are in folders of the classes (12, 7 in Aves/), 5 in all, and count as those of the class above: "
        "data.class_level=2 takes them as the classes; data.group_level=2 keeps the images of each folder there, as of "
        "a patient, in one split",
    )
    assert len(open_tree(tmp_path, {}, train_folders=["Aves", "Fungi"]).classes) == 5


@pytest.mark.parametrize("top", ["", "train/"])
def test_a_version_of_the_classes_in_a_folder_beside_them_is_refused(top: str, tmp_path: Path) -> None:
    folders = {"ant": 3, "bee": 3, "cat": 3, "augmented/files/ant": 5, "augmented/files/bee": 5}
    files = tree({f"{top}{folder}": count for folder, count in folders.items()}) | tree({"val/ant": 2} if top else {})
    said = "augmented/ has folders of the names of classes beside it, ant, bee, as another version of the set has"
    with pytest.raises(ConfigError, match=rf"{top}{said}: .* data\.train_folders=\[{top}augmented/files/\] takes its"):
        open_tree(tmp_path, files)
    assert counts(open_tree(tmp_path, {}, train_folders=[f"{top}augmented/files/"])) == [10, 0, 0]
    if not top:
        assert open_tree(tmp_path, {}, train_folders=["."]).classes == ("ant", "augmented", "bee", "cat")


def test_the_setting_that_takes_one_of_several_versions_names_the_folder_of_the_classes(tmp_path: Path) -> None:
    """As in Office-31."""
    files = tree({f"{top}/images/{label}": 3 for top in ("amazon", "dslr") for label in ("bike", "mug")})
    with pytest.raises(ConfigError, match=re.escape("data.train_folders=[amazon/images] takes those of one alone")):
        open_tree(tmp_path, files)
    assert open_tree(tmp_path, {}, train_folders=["amazon/images"]).classes == ("bike", "mug")


def test_an_official_set_is_told_which_setting_reads_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = tree({"images/apple_pie": 3, "images/baklava": 3}) | {"meta/classes.txt": b"apple_pie\nbaklava\n"}
    assert open_tree(tmp_path, files).classes == ("apple_pie", "baklava")
    assert "folder: data=food101 reads the official set by its lists" in caplog.text
    files = tree({"images": 3}) | {"annotations/trainval.txt": b"Abyssinian_1 1 1 1\n"}
    with pytest.raises(ConfigError, match=r"; data=pets reads the official set by its lists$"):
        open_tree(tmp_path / "2", files)


def test_images_of_a_sample_submission_have_no_published_classes(tmp_path: Path) -> None:
    """As in plant-pathology of Kaggle, whose test is in the folder of train."""
    files = flat("images/") | {f"images/Train_{i}.jpg": photo(i) for i in range(12)}
    tables = {
        "train.csv": "id,label\n" + "".join(f"Train_{i},{'rust' if i % 2 else 'scab'}\n" for i in range(12)),
        "sample_submission.csv": "id,label\n" + "".join(f"{i},rust\n" for i in range(12)),
    }
    encoded = {name: text.encode() for name, text in tables.items()}
    source = open_tree(tmp_path, files | encoded)
    assert (source.classes, counts(source)) == (("rust", "scab"), [12, 0, 0])
    assert source.unused[0].startswith("12 images without a label in the CSV file (no file has their classes, so they")
    with pytest.raises(ConfigError, match=r"12 images without a label in the CSV file, first images/0\.jpg"):
        open_tree(tmp_path / "2", files | {"train.csv": encoded["train.csv"]})


def test_masks_beside_the_images_of_each_class_are_not_used(tmp_path: Path) -> None:
    """As in COVID-19_Radiography_Dataset of Kaggle."""
    folders = {f"set/{label}/{below}": 3 for label in ("COVID", "Normal") for below in ("images", "masks")}
    source = open_tree(tmp_path, tree(folders))
    assert (source.classes, len(source.labels)) == (("COVID", "Normal"), 6)
    assert source.unused == (
        "6 images in folders of masks, which the classes have beside those of images, first set/COVID/masks/000.jpg",
    )


def test_masks_that_have_the_names_of_their_images_with_a_word_are_not_used(tmp_path: Path) -> None:
    """Also where the classes hold patients, of whom each has few images."""
    files = {f"{label}/{label[0]}{i}/images/{i}.jpg": photo(i) for label in ("benign", "malignant") for i in range(6)}
    files |= {name.replace("images", "masks").replace(".jpg", "_mask.png"): photo(1, "PNG") for name in files}
    source = open_tree(tmp_path, files)
    assert (source.classes, len(source.labels)) == (("benign", "malignant"), 12)
    assert source.unused[0].startswith("12 images in folders of masks")


@pytest.mark.parametrize("top", ["", "train/", "stage1_train/"])
@pytest.mark.parametrize(
    ("sample", "images", "more"),
    [
        ("{:032x}", 1, {}),
        ("case{}", 2, {}),
        ("patient_{}", 5, {"meta.csv": b"patient,label\npatient_0,sick\npatient_1,well\n"}),
        ("1.3.6.{}", 5, {}),
    ],
)
def test_samples_of_a_set_for_segmentation_are_no_classes(
    sample: str, images: int, more: dict[str, bytes], top: str, tmp_path: Path
) -> None:
    """As in the Data Science Bowl of 2018, whose masks have other names than their image."""
    names = [f"{top}{sample.format(77 * i)}" for i in range(12)]
    files = tree({f"{name}/images": images for name in names})
    files |= {f"{name}/masks/{'m' * (images == 1)}{i:03d}.png": photo(i, "PNG") for name in names for i in range(3)}
    others = flat("val/a/", 3) | flat("val/b/", 3) if top == "train/" else {}
    with pytest.raises(ConfigError, match=f"the 12 folders .* have {12 * images} images and their masks, and look li"):
        open_tree(tmp_path, files | more | others)
    assert len(open_tree(tmp_path, {}, train_folders=["train" if top == "train/" else "."]).classes) == 12


@pytest.mark.parametrize("folders", [("photos", "label", ""), ("photos", "masks", "m"), ("images", "annotations", "")])
@pytest.mark.parametrize("top", ["", "train/"])
def test_images_that_may_be_masks_or_not_are_refused(folders: tuple[str, str, str], top: str, tmp_path: Path) -> None:
    pictures, perhaps, begin = folders
    files = tree({f"{top}{label}/{pictures}": 4 for label in ("apple", "pear")})
    files |= {f"{top}{label}/{perhaps}/{begin}00{i}.jpg": photo(i) for label in ("apple", "pear") for i in range(4)}
    with pytest.raises(ConfigError, match=re.escape(f"{top}apple/{perhaps}/{begin}000.jpg may be the mask of an im")):
        open_tree(tmp_path, files)
    assert len(open_tree(tmp_path, {}, train_folders=[top or "."]).labels) == 16


def test_folders_that_most_classes_have_may_be_the_classes(tmp_path: Path) -> None:
    """As in breast-histopathology-images of Kaggle, where the folders above are patients."""
    folders = {f"{patient}/{label}": 2 for patient in range(10) for label in (0, 1) if patient or label}
    with pytest.raises(ConfigError, match="every class has the same folders 0, 1, which count neither as classes nor"):
        open_tree(tmp_path, tree(folders))


@pytest.mark.parametrize(
    "paths", ["train: first\nval: second\n", "path: ../set\ntrain: ../first\nval: ..\\second\nnames: [a, b]\n"]
)
@pytest.mark.parametrize("folders", [("first", "second"), ("val", "train")])
def test_a_yaml_file_that_states_other_splits_is_named_with_the_settings_that_take_them(
    paths: str, folders: tuple[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = folders
    files = tree({f"{top}/{label}": 3 for top in folders for label in "ab"})
    files["data.yaml"] = paths.replace("first", first).replace("second", second).encode()
    said = "data.yaml states other splits than the names of folders: "
    said += f"data.train_folders=[{first}] data.val_folders=[{second}]"
    if first == "val":
        open_tree(tmp_path, files)
        assert said in caplog.text
    else:
        with pytest.raises(ConfigError, match=re.escape(said)):
            open_tree(tmp_path, files)


def test_a_yaml_file_that_states_the_splits_of_the_folders_is_not_mentioned(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = tree({f"{top}/{label}": 3 for top in ("train", "valid") for label in "ab"})
    for text in (b"train: ../train\nval: ../valid/images\nnames: [a, b]\n", b"train: 3\nval: [", b"- train\n"):
        open_tree(tmp_path, files | {"data.yaml": text})
    assert "states other splits" not in caplog.text
