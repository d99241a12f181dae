"""User data as people bring them: splits, formats, depth, labels in CSV files, archives; every loss is reported."""

import bz2
import gzip
import io
import logging
import lzma
import os
import re
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from made_archives import data_settings, photo, write_archive, write_tree

from infra.errors import ConfigError, DataError
from models.data.sources.catalog import open_source
from models.data.sources.files import decompress, tar
from models.data.sources.folders import folder_classes
from models.data.sources.listing import MINIVAL, TRAIN, VAL, Source


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EFFNET_CACHE", str(tmp_path / "cache"))


def tree(folders: dict[str, int], kind: str = "JPEG", suffix: str = "jpg") -> dict[str, bytes]:
    """Returns numbered images in each of the folders."""
    return {f"{folder}/{i:03d}.{suffix}": photo(i, kind) for folder, count in folders.items() for i in range(count)}


def open_tree(tmp_path: Path, files: dict[str, bytes], **changes: object) -> Source:
    return open_source(data_settings("folder", write_tree(tmp_path / "set", files), **changes))


def by_part(source: Source) -> list[int]:
    return np.bincount(source.split, minlength=3).tolist()


@pytest.mark.parametrize(
    ("train", "held_out"),
    [
        ("train", "valid"),
        ("train", "validation"),
        ("Training", "Testing"),
        ("TRAIN", "Val"),
        ("tRain", "tESt"),
        ("seg_train", "seg_test"),
        ("Train Images", "Test Images"),
        ("train_1", "test_1"),
        ("train", "dev"),
        ("train", "eval"),
    ],
)
def test_the_usual_names_of_splits_are_taken(train: str, held_out: str, tmp_path: Path) -> None:
    source = open_tree(tmp_path, tree({f"{train}/a": 4, f"{train}/b": 4, f"{held_out}/a": 2, f"{held_out}/b": 2}))
    assert (source.classes, by_part(source), source.unused) == (("a", "b"), [8, 0, 4], ())
    assert all(
        (name.split(b"/")[0] == train.encode()) == (part == TRAIN)
        for name, part in zip(source.names, source.split, strict=True)
    )


def test_of_two_held_out_folders_test_is_val_and_val_is_minival(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "effnet"):
        source = open_tree(
            tmp_path, tree({f"{one}/{label}": 3 for one in ("train", "validation", "test") for label in "ab"})
        )
    parts = {name.split(b"/")[0]: part for name, part in zip(source.names.tolist(), source.split.tolist(), strict=True)}
    assert parts == {b"train": TRAIN, b"validation": MINIVAL, b"test": VAL}
    assert "train/ is train, validation/ is minival, test/ is val" in caplog.text


def test_a_train_folder_alone_is_the_train_split(tmp_path: Path) -> None:
    source = open_tree(tmp_path, tree({"train/a": 3, "train/b": 3}))
    assert (source.classes, source.own_val, by_part(source)) == (("a", "b"), False, [6, 0, 0])


@pytest.mark.parametrize(
    "classes",
    [
        ("bus", "car", "train"),
        ("beaker", "flask", "test_tube"),
        ("bus_station", "test_track", "train_station"),
        ("test_match", "training_shoe", "valley"),
        ("Freight Train", "Passenger Train", "Tram"),
        ("toy train set", "train set"),
        ("tests", "trains"),
        ("1train", "2buses"),
    ],
)
@pytest.mark.parametrize("split", ["", "train/"])
def test_a_class_with_the_word_of_a_split_is_a_class(split: str, classes: tuple[str, ...], tmp_path: Path) -> None:
    source = open_tree(tmp_path, tree({f"{split}{label}": 3 for label in classes}))
    assert (source.classes, by_part(source)) == (classes, [3 * len(classes), 0, 0])


def test_train_and_test_without_classes_beside_another_folder_are_refused_unless_a_setting_says_what_they_are(
    tmp_path: Path,
) -> None:
    """Kaggle's sets have further folders of images, as ``train_masks``; a table has the classes of those that count."""
    files = tree({"bus": 3, "train": 4, "test": 3})
    said = r"by their names train/ as train, test/ as val were taken, and not bus: data\.train_folders and data\.val_f"
    with pytest.raises(ConfigError, match=said):
        open_tree(tmp_path, files)
    assert open_tree(tmp_path, files, train_folders=["."]).classes == ("bus", "test", "train")
    files["train.csv"] = b"id,label\n000,a\n001,b\n002,a\n003,b\n"
    source = open_tree(tmp_path / "2", files, allow_partial=True)
    assert (source.classes, by_part(source)) == (("a", "b"), [4, 0, 0])
    assert source.unused[0] == "3 images in folders that are no split, first bus/000.jpg"


def test_a_folder_with_the_classes_of_train_is_no_class(tmp_path: Path) -> None:
    said = (
        r"12 images in folders that are no split \(data\.train_folders=\[train\] data\.val_folders=\[extra\] takes them"
    )
    with pytest.raises(ConfigError, match=said):
        open_tree(tmp_path, tree({f"{top}/{label}": 4 for top in ("train", "extra") for label in "abc"}))
    nested = tree({f"{top}/photos": 4 for top in ("bus", "car", "train")})
    assert open_tree(tmp_path / "2", nested).classes == ("bus", "car", "train")


def test_several_train_folders_are_all_train(tmp_path: Path) -> None:
    source = open_tree(tmp_path, tree({f"{top}/{label}": 4 for top in ("train1", "train2", "val") for label in "ab"}))
    assert (source.classes, by_part(source)) == (("a", "b"), [16, 0, 8])


def test_folders_that_hold_no_images_are_no_classes(tmp_path: Path) -> None:
    root = write_tree(
        tmp_path / "set", tree({"a": 9, "b": 9}) | {"labels/000.txt": b"0", "$RECYCLE.BIN/x.jpg": photo(1)}
    )
    (root / "loop").symlink_to(root)
    (root / "empty").mkdir()
    assert open_source(data_settings("folder", root)).classes == ("a", "b", "empty")


def test_names_that_look_alike_are_said(tmp_path: Path) -> None:
    files = tree(
        {"train/caf\u00e9": 3, "train/Cat": 3, "val/cafe\u0301": 3, "val/cat": 3, "train/dog": 1, "val/dog": 1}
    )
    with pytest.raises(
        ConfigError, match=r"but for Unicode normalization and upper and lower case, as 'cafe\\u0301' is"
    ):
        open_tree(tmp_path, files)
    assert open_tree(tmp_path / "2", files, allow_partial=True).class_differences[-1] == (
        r"classes whose names look alike: 'Cat', 'cat'; 'cafe\u0301', 'caf\xe9'"
    )


def test_held_out_folders_without_train_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has val and test, but no train folder beside them"):
        open_tree(tmp_path, tree({"val/a": 3, "test/a": 3}))


@pytest.mark.parametrize("top", ["", "set/"])
def test_an_empty_train_folder_beside_a_full_val_is_refused(top: str, tmp_path: Path) -> None:
    (tmp_path / "set" / top / "train").mkdir(parents=True)
    with pytest.raises(ConfigError, match=f"{top}train/ is empty, all images are in {top}val/; nothing can be trained"):
        open_tree(tmp_path, tree({f"{top}val/a": 3, f"{top}val/b": 3}))
    (tmp_path / "set" / top / "train").rmdir()
    assert open_tree(tmp_path, {}).classes == ("a", "b")


def test_images_of_a_class_are_found_at_any_depth(tmp_path: Path) -> None:
    source = open_tree(tmp_path, tree({"a": 2, "a/x/y": 3, "b/z": 1}))
    assert (source.classes, np.bincount(source.labels).tolist(), source.unused) == (("a", "b"), [5, 1], ())


@pytest.mark.parametrize("top", ["", "set/", "data/images/"])
def test_common_top_folders_are_skipped_and_do_not_change_the_digest(top: str, tmp_path: Path) -> None:
    files = tree({"a": 3, "b": 3})
    plain = open_source(data_settings("folder", write_tree(tmp_path / "plain", files)))
    moved = {f"{top}{name}": data for name, data in files.items()}
    folder = open_tree(tmp_path, moved | {"README.md": b"text"})
    packed = open_source(data_settings("folder", write_archive(tmp_path / "set.tar", moved | {"LICENSE": b"text"})))
    assert folder.digest == packed.digest == plain.digest
    assert folder.unused == ("1 files that are no images, first README.md",)


def test_a_doubled_split_folder_is_that_folder(tmp_path: Path) -> None:
    source = open_tree(tmp_path, tree({f"{one}/{one}/{label}": 3 for one in ("train", "val") for label in "ab"}))
    assert (source.classes, by_part(source)) == (("a", "b"), [6, 0, 6])


def test_images_are_recognized_by_their_bytes(tmp_path: Path) -> None:
    source = open_tree(tmp_path, tree({"a": 2}, suffix="jfif") | tree({"b": 2}, "PNG", "image") | {"a/x": b"text"})
    assert (len(source.labels), source.classes) == (4, ("a", "b"))
    assert source.unused == ("1 files that are no images, first a/x",)


@pytest.mark.parametrize(("kind", "suffix"), [("WebP", "webp"), ("BMP", "bmp"), ("GIF", "gif"), ("TIFF", "tif")])
def test_many_images_of_another_format_are_refused_named_or_taken(kind: str, suffix: str, tmp_path: Path) -> None:
    files = tree({"a": 20, "b": 20}) | tree({"b/other": 11}, kind, suffix)
    with pytest.raises(ConfigError, match=rf"11 of 51 files would not be used: 11 {kind} files \(data.convert=true"):
        open_tree(tmp_path, files)
    source = open_tree(tmp_path, files, allow_partial=True)
    assert (len(source.labels), source.unused[0].partition(" (")[0]) == (40, f"11 {kind} files")
    assert len(open_tree(tmp_path, files, convert=True).labels) == 51


def test_ten_unused_images_are_accepted_and_named(tmp_path: Path) -> None:
    source = open_tree(tmp_path, tree({"a": 5}) | tree({"b": 10}, "WebP", "webp"))
    assert source.unused == (
        "10 WebP files (data.convert=true converts them to PNG), first b/000.webp",
        "1 classes without images, first b",
    )


@pytest.mark.parametrize(
    ("extra", "reason"),
    [
        (tree({"extra/a": 11}), "11 images in folders that are no split, first extra/a/000.jpg"),
        ({f"train/{i}.jpg": photo(i) for i in range(11)}, "11 images without a label in train/, first train/0.jpg"),
        (
            {f"dev/{i}.jpg": photo(i) for i in range(11)},
            "11 images without a label in dev/ (data.train_folders=[train] data.val_folders=[val] trains without "
            "them), first dev/0.jpg",
        ),
        (
            tree({"test/odd": 11}),
            "11 images without a label in test/ (its folders odd are none of the classes) (data.train_folders=[train] "
            "data.val_folders=[val] trains without them), first test/odd/000.jpg",
        ),
        (
            {f"train/a/{i}.heic": b"\0\0\0\x18ftypheic" for i in range(11)},
            "11 HEIC files (convert them to JPEG or PNG), first train/a/0.heic",
        ),
    ],
)
def test_what_is_not_used_is_counted_and_refused(extra: dict[str, bytes], reason: str, tmp_path: Path) -> None:
    files = tree({"train/a": 10, "train/b": 10, "val/a": 5, "val/b": 5})
    with pytest.raises(ConfigError, match=re.escape(f"11 of 41 files would not be used: {reason}")):
        open_tree(tmp_path, files | extra)
    source = open_tree(tmp_path, files | extra, allow_partial=True)
    assert (by_part(source), source.unused) == ([20, 0, 10], (reason,))


def test_dead_links_are_counted_and_a_link_to_a_folder_above_ends(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "set", tree({"a": 20, "b": 20}))
    (root / "a" / "loop").symlink_to(root)
    for i in range(10):
        (root / "a" / f"dead{i}.jpg").symlink_to("/nowhere/x.jpg")
    with pytest.raises(ConfigError, match=r"11 links that lead to no file, first a/dead0.jpg"):
        open_source(data_settings("folder", root))


def test_files_of_the_operating_system_are_counted_but_never_refused(tmp_path: Path) -> None:
    shadows = {f"a/._{i:03d}.jpg": b"\0\5\x16\7" for i in range(20)} | {"a/Thumbs.db": b"\xd0\xcf", ".DS_Store": b"x"}
    source = open_tree(tmp_path, tree({"a": 10, "b": 10}) | shadows)
    assert source.unused == ("22 hidden files and files of the operating system, first .DS_Store",)


@pytest.mark.parametrize("packed", [False, True])
def test_a_class_folder_that_is_hidden_is_counted_by_image_and_refused(packed: bool, tmp_path: Path) -> None:
    """ImageFolder takes such a class; a trash or a notebook's checkpoints are none."""
    files = tree({"a": 10, "b": 10, ".net": 11})
    more = {
        ".ipynb_checkpoints/a.jpg": photo(1),
        ".Trash-1000/files/b.jpg": photo(2),
        "a/.x.jpg": b"",
        ".net/x.txt": b"x",
    }
    path = (
        own_tar(tmp_path / "x.tar", [*(files | more).items()]) if packed else write_tree(tmp_path / "set", files | more)
    )
    reason = "11 images in folders whose name begins with a dot, first .net/000.jpg"
    with pytest.raises(ConfigError, match=f"11 of 31 files would not be used: {reason}"):
        open_source(data_settings("folder", path))
    source = open_source(data_settings("folder", path, allow_partial=True))
    assert source.classes == ("a", "b")
    assert source.unused[0] == reason
    assert source.unused[1:] == (
        ("4 hidden files and files of the operating system, first .Trash-1000/files/b.jpg",)
        if packed
        else (
            "2 folders of the operating system or of programs, whose files are not counted, first .Trash-1000/",
            "2 hidden files and files of the operating system, first .net/x.txt",
        )
    )


@pytest.mark.parametrize(
    "text",
    [
        "ImageId,PredictionString\n000,a 1 2 3 4\n001,b 5 6 7 8 b 1 1 2 2\n",
        "id,score,label\n000.jpg,0.5,a\n001.jpg,0.25,b\n",
        '\ufefflabel,path\na,"images/000.jpg"\nb,"images/001.jpg"\n',
    ],
)
def test_labels_of_a_flat_folder_are_read_from_a_csv_file(text: str, tmp_path: Path) -> None:
    files = tree({"train/a": 3, "train/b": 3, "val": 2}) | {"LOC_val_solution.csv": text.encode()}
    files |= {"LOC_sample_submission.csv": b"ImageId,PredictionString\n000,b 0 0 1 1\n001,b 0 0 1 1\n"}
    source = open_tree(tmp_path, files)
    rows = zip(source.names.tolist(), source.labels.tolist(), source.split.tolist(), strict=True)
    assert [row for row in rows if row[2] == VAL] == [(b"val/000.jpg", 0, VAL), (b"val/001.jpg", 1, VAL)]


def test_two_csv_files_that_disagree_are_refused(tmp_path: Path) -> None:
    files = tree({"train/a": 3, "train/b": 3, "val": 1})
    with pytest.raises(ConfigError, match=r"val/000.jpg is a and b, in x.csv and y.csv; keep one"):
        open_tree(tmp_path, files | {"x.csv": b"id,label\n000,a\n", "y.csv": b"id,label\n000,b\n"})


def test_classes_of_train_and_val_are_compared(tmp_path: Path) -> None:
    source = open_tree(tmp_path, tree({"train/a": 3, "train/b": 3, "val/b": 3, "val/c": 3}))
    assert source.classes == ("a", "b", "c")
    assert source.class_differences == (
        "train has no image of 1 of 3 classes: c",
        "val has no image of 1 of 3 classes: a",
    )


def test_a_class_name_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    root = os.fsencode(write_tree(tmp_path / "set", tree({"b": 2})))
    os.makedirs(root + b"/caf\xe9")  # noqa: PTH103 - pathlib takes no bytes
    with pytest.raises(ConfigError, match="has a name that is not UTF-8"):
        open_source(data_settings("folder", Path(os.fsdecode(root))))


def test_a_class_name_that_only_the_locale_cannot_read_is_not_to_be_renamed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.getfilesystemencoding", lambda: "ascii")
    with pytest.raises(
        ConfigError, match=r"folder Füchse cannot be read in the locale's encoding, ascii: set LC_ALL=C"
    ):
        folder_classes._refuse_undecodable([b"F\xc3\xbcchse".decode("ascii", "surrogateescape")], "/images")


@pytest.mark.parametrize(
    ("tops", "below"), [(("entrenamiento", "prueba"), ("x", "y")), (("all", "backup"), ("x", "y"))]
)
def test_folders_that_every_class_has_are_refused_unless_the_top_folders_are_said_to_be_the_classes(
    tops: tuple[str, str], below: tuple[str, str], tmp_path: Path
) -> None:
    """They are the classes of splits with names that are not known, or of several versions of a set."""
    files = tree({f"{top}/{folder}": 3 for top in tops for folder in below})
    said = f"every class has the same folders {', '.join(below)}, which count neither as classes nor as splits"
    with pytest.raises(ConfigError, match=said):
        open_tree(tmp_path, files)
    source = open_tree(tmp_path, files, train_folders=["."])
    assert (source.classes, source.class_differences[0].startswith(said)) == (tops, True)
    assert open_tree(tmp_path, files, val_folders=[tops[1]]).classes == below


def test_folders_that_every_class_of_train_has_are_said(tmp_path: Path) -> None:
    source = open_tree(tmp_path, tree({f"train/{label}/{below}": 3 for label in ("ant", "bee") for below in "xy"}))
    said = "every class has the same folders x, y, which count neither as classes nor as splits: data.class_level=2"
    assert source.class_differences[0].startswith(said)
    assert len(source.class_differences[0]) < 200


def test_folders_that_divide_no_class_are_not_said(tmp_path: Path) -> None:
    assert open_tree(tmp_path, tree({"a/x": 3, "b/x": 3, "c": 3})).class_differences == ()


@pytest.mark.parametrize("part", ["", "train/"])
@pytest.mark.parametrize(("alone", "lost"), [("Pinus/one", ""), ("Pinus", "Pinus, which have no such folder")])
def test_genera_of_several_species_beside_one_are_said_with_the_level_of_the_species(
    part: str, alone: str, lost: str, tmp_path: Path
) -> None:
    held_out = {"val/Aves": 2, "val/Pinus": 2} if part else {}
    folders = {f"{part}Aves/sp1": 3, f"{part}Aves/sp2": 3, f"{part}{alone}": 3} | held_out
    (said,) = open_tree(tmp_path, tree(folders)).class_differences
    assert said.startswith(f"1 of 2 classes have several folders (sp1, sp2 in {part}Aves), whose images count as those")
    assert "data.class_level=2 takes the folders of that level as the classes" in said
    assert said.endswith(lost or "as the classes")
    assert open_tree(tmp_path / "2", tree({"a/2024": 3, "b/2024": 3})).class_differences == ()


def test_images_named_as_masks_of_others_are_said(tmp_path: Path) -> None:
    """As in the ultrasound images of BUSI, ``benign (1).png`` beside ``benign (1)_mask.png``."""
    files = tree({"a": 3, "b": 3, "with_mask": 2}) | {
        f"a/{i:03d}_mask{end}.png": photo(i) for i, end in ((0, ""), (1, "_1"))
    }
    source = open_tree(tmp_path, files)
    assert source.class_differences == (
        "2 images are named as masks of others and count as images, first a/000_mask.png",
    )


@pytest.mark.parametrize(
    ("files", "what"),
    [
        (
            {"a.tar": b"x" * 99 + b"\0", "b.tar": b"y\0"},
            "it contains 2 archives, first a.tar: unpack them, or take data=webdataset",
        ),
        ({"train.zip": b"PK\3\4", "val.zip": b"PK\3\4"}, "it contains 2 archives, first train.zip: unpack them$"),
        (
            {r"set\ant\1.jpg": photo(1)},
            "names with backslashes are those of a Windows archive: give data.path the archive",
        ),
        (
            {"1.jpg": photo(1), "1.cls": b"1"},
            "data=webdataset reads shards, tars with NAME.jpg beside NAME.cls or NAME.json",
        ),
    ],
)
def test_what_else_a_tree_without_classes_may_be_is_said(files: dict[str, bytes], what: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=what):
        open_tree(tmp_path, files)


def test_the_message_about_no_images_names_an_archive_in_the_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"contains the archive photos.zip, which data.path may name"):
        open_tree(tmp_path, {"photos.zip": b"PK\x03\x04"})


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("data/train-0.parquet", b"PAR1" + bytes(99), "1 files that are no images, first data/train-0.parquet"),
        ("x/data.mdb", bytes(99), "1 files of unknown format, first x/data.mdb"),
    ],
)
def test_files_of_other_formats_are_named_where_no_image_is(
    name: str, content: bytes, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=rf"no usable images in .*; {message}; {name} "):
        open_tree(tmp_path, {name: content})


def test_an_empty_folder_and_one_that_does_not_exist_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"its top folder contains nothing$"):
        open_source(data_settings("folder", tmp_path))
    with pytest.raises(ConfigError, match=rf"data\.path '\S+/x y ' does not exist; of its folders, {tmp_path} does$"):
        open_source(data_settings("folder", tmp_path / "x y "))  # the quotes show the space at the end


def own_tar(path: Path, entries: list[tarfile.TarInfo | tuple[str, bytes]]) -> Path:
    with tarfile.open(path, "w") as writer:
        for entry in entries:
            if isinstance(entry, tarfile.TarInfo):
                writer.addfile(entry)
            else:
                info = tarfile.TarInfo(entry[0])
                info.size = len(entry[1])
                writer.addfile(info, io.BytesIO(entry[1]))
    return path


def link(kind: bytes, name: str, target: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


PAIR = [("set/a/1.jpg", photo(1)), ("set/b/2.jpg", photo(2))]


def test_an_own_archive_may_have_any_name(tmp_path: Path) -> None:
    entries = [
        ("set/猫/2024:1*?.jpg", photo(1)),
        ("set/Blåhaj/x|y.jpg", photo(2)),
        ("set/" + "l" * 200 + "/3.jpg", photo(3)),
    ]
    source = open_source(data_settings("folder", own_tar(tmp_path / "x.tar", [*entries])))
    assert source.classes == ("Blåhaj", "l" * 200, "猫")


def test_what_a_backup_notes_in_a_tar_is_no_lost_file(tmp_path: Path) -> None:
    notes = [link(kind, name, "") for kind, name in ((b"D", "set/"), (b"D", "set/a/"), (b"V", "backup of Monday"))]
    source = open_source(data_settings("folder", own_tar(tmp_path / "x.tar", [*notes, *PAIR])))
    assert source.unused == ()
    sparse = link(b"S", "set/a/hole.jpg", "")
    source = open_source(data_settings("folder", own_tar(tmp_path / "y.tar", [*PAIR, sparse])))
    assert source.unused == ("1 sparse files of a tar, first set/a/hole.jpg",)
    described = tarfile.TarInfo("set/a/GNUSparseFile.7/hole.jpg")  # as GNU tar --format=pax --sparse writes it
    described.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.name": "set/a/hole.jpg"}
    source = open_source(data_settings("folder", own_tar(tmp_path / "z.tar", [*PAIR, described])))
    assert source.unused == ("1 sparse files of a tar, first set/a/hole.jpg",)


def test_absolute_names_of_an_own_archive_are_read_below_its_root(tmp_path: Path) -> None:
    """As ``tar -P`` writes them, and as ``tar`` extracts them."""
    hard = link(tarfile.LNKTYPE, "/data/a/hard.jpg", "/data/a/1.jpg")
    pair = [(f"/data/{name}", data) for name, data in (("a/1.jpg", photo(1)), ("b/2.jpg", photo(2)))]
    source = open_source(data_settings("folder", own_tar(tmp_path / "x.tar", [*pair, hard])))
    assert source.names.tolist() == [b"a/1.jpg", b"a/hard.jpg", b"b/2.jpg"]
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as writer:
        for name, data in pair:
            writer.writestr(name, data)
    assert open_source(data_settings("folder", tmp_path / "x.zip")).names.tolist() == [b"a/1.jpg", b"b/2.jpg"]


def test_links_in_an_own_archive_are_the_files_that_they_name(tmp_path: Path) -> None:
    links = [
        link(tarfile.LNKTYPE, "set/a/hard.jpg", "set/a/1.jpg"),
        link(tarfile.SYMTYPE, "set/a/soft.jpg", "../b/2.jpg"),
        link(tarfile.SYMTYPE, "set/a/out.jpg", "../../../etc/passwd"),
        link(tarfile.SYMTYPE, "set/a/chain.jpg", "soft.jpg"),
        link(tarfile.SYMTYPE, "set/c", "b"),
        link(tarfile.SYMTYPE, "set/d", "d"),
    ]
    source = open_source(data_settings("folder", own_tar(tmp_path / "x.tar", [*PAIR, *links])))
    content = {name: source.read(i) for i, name in enumerate(source.names.tolist())}
    first = {b"a/1.jpg": photo(1), b"a/hard.jpg": photo(1)}
    assert content == first | dict.fromkeys([b"a/soft.jpg", b"a/chain.jpg", b"b/2.jpg", b"c/2.jpg"], photo(2))
    assert source.unused == ("2 links that lead to no file, first set/a/out.jpg",)


def test_links_to_folders_of_links_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each folder has two links to the one before: 2^N files from an archive of N kilobytes."""
    monkeypatch.setattr(tar, "MAX_MEMBERS", 1000)
    links = [link(tarfile.SYMTYPE, f"set/d{i}/{name}", f"../d{i - 1}") for i in range(1, 40) for name in "xy"]
    with pytest.raises(DataError, match=r"x.tar contains more than 1000 files"):
        open_source(data_settings("folder", own_tar(tmp_path / "x.tar", [("set/d0/1.jpg", photo(1)), *links])))


def test_the_last_of_two_members_counts(tmp_path: Path) -> None:
    source = open_source(data_settings("folder", own_tar(tmp_path / "x.tar", [*PAIR, ("set/a/1.jpg", photo(9))])))
    assert [source.read(i) for i in range(2)] == [photo(9), photo(2)]


def test_a_tar_that_is_appended_to_another_continues_it(tmp_path: Path) -> None:
    first, second = (own_tar(tmp_path / f"{i}.tar", [pair]).read_bytes() for i, pair in enumerate(PAIR))
    path = tmp_path / "x.tar"
    path.write_bytes(first + second)
    assert open_source(data_settings("folder", path)).names.tolist() == [b"a/1.jpg", b"b/2.jpg"]
    path.write_bytes(first + b"more")
    with pytest.raises(DataError, match=r"x.tar ends before byte 10240 of 10244, and what follows is no tar"):
        open_source(data_settings("folder", path))


@pytest.mark.parametrize("name", ["x.tar", "x.zip", "x.tar.gz", "x.tbz2", "download"])
@pytest.mark.parametrize("kind", ["tar", "gzip", "bzip2", "xz", "zip"])
def test_an_archive_is_recognized_by_its_bytes(kind: str, name: str, tmp_path: Path) -> None:
    plain = own_tar(tmp_path / "plain", [*PAIR])
    path = tmp_path / name
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as writer:
            for file, data in PAIR:
                writer.writestr(file, data)
    else:
        pack = {"tar": bytes, "gzip": gzip.compress, "bzip2": bz2.compress, "xz": lzma.compress}[kind]
        path.write_bytes(pack(plain.read_bytes()))
    assert open_source(data_settings("folder", path)).names.tolist() == [b"a/1.jpg", b"b/2.jpg"]


@pytest.mark.parametrize(
    ("head", "what"),
    [
        (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
        (b"Rar!\x1a\x07", "a RAR archive"),
        (b"\x28\xb5\x2f\xfd", "compressed by Zstandard"),
    ],
)
@pytest.mark.parametrize("name", ["x.tar", "x.tar.zst", "x.zip"])
def test_an_archive_that_is_not_read_is_named(head: bytes, what: str, name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(head + bytes(1000))
    with pytest.raises(DataError, match=f"is {what}, which is not read; unpack it and give the folder"):
        open_source(data_settings("folder", tmp_path / name))


@pytest.mark.parametrize(
    ("content", "what"),
    [(b"version https://git-lfs.github.com/spec/v1\noid", "a Git LFS pointer"), (b"<!DOCTYPE html>", "a web page")],
)
@pytest.mark.parametrize("name", ["x.tar", "x.zip", "x"])
def test_a_download_that_is_no_archive_is_named(content: bytes, what: str, name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=f"{name} is {what}"):
        open_source(data_settings("folder", tmp_path / name))


@pytest.mark.parametrize("top", ["", "set/"])
@pytest.mark.parametrize(
    ("images", "packed", "said"),
    [
        (
            "val",
            ("train/a.tar", "train/b.tar"),
            "train/ has no images that are read, but 2 other files, first .*: extract",
        ),
        ("val", ("train.zip",), "train.zip has no images .* and all images are in {top}val: unpack it; data"),
        (
            "val",
            ("train/labels.csv",),
            "train/ has no images .* other files, first .*, and all images are in {top}val; data.train_folders=",
        ),
        ("train", ("val/a.tar", "val/b.tar"), "val/ has no images .* and all images are in {top}train: extract each"),
    ],
)
def test_archives_in_place_of_the_images_of_a_split_are_refused(
    images: str, packed: tuple[str, ...], said: str, top: str, tmp_path: Path
) -> None:
    """As of ImageNet, whose archive of train has an archive of each class; the images of val became train and val."""
    files = tree({f"{top}{images}/{word}": 6 for word in "ab"}) | {f"{top}{name}": b"a\0" for name in packed}
    with pytest.raises(ConfigError, match=f"{top}{said.format(top=top)}"):
        open_tree(tmp_path, files)


@pytest.mark.parametrize("name", ["test.zip", "train.zip", "annotations/train/a.xml"])
def test_archives_beside_the_folders_of_splits_are_no_splits(name: str, tmp_path: Path) -> None:
    source = open_tree(tmp_path, tree({"train/a": 6, "train/b": 6}) | {name: b"a\0"})
    assert by_part(source) == [12, 0, 0]


def test_images_of_train_in_another_format_are_no_version_of_those_of_val(tmp_path: Path) -> None:
    """They were excluded where both are numbered, and the images of val became train."""
    files = tree({"val/a": 12, "val/b": 12}) | {
        f"train/{c}/{i:03d}.webp": photo(i, "WebP") for c in "ab" for i in range(12)
    }
    with pytest.raises(ConfigError, match=r"24 WebP files \(data\.convert=true converts them to PNG\)"):
        open_tree(tmp_path, files)
    assert by_part(open_tree(tmp_path, {}, convert=True)) == [24, 0, 24]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n",
            "is a Git LFS pointer and not the archive: git lfs",
        ),
        (b"<!DOCTYPE html><html>Virus scan warning</html>", "is text and no archive: download it again"),
        (b"", "is empty and no archive: download it again"),
    ],
)
def test_what_has_the_name_of_an_archive_in_a_folder_is_no_path_to_give(
    content: bytes, said: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=f"photos.zip {said}") as refusal:
        open_tree(tmp_path, {"photos.zip": content})
    assert "which data.path may name" not in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x.iso", bytes(600), "is neither a folder nor an archive .*; unpack or mount it, and give the folder"),
        ("x.cpio", b"070701", "; unpack or mount it, and give the folder"),
        ("x.zip.aria2", bytes(600), "; its name is that of a download that has not finished"),
        (
            "x.zip",
            b'{"error": "not found"}',
            "is JSON text and no archive, as an error that a server reports; download",
        ),
        ("x.jpg.gz", gzip.compress(photo(1)), "is a gzip file of something else than a tar: decompress it"),
        ("x.z01", b"PK\7\x08" + bytes(600), "is the first part of a divided zip, which is not read; unpack it"),
    ],
)
def test_files_that_are_no_archives_are_named(name: str, content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises((ConfigError, DataError), match=f"{re.escape(name)} {'.*' * said.startswith(';')}{said}"):
        open_source(data_settings("folder", tmp_path / name))


def test_names_in_a_tar_that_are_not_utf8_are_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = own_tar(tmp_path / "x.tar", [(name.replace("/a/", "/caf\udce9/"), data) for name, data in PAIR])
    assert open_source(data_settings("folder", path)).classes == ("b", r"caf\xe9")
    said = [record.message for record in caplog.records if "UTF-8" in record.message]
    assert said == [rf"{path}: 1 names are not UTF-8, and their bytes are written as in set/caf\xe9/1.jpg"]


def test_names_in_a_zip_are_utf8_with_and_without_the_flag(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as writer:
        for name, data in PAIR:
            writer.writestr(name.replace("/a/", "/QQQQ/"), data)
    packed = (tmp_path / "x.zip").read_bytes()
    (tmp_path / "x.zip").write_bytes(packed.replace(b"QQQQ", "a\u732b".encode()))
    assert open_source(data_settings("folder", tmp_path / "x.zip")).classes == ("a\u732b", "b")
    assert "code page 437" not in caplog.text
    (tmp_path / "y.zip").write_bytes(packed.replace(b"QQQQ", b"caf\x82"))
    assert open_source(data_settings("folder", tmp_path / "y.zip")).classes == ("b", "caf\u00e9")
    assert "y.zip: 1 names are not UTF-8 and are read as code page 437, first set/caf\u00e9/1.jpg" in caplog.text


def test_the_unicode_path_field_of_a_zip_is_read_as_python_reads_it() -> None:
    """From Python 3.12 on, zipfile puts its text into the name and leaves the flag as it is."""
    entry = zipfile.ZipInfo("?.png")
    entry.filename = "\u56fe.png"
    assert decompress._name_of(entry) == "\u56fe.png"
    assert decompress._has_utf8_name(entry)


def test_backslashes_separate_folders_where_no_name_has_a_slash(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as writer:
        for name, data in PAIR:
            info = zipfile.ZipInfo("x")
            info.filename = name.replace("/", "\\")
            writer.writestr(info, data)
    assert open_source(data_settings("folder", tmp_path / "x.zip")).names.tolist() == [b"a/1.jpg", b"b/2.jpg"]


def test_several_streams_of_an_xz_file_are_read(tmp_path: Path) -> None:
    """As pixz and ``cat a.xz b.xz`` write them; zeros between them are allowed."""
    whole = own_tar(tmp_path / "x.tar", [*PAIR]).read_bytes()
    packed = [lzma.compress(part) for part in (whole[:700], whole[700:])]
    (tmp_path / "x.tar.xz").write_bytes(bytes(8).join(packed) + bytes(4))
    assert open_source(data_settings("folder", tmp_path / "x.tar.xz")).classes == ("a", "b")
    (tmp_path / "y.tar.xz").write_bytes(packed[0] + b"other")
    with pytest.raises(DataError, match=r"y\.tar\.xz is damaged or truncated"):
        open_source(data_settings("folder", tmp_path / "y.tar.xz"))


@pytest.mark.parametrize("name", ["x.tar.aa", "x.zip.001", "x.part1"])
def test_a_part_of_a_divided_archive_is_named(name: str, tmp_path: Path) -> None:
    own_tar(tmp_path / "x.tar", [*PAIR])
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as writer:
        writer.write(tmp_path / "x.tar")
    whole = (tmp_path / ("x.zip" if "zip" in name else "x.tar")).read_bytes()
    (tmp_path / name).write_bytes(whole[:1100])
    with pytest.raises(DataError, match=rf"{name} is by its name a part of a divided file: join all parts"):
        open_source(data_settings("folder", tmp_path / name))


def test_the_last_part_of_a_divided_zip_is_named(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as writer:
        writer.writestr(*PAIR[0])
    whole = (tmp_path / "x.zip").read_bytes()
    (tmp_path / "x.z01").write_bytes(whole[:100])
    (tmp_path / "x.zip").write_bytes(whole[100:])
    with pytest.raises(DataError, match=r"x\.zip is the last part of a divided zip: join the parts, as with zip -s 0"):
        open_source(data_settings("folder", tmp_path / "x.zip"))


@pytest.mark.parametrize("name", ["../x.jpg", "set/../../x.jpg", "/../x.jpg", "//set/../../x.jpg"])
def test_a_name_that_leads_out_of_an_own_archive_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is outside the archive"):
        open_source(data_settings("folder", own_tar(tmp_path / "x.tar", [*PAIR, (name, photo(1))])))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    "stray", ["README.jpg", "logo.png", "set/logo.png", "set/preview.webp", ".DS_Store", "Thumbs.db"]
)
def test_a_single_file_beside_the_top_folder_does_not_hide_the_splits(stray: str, packed: bool, tmp_path: Path) -> None:
    files = tree({f"set/{split}/{label}": 6 for split in ("train", "val") for label in "ab"})
    files[stray] = photo(99, "WebP" if stray.endswith("webp") else "PNG")
    path = own_tar(tmp_path / "x.tar", [*files.items()]) if packed else write_tree(tmp_path / "set", files)
    source = open_source(data_settings("folder", path))
    assert (source.classes, by_part(source)) == (("a", "b"), [12, 0, 12])
    assert len(source.unused) == 1
    assert source.unused[0].endswith(f"first {stray.removeprefix('set/')}")


def test_many_files_beside_the_top_folder_are_a_set_of_their_own(tmp_path: Path) -> None:
    """A class whose images are beside a folder of further ones is not skipped."""
    files = tree({"cats": 8, "cats/more": 4})
    assert open_tree(tmp_path, files).classes == ("cats",)


ARCHIVE_BYTES = {
    ".zip": b"PK\3\4",
    ".tar": b"a/1.jpg" + bytes(93),
    ".7z": b"7z\xbc\xaf\x27\x1c",
    ".tar.gz": b"\x1f\x8b",
}


@pytest.mark.parametrize("suffix", ARCHIVE_BYTES)
def test_archives_of_classes_beside_folders_of_classes_are_named_and_refused(suffix: str, tmp_path: Path) -> None:
    packed = {f"class{i}{suffix}": ARCHIVE_BYTES[suffix] for i in (1, 2)}
    files = tree({"class3": 6, "class4": 6}) | packed
    reason = rf"2 archives in the folder \(unpack them, they are not read\), first class1{suffix}"
    with pytest.raises(ConfigError, match=f"2 of 14 files would not be used: {reason}"):
        open_tree(tmp_path, files)
    assert open_tree(tmp_path, files, allow_partial=True).classes == ("class3", "class4")


def test_archives_that_were_unpacked_beside_them_are_only_counted(tmp_path: Path) -> None:
    packed = {f"class{i}.zip": b"PK\3\4" for i in (1, 2)}
    source = open_tree(tmp_path, tree({"class1": 6, "class2": 6}) | packed | {"notes.docx": b"PK\3\4"})
    assert source.unused == (
        "2 archives beside the folder of their name, first class1.zip",
        "1 files that are no images, first notes.docx",
    )


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a/{i}.svg", b"<?xml version='1.0'?><svg></svg>", "11 SVG files, first a/0.svg"),
        ("a/{i}.avif", b"\0\0\0\x1cftypavif", r"11 AVIF files \(convert them to JPEG or PNG\), first a/0.avif"),
        ("a/{i}.heic", b"\0\0\0\x1cftypheic", r"11 HEIC files \(convert them to JPEG or PNG\), first a/0.heic"),
        ("a/.{i}.jpg.icloud", b"bplist00", r"11 placeholders of files that are in iCloud only \(.*\), first a/.0.jpg"),
    ],
)
def test_pictures_that_are_not_read_are_named_by_format_and_refused(
    name: str, content: bytes, reason: str, tmp_path: Path
) -> None:
    files = tree({"a": 5, "b": 5}) | {name.format(i=i): content for i in range(11)}
    with pytest.raises(ConfigError, match=f"11 of 21 files would not be used: {reason}"):
        open_tree(tmp_path, files)


@pytest.mark.parametrize(
    "system",
    [
        *("@Recycle", "@eaDir", "#recycle", "$RECYCLE.BIN", "__MACOSX", "lost+found", ".ipynb_checkpoints"),
        *(".@__thumb", "@Recently-Snapshot", "System Volume Information", ".Trash-1000", "__pycache__"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_folders_of_systems_are_never_classes(system: str, packed: bool, tmp_path: Path) -> None:
    files = tree({"a": 3, "b": 3, f"a/{system}": 2}) | {f"{system}/{i}.jpg": photo(i) for i in range(40)}
    path = own_tar(tmp_path / "x.tar", [*files.items()]) if packed else write_tree(tmp_path / "set", files)
    source = open_source(data_settings("folder", path))
    assert (source.classes, len(source.labels)) == (("a", "b"), 6)
    assert len(source.unused) == 1
    said = "42 hidden files and files" if packed else "2 folders"
    assert source.unused[0].startswith(f"{said} of the operating system")


def test_a_folder_of_videos_is_no_class(tmp_path: Path) -> None:
    source = open_tree(
        tmp_path, tree({"a": 3, "b": 3}) | {"clips/1.mp4": b"\0\0\0\x18ftypmp42", "model/x.bin": b"\0\1"}
    )
    assert source.classes == ("a", "b")
    assert source.unused == ("1 unknown files, first model/x.bin", "1 video files, first clips/1.mp4")


@pytest.mark.parametrize(
    ("folders", "others", "unused"),
    [
        (
            ("Images/n1-Chihuahua", "Images/n2-Maltese"),
            ("images.tar", "annotation.tar", "lists.tar", "Annotation/n1/1", "lists/train.mat"),
            (
                "2 files of other formats outside Images/, first Annotation/n1/1",
                "3 archives beside the folder of their name, first annotation.tar",
            ),
        ),
        (
            ("101_ObjectCategories/ant", "101_ObjectCategories/bee"),
            ("101_ObjectCategories.tar.gz", "Annotations.tar", *(f"Boxes/ant/{i}.mat" for i in range(20))),
            ("1 archives in the folder (unpack them, they are not read), first Annotations.tar", "1 archives beside"),
        ),
        (
            ("train/n1", "train/n2", "val/n1", "val/n2"),
            ("ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar", "ILSVRC2012_devkit_t12.tar.gz"),
            ("3 archives in the folder (unpack them, they are not read), first ILSVRC2012_devkit_t12.tar.gz",),
        ),
        (
            ("2750/Forest", "2750/River"),
            ("EuroSAT.zip", "EuroSATallBands.zip"),
            ("2 archives in the folder (unpack them, they are not read), first EuroSAT.zip",),
        ),
        (
            ("ant", "bee"),
            ("images.tar.zst", "train.zip"),
            ("2 archives in the folder (unpack them, they are not read), first images.tar.zst",),
        ),
    ],
    ids=["Stanford Dogs", "caltech-101", "ImageNet", "EuroSAT", "no class"],
)
def test_archives_of_public_sets_beside_what_was_unpacked_are_only_counted(
    folders: tuple[str, ...], others: tuple[str, ...], unused: tuple[str, ...], tmp_path: Path
) -> None:
    heads = {
        name: b"\x1f\x8b" if name.endswith("gz") else b"PK\3\4" if name.endswith("zip") else b"" for name in others
    }
    files = {name: head or b"a/1.jpg" + bytes(93) for name, head in heads.items()} | {"LICENSE": b"text"}
    source = open_tree(tmp_path, tree(dict.fromkeys(folders, 6)) | files)
    assert source.classes == tuple(sorted({name.rpartition("/")[2] for name in folders}))
    assert len(source.labels) == 6 * len(folders)
    assert all(any(line.startswith(said) for line in source.unused) for said in unused), source.unused


@pytest.mark.parametrize("top", ["", "train/", "dogs-vs-cats/train/"])
def test_the_classes_may_be_in_the_names_of_the_images(top: str, tmp_path: Path) -> None:
    """As in dogs-vs-cats of Kaggle."""
    files = {f"{top}{label}.{i}.jpg": photo(i) for label in ("cat", "dog") for i in range(8)}
    source = open_tree(tmp_path, files)
    assert source.classes == ("cat", "dog")
    assert [source.classes[label] for label in source.labels] == ["cat"] * 8 + ["dog"] * 8


def test_the_classes_of_held_out_images_may_be_in_their_names_too(tmp_path: Path) -> None:
    names = {"train": range(8), "test": range(8, 11)}
    files = {
        f"{top}/{label}.{i}.jpg": photo(i)
        for top, numbers in names.items()
        for label in ("cat", "dog")
        for i in numbers
    }
    source = open_tree(tmp_path, files)
    assert by_part(source) == [16, 0, 6]
    assert all(source.classes[label] in str(name) for name, label in zip(source.names, source.labels, strict=True))


@pytest.mark.parametrize("names", ["IMG_{}.jpg DSC_{}.jpg", "cat.{}.jpg {}.jpg", "cat.{}.jpg cat.1{}.jpg"])
def test_names_that_may_be_those_of_cameras_are_no_classes(names: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no folders of classes"):
        open_tree(tmp_path, {name.format(i): photo(i) for i in range(8) for name in names.split()})


def test_hymenoptera_is_read_from_its_archive_folder(tmp_path: Path) -> None:
    folders = {f"hymenoptera_data/{top}/{label}": 5 for top in ("train", "val") for label in ("ants", "bees")}
    source = open_tree(tmp_path, tree(folders) | {"hymenoptera_data.zip": b"PK\3\4"})
    assert (source.classes, by_part(source)) == (("ants", "bees"), [10, 0, 10])
    assert source.unused == ("1 archives beside the folder of their name, first hymenoptera_data.zip",)


@pytest.mark.parametrize(
    ("held_out", "said"),
    [
        (
            ("cat", "fire truck"),
            "are classes of train but for upper and lower case, as 'cat' is 'Cat', 'fire truck' is 'Fire ",
        ),
        (("Cat", "Fire_truck"), ""),  # one is a class of train
        (
            ("CAT ", "Fire-truck"),
            "upper and lower case and spaces, points, hyphens and underscores, as 'CAT ' is 'Cat'",
        ),
        (
            ("cAT", "fire truck"),
            "upper and lower case, as 'cAT' is 'Cat', 'fire truck' is 'Fire truck': rename them as in train",
        ),
        (("x", "y"), r"\(its folders x, y are none of the classes\)"),
    ],
)
def test_a_held_out_split_of_which_nothing_is_left_is_refused_whatever_its_size(
    held_out: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    files = tree({"training/Cat": 9, "training/Fire truck": 9} | {f"validation/{name}": 2 for name in held_out})
    match = rf"{said}.*; nothing is left of validation/\." if said else "split are classes of train but for spaces"
    with pytest.raises(ConfigError, match=match):
        open_tree(tmp_path, files)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (tree({"val/a": 2, "val/b": 2}, "WebP", "webp"), "4 WebP files"),
        (tree({"val": 3}), "3 images without a label in val/"),
    ],
)
def test_a_held_out_split_without_a_usable_image_is_not_drawn_instead(
    files: dict[str, bytes], said: str, tmp_path: Path
) -> None:
    files |= tree({"train/a": 20, "train/b": 20})
    with pytest.raises(ConfigError, match=rf"{said}.*; nothing is left of val/\."):
        open_tree(tmp_path, files)
    assert by_part(open_tree(tmp_path / "2", files, allow_partial=True)) == [40, 0, 0]


def test_all_images_are_val_where_the_settings_say_so(tmp_path: Path) -> None:
    source = open_tree(tmp_path, tree({"a": 3, "b": 2}), val_folders=["."])
    assert (source.classes, by_part(source), source.own_val) == (("a", "b"), [0, 0, 5], True)
    drawn = open_tree(tmp_path / "2", tree({"a": 3, "b": 2}))
    assert (drawn.names.tolist(), drawn.labels.tolist()) == (source.names.tolist(), source.labels.tolist())
    assert drawn.digest != source.digest


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"val_folders": [".", "a"]},
            r"data\.val_folders=\[\.\] takes all folders as classes, so data\.val_folders has no",
        ),
        ({"train_folders": ["."], "val_folders": ["a"]}, r"data\.train_folders=\[\.\] takes all"),
        ({"train_folders": ["a"], "val_folders": ["."]}, r"data\.val_folders=\[\.\] takes all"),
        ({"val_folders": ["."], "append": True}, r"data\.append is about images that are trained on"),
    ],
)
def test_a_refusal_names_the_setting_that_was_given(settings: dict[str, object], said: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=said):
        data_settings("folder", tmp_path, **settings)


def test_numbers_in_another_form_are_named_as_such(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match="classes of train but for the form of their numbers, as '1' is '01', '2' is '02'"
    ):
        open_tree(tmp_path, tree({"train/01": 9, "train/02": 9, "val/1": 2, "val/2": 2}))


def test_a_split_among_the_classes_of_train_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"train/val/ is a split by its name, .* classes a, b beside it: move it out of"
    ):
        open_tree(tmp_path, tree({"train/a": 9, "train/b": 9, "train/val/a": 3, "train/val/b": 3}))
    assert open_tree(tmp_path / "2", tree({"train/a": 9, "train/b": 9, "train/test": 9})).classes == ("a", "b", "test")


def test_a_single_folder_with_the_classes_of_train_is_not_dropped(tmp_path: Path) -> None:
    files = tree({"train/a": 9, "train/b": 9, "hold/a": 2, "hold/b": 2})
    with pytest.raises(ConfigError, match=r"val_folders=\[hold\] takes them as val\), .*; nothing is left of hold/"):
        open_tree(tmp_path, files)
    assert by_part(open_tree(tmp_path / "2", files, train_folders=["train"])) == [18, 0, 0]


def test_a_held_out_split_that_is_an_archive_or_a_dead_link_is_not_drawn_instead(tmp_path: Path) -> None:
    files = tree({"train/a": 9, "train/b": 9})
    write_archive(write_tree(tmp_path / "1" / "set", files) / "val.zip", tree({"a": 1, "b": 1}))
    with pytest.raises(ConfigError, match=r"unpack them, .*; nothing is left of val\.zip"):
        open_source(data_settings("folder", tmp_path / "1" / "set"))
    (write_tree(tmp_path / "2" / "set", files) / "val").symlink_to(tmp_path / "absent")
    with pytest.raises(ConfigError, match=r"1 links that lead to no file, first val; nothing is left of val\."):
        open_source(data_settings("folder", tmp_path / "2" / "set"))
    drawn = open_source(data_settings("folder", tmp_path / "2" / "set", train_folders=["train"]))
    assert by_part(drawn) == [18, 0, 0]
    others = {"val.csv.gz": gzip.compress(b"x,y\n"), ".val/a/0.jpg": photo(1), "test.zip": b"PK\3\4"}
    assert by_part(open_tree(tmp_path / "3", files | others)) == [18, 0, 0]


@pytest.mark.parametrize("empty", ["val", "val/a"])
def test_an_empty_folder_of_a_held_out_split_is_said(empty: str, tmp_path: Path) -> None:
    root = write_tree(tmp_path / "set", tree({"train/a": 9, "train/b": 9}))
    (root / empty).mkdir(parents=True)
    source = open_source(data_settings("folder", root))
    assert source.class_differences == ("val/ has no images, so val is drawn from train",)


def test_of_a_single_folder_between_splits_and_classes_the_level_is_named(tmp_path: Path) -> None:
    files = tree({"train/images/a": 9, "train/images/b": 9, "val/images/a": 3, "val/images/b": 3})
    with pytest.raises(ConfigError, match=r"; data\.class_level=2 takes the folders in it as classes, a, b$"):
        open_tree(tmp_path, files)
    assert by_part(open_tree(tmp_path / "2", files, class_level=2)) == [18, 0, 6]


@pytest.mark.parametrize(
    ("held_out", "said"),
    [
        ("hot%20dog", "percent signs as in addresses, as 'hot%20dog' is 'hot dog'"),
        ("hot dog\u200b", r"invisible characters, as 'hot dog\\u200b' is 'hot dog'"),
        ("hot dog ", "spaces, points, hyphens and underscores, as 'hot dog ' is 'hot dog'"),
        ("hot. dog", "spaces, points, hyphens and underscores, as 'hot. dog' is 'hot dog'"),
    ],
)
def test_a_class_of_val_in_another_spelling_is_refused_with_what_differs(
    held_out: str, said: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=f"are classes of train but for {said}: rename them"):
        open_tree(tmp_path, tree({"train/hot dog": 9, "train/b": 9, f"val/{held_out}": 2, "val/b": 2}))


def test_divisions_of_one_set_with_splits_of_their_own_are_no_classes(tmp_path: Path) -> None:
    files = tree({f"split{i}/{part}/{name}": 3 for i in (1, 2) for part in ("train", "val") for name in "ab"})
    with pytest.raises(ConfigError, match=f"data.path={tmp_path}/set/split1 takes one of them"):
        open_tree(tmp_path, files)


def test_a_held_out_split_whose_classes_are_a_folder_deeper_is_named_with_its_settings(tmp_path: Path) -> None:
    files = tree({"train/a": 9, "train/b": 9, "val/images/a": 2, "val/images/b": 2})
    settings = r"\(data.train_folders=\[train\] data.val_folders=\[val/images\] takes the classes in that folder\)"
    with pytest.raises(ConfigError, match=settings):
        open_tree(tmp_path, files)
    source = open_tree(tmp_path / "2", files, train_folders=["train"], val_folders=["val/images"])
    assert by_part(source) == [18, 0, 4]


def test_a_held_out_folder_of_texts_alone_is_said(tmp_path: Path) -> None:
    source = open_tree(tmp_path, tree({"train/a": 9, "train/b": 9}) | {"val/a/0.txt": b"boxes"})
    assert source.class_differences == ("val/ has no images, so val is drawn from train",)
