"""WebDataset shards of others: labels, images, splits and addresses; every loss is reported."""

import functools
import gzip
import io
import json
import logging
import pickle
import re
import shutil
import tarfile
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import webdataset
from made_archives import data_settings, photo, write_archive
from serving import serving

from infra.errors import ConfigError, DataError
from models.data.shards import layout, writer
from models.data.sources import index
from models.data.sources.catalog import open_source
from models.data.sources.listing import MINIVAL, TRAIN, VAL, Source
from models.data.sources.wds import addresses

# webdataset's reader and writer leave their files to the garbage collector
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EFFNET_CACHE", str(tmp_path / "cache"))


def write_shards(pattern: Path, samples: list[dict[str, Any]], per_shard: int = 1000) -> Path:
    """Writes shards with webdataset's ShardWriter; every sample gets a key unless it has one."""
    pattern.parent.mkdir(parents=True, exist_ok=True)
    with webdataset.ShardWriter(str(pattern), maxcount=per_shard, verbose=0) as shards:
        for number, sample in enumerate(samples):
            shards.write({"__key__": f"{number:06d}"} | sample)
    return pattern.parent


def numbered(count: int, classes: int = 3, first: int = 0) -> list[dict[str, Any]]:
    return [{"jpg": photo(first + i), "cls": i % classes} for i in range(count)]


def open_shards(path: Path | str, **changes: Any) -> Source:
    return open_source(data_settings("webdataset", **{"path": str(path)} | changes))


def truth(source: Source) -> dict[bytes, str]:
    """Returns the class by image."""
    return {source.read(i): source.classes[label] for i, label in enumerate(source.labels.tolist())}


def test_shards_of_the_shard_writer_are_read_with_their_labels(tmp_path: Path) -> None:
    samples = numbered(25)
    source = open_shards(write_shards(tmp_path / "set" / "a-%06d.tar", samples, 10))
    assert truth(source) == {sample["jpg"]: str(sample["cls"]) for sample in samples}
    assert (source.classes, source.own_val, source.unused) == (("0", "1", "2"), False, ())


@pytest.mark.parametrize(
    ("suffix", "text", "classes"),
    [
        ("cls", "{}.0", ("0", "1", "2")),
        ("json", '{{"label": {}.0}}', ("0", "1", "2")),  # as pandas writes a column with missing numbers
        ("json", '{{"label": "{}."}}', ("0", "1", "2")),
        ("txt", "v{}.5", ("v0.5", "v1.5", "v2.5")),
    ],
)
def test_a_whole_number_may_have_a_point(suffix: str, text: str, classes: tuple[str, ...], tmp_path: Path) -> None:
    samples = [{"jpg": photo(i), suffix: text.format(i % 3).encode()} for i in range(12)]
    source = open_shards(write_shards(tmp_path / "set" / "%d.tar", samples))
    assert source.classes == classes
    assert truth(source) == {sample["jpg"]: classes[i % 3] for i, sample in enumerate(samples)}


def test_yes_and_no_are_two_classes(tmp_path: Path) -> None:
    samples = [{"jpg": photo(i), "json": {"label": i % 2 == 0}} for i in range(12)]
    source = open_shards(write_shards(tmp_path / "set" / "%d.tar", samples))
    assert truth(source) == {sample["jpg"]: str(i % 2 == 0) for i, sample in enumerate(samples)}


def test_a_json_may_have_a_longer_suffix(tmp_path: Path) -> None:
    samples = [{"0.jpg": photo(i), "0.info.json": {"species": f"s{i % 2}"}} for i in range(6)]
    for field in ("0.info.json.species", ".0.info.json.species"):
        source = open_shards(write_shards(tmp_path / "set" / "%d.tar", samples), label_field=field)
        assert source.classes == ("s0", "s1")


@pytest.mark.parametrize("first", ["jpg", "cls"])
def test_members_of_a_sample_that_are_apart_are_named(first: str, tmp_path: Path) -> None:
    """webdataset makes two samples of them."""
    fields = [first, "cls" if first == "jpg" else "jpg"]
    members = [(f"{i:03d}.{one}", photo(i) if one == "jpg" else b"1") for one in fields for i in range(12)]
    write_archive(tmp_path / "set" / "0.tar", members)
    with pytest.raises(ConfigError, match=r"12 samples whose members are apart in the tar \(tar --sort=name puts"):
        open_shards(tmp_path / "set")


def test_keys_with_dots_are_explained(tmp_path: Path) -> None:
    members = [(f"img.{i:03d}.{one}", photo(i) if one == "jpg" else b"1") for i in range(12) for one in ("cls", "jpg")]
    write_archive(tmp_path / "set" / "0.tar", members)
    with pytest.raises(ConfigError, match="24 fields are too many: a field is what follows the first dot of a name"):
        open_shards(tmp_path / "set")


@pytest.mark.parametrize(
    ("spelled", "what"),
    [
        ("set/%06d.tar", r"a range of numbers is written {000..123}"),
        ("set/0.tar,set/1.tar", "several addresses are written with :: between them"),
        ("set/0.tar set/1.tar", "several addresses are written with :: between them"),
    ],
)
def test_lists_in_another_spelling_are_refused(spelled: str, what: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=what):
        open_shards(tmp_path / spelled)


def test_a_key_of_a_json_without_its_suffix_is_told_how_it_is_written(tmp_path: Path) -> None:
    samples = [{"jpg": photo(i), "json": json.dumps({"info": {"species": "ab"[i % 2]}})} for i in range(4)]
    root = write_shards(tmp_path / "set" / "%d.tar", samples)
    with pytest.raises(ConfigError, match=r"; a key of \.json is written json\.info\.species$"):
        open_shards(root, label_field="info.species")
    assert open_shards(root, label_field="json.info.species").classes == ("a", "b")


@pytest.mark.parametrize("spelled", ["CLS", " cls ", ".Cls"])
def test_the_case_of_a_suffix_does_not_count(spelled: str, tmp_path: Path) -> None:
    assert open_shards(write_shards(tmp_path / "set" / "%d.tar", numbered(6)), label_field=spelled).classes == (*"012",)


@pytest.mark.parametrize("text", ['{{"label": {}}}', "{{'label': {}}}"])
def test_the_text_of_an_object_is_no_label(text: str, tmp_path: Path) -> None:
    samples = [{"jpg": photo(i), "cls": text.format(i % 3)} for i in range(12)]
    with pytest.raises(ConfigError, match="12 samples whose cls is no UTF-8 text of one line"):
        open_shards(write_shards(tmp_path / "set" / "%d.tar", samples))


@pytest.mark.parametrize("word", ["nan", "None", "null"])
def test_a_mark_of_a_missing_label_is_said(word: str, tmp_path: Path) -> None:
    samples = [{"jpg": photo(i), "cls": (word, "ant", "bee")[i % 3]} for i in range(12)]
    source = open_shards(write_shards(tmp_path / "set" / "%d.tar", samples))
    assert any(f"the class {word} may stand for images without a label" in line for line in source.class_differences)


@pytest.mark.parametrize("held_out", ["val", "test"])
def test_shards_without_a_split_beside_those_of_val_are_not_guessed(held_out: str, tmp_path: Path) -> None:
    write_shards(tmp_path / "set" / "shard-%d.tar", numbered(6))
    write_shards(tmp_path / "set" / f"{held_out}-%d.tar", numbered(3, first=50))
    with pytest.raises(
        ConfigError, match=r"those of 1 do not, as shard-0\.tar; give the shards of train by data\.path"
    ):
        open_shards(tmp_path / "set")
    shards = f"{tmp_path}/set/shard-0.tar"
    assert len(open_shards(shards, val_path=f"{tmp_path}/set/{held_out}-0.tar").labels) == 9
    assert len(open_shards(f"{tmp_path}/set/{held_out}-0.tar").labels) == 3


def test_numbers_sort_as_numbers_and_names_as_names(tmp_path: Path) -> None:
    numbers = write_shards(tmp_path / "n" / "%d.tar", [{"jpg": photo(i), "cls": i} for i in (10, 9, 100)])
    assert open_shards(numbers).classes == ("9", "10", "100")
    words = write_shards(
        tmp_path / "w" / "%d.tar", [{"jpg": photo(i), "txt": "ant bee"[4 * (i % 2) :][:3]} for i in range(8)]
    )
    assert open_shards(words).classes == ("ant", "bee")


@pytest.mark.parametrize(
    ("fields", "field"), [({"label": 2}, None), ({"meta": {"species": "cat"}}, "json.meta.species")]
)
def test_a_label_may_be_a_key_of_a_json(fields: dict[str, Any], field: str | None, tmp_path: Path) -> None:
    samples = [{"jpg": photo(i), "json": fields | {"caption": f"picture {i}"}, "txt": f"picture {i}"} for i in range(4)]
    source = open_shards(write_shards(tmp_path / "set" / "%05d.tar", samples), label_field=field)
    assert source.classes == (("2",) if field is None else ("cat",))


def test_a_page_in_place_of_an_image_is_named(tmp_path: Path) -> None:
    samples = [{"jpg": b"<!DOCTYPE html><html>404</html>" if i < 12 else photo(i), "cls": i % 2} for i in range(24)]
    said = r"12 samples whose .jpg is web page \(as a failed download leaves: fetch them again\), first 0.tar: 000000"
    with pytest.raises(ConfigError, match=said):
        open_shards(write_shards(tmp_path / "set" / "%d.tar", samples))


def test_raw_images_in_shards_are_no_tiffs_to_convert(tmp_path: Path) -> None:
    samples = [{"nef": photo(i, "TIFF"), "cls": i % 2} for i in range(12)]
    with pytest.raises(ConfigError, match=r"12 camera raw images \(export their pixels as JPEG or PNG"):
        open_shards(write_shards(tmp_path / "set" / "%d.tar", samples), convert=True)


def test_captions_are_not_taken_for_classes(tmp_path: Path) -> None:
    samples = [{"jpg": photo(i), "json": {"url": "x", "kind": 1}, "txt": f"picture {i}"} for i in range(12)]
    with pytest.raises(
        ConfigError, match=r"12 different texts in 12 samples, .*captions.*keys url, kind.*data\.label_field"
    ):
        open_shards(write_shards(tmp_path / "set" / "%05d.tar", samples))


def test_a_class_file_gives_the_names_and_the_order(tmp_path: Path) -> None:
    folder = write_shards(tmp_path / "set" / "%05d.tar", [{"jpg": photo(i), "cls": i % 2} for i in range(4)])
    (tmp_path / "names.txt").write_text("zebra\nant\nbee\n")
    source = open_shards(folder, class_file=str(tmp_path / "names.txt"))
    assert source.classes == ("zebra", "ant", "bee")
    assert truth(source)[photo(1)] == "ant"
    assert source.unused == ("1 classes without images, first bee",)


def test_labels_that_count_from_1_have_the_names_in_their_order_and_the_manifest_says_so(tmp_path: Path) -> None:
    folder = write_shards(tmp_path / "set" / "%05d.tar", [{"jpg": photo(i), "cls": 1 + i % 3} for i in range(9)])
    (tmp_path / "names.txt").write_text("zebra\nant\nbee\n")
    source = open_shards(folder, class_file=str(tmp_path / "names.txt"))
    assert truth(source) == {photo(i): ("zebra", "ant", "bee")[i % 3] for i in range(9)}
    said = f"the labels count from 1 to 3, so 1 is zebra and 3 is bee of {tmp_path}/names.txt"
    assert (source.unused, source.class_differences) == ((), (said,))


@pytest.mark.parametrize(
    "content",
    [
        '{"1": "b", "0": "a", "2": "c"}',
        '{"0": ["n1", "a"], "1": ["n2", "b"], "2": ["n3", "c"]}',
        '{"c": 2, "a": 0, "b": 1}',  # torchvision's class_to_idx
    ],
)
def test_a_class_file_may_have_the_names_by_number(content: str, tmp_path: Path) -> None:
    folder = write_shards(tmp_path / "set" / "%06d.tar", numbered(6))
    (tmp_path / "names.json").write_text(content)
    assert open_shards(folder, class_file=str(tmp_path / "names.json")).classes == ("a", "b", "c")
    (tmp_path / "names.json").write_text('{"1": "b", "2": "c"}')
    with pytest.raises(ConfigError, match=r"names\.json must hold the names of the classes"):
        open_shards(folder, class_file=str(tmp_path / "names.json"))


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (range(12), {0: "1", 1: "10", 2: "11", 3: "12", 11: "9"}),  # ImageFolder's numbers of folders 1 to 12
        (range(1, 13), {1: "1", 2: "2", 10: "10"}),  # the names of these folders
        (range(1, 11), None),
    ],
    ids=["numbers", "names", "either"],
)
def test_a_label_that_is_a_name_and_the_number_of_another_class_is_never_guessed(
    labels: range, expected: dict[int, str] | None, tmp_path: Path
) -> None:
    """Sorted as text, the folders 1 to 12 are 1, 10, 11, 12, 2 and so on, so label 1 is the class 10."""
    samples = [{"jpg": photo(label), "cls": label} for label in labels]
    folder = write_shards(tmp_path / "set" / "%05d.tar", samples)
    (tmp_path / "names.txt").write_text("\n".join(sorted(map(str, range(1, 13)))))
    if expected is None:
        with pytest.raises(ConfigError, match="1 is the name of class 0, and the number of the class '10'; names with"):
            open_shards(folder, class_file=str(tmp_path / "names.txt"))
        return
    stated = truth(open_shards(folder, class_file=str(tmp_path / "names.txt")))
    assert {label: stated[photo(label)] for label in expected} == expected


def test_names_with_leading_zeros_are_the_labels_without_them(tmp_path: Path) -> None:
    """Labels lose the zeros; ids that count from 1 would otherwise be taken as numbers from 0."""
    samples = [{"jpg": photo(label), "cls": f"{label:04d}"} for label in range(1, 13)]
    folder = write_shards(tmp_path / "set" / "%05d.tar", [*samples, {"jpg": photo(20), "cls": "-1"}])
    (tmp_path / "names.txt").write_text("\n".join(f"{label:04d}" for label in range(1, 13)))
    source = open_shards(folder, class_file=str(tmp_path / "names.txt"))
    assert truth(source) == {photo(label): f"{label:04d}" for label in range(1, 13)}
    assert source.unused == ("1 samples without a label in cls, first 00000.tar: 000012",)


def test_members_that_webdataset_would_fail_on_are_counted(tmp_path: Path) -> None:
    """Suffixes that webdataset reserves, and suffixes that differ in case only."""
    members = [("0.jpg", photo(0)), ("0.__key__", b"0"), ("0.cls", b"0"), ("0.JPG", photo(1))]
    members += [("1.__url__", b"x"), ("1.jpg", photo(2)), ("1.cls", b"1")]
    source = open_shards(write_archive(tmp_path / "set" / "0.tar", members))
    assert truth(source) == {photo(0): "0", photo(2): "1"}
    assert source.unused == (
        "1 members whose name an earlier member of the shard has, first 0.tar: 0.JPG",
        "2 members without a suffix, first 0.tar: 0.__key__",
    )


def test_a_label_that_the_class_file_lacks_is_counted(tmp_path: Path) -> None:
    folder = write_shards(tmp_path / "set" / "%05d.tar", numbered(39))
    (tmp_path / "names.json").write_text('["zebra", "ant"]')
    with pytest.raises(
        ConfigError, match=r"13 samples with a label that is none of the 2 classes, as '2', first 00000\.tar"
    ):
        open_shards(folder, class_file=str(tmp_path / "names.json"))


def test_images_are_recognized_by_their_bytes_and_other_fields_are_never_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, tuple[Path]]:
            return (Path.touch, (tmp_path / "executed",))

    members = []
    for i in range(4):
        bomb = pickle.dumps(Bomb())
        parts = {"bin": photo(i, "PNG"), "cls": b"%d" % (i % 2), "pyd": bomb, "pth": bomb, "mask.png": photo(9, "PNG")}
        members += [(f"dir/{i}.{suffix}", content) for suffix, content in parts.items()]
    with caplog.at_level(logging.INFO, "effnet"):
        source = open_shards(write_archive(tmp_path / "set.tar", members))
    assert set(truth(source)) == {photo(i, "PNG") for i in range(4)}
    assert not (tmp_path / "executed").exists()
    assert "4 fields .pyd are not read" in caplog.text
    assert source.unused == ("4 further images of samples, .mask.png, first set.tar: dir/0",)


def test_what_is_no_sample_is_counted_by_reason_and_refused_if_it_is_much(tmp_path: Path) -> None:
    good = [
        (f"{i:03d}.{suffix}", content)
        for i in range(40)
        for suffix, content in (("jpg", photo(i)), ("cls", b"%d" % (i % 2)))
    ]
    bad = [(f"x{i:03d}.jpg", photo(500 + i)) for i in range(4)]
    bad += [(f"y{i:03d}.cls", b"1") for i in range(3)]
    bad += [("z.webp", photo(3, "WEBP")), ("z.cls", b"1"), ("neg.jpg", photo(4)), ("neg.cls", b"-1")]
    bad += [("000.jpg", photo(600)), ("000.jpeg", photo(601)), ("000.cls", b"0"), ("__meta__/x.json", b"{}")]
    path = write_archive(tmp_path / "set.tar", good + bad)
    with pytest.raises(ConfigError) as caught:
        open_shards(path)
    for line in (
        "5 samples without a label in cls, first set.tar: neg",
        "3 samples without an image, first set.tar: y000",
        "1 WebP images (data.convert=true converts them to PNG), first set.tar: z",
        "2 members whose name an earlier member of the shard has, first set.tar: 000.cls",
        "1 samples whose key an earlier sample of the shard has, first set.tar: 000",
    ):
        assert line in str(caught.value)
    source = open_shards(path, allow_partial=True)
    assert len(source.labels) == 40
    assert len(source.unused) == 6
    assert len(open_shards(path, allow_partial=True, convert=True).labels) == 41


@pytest.mark.parametrize("damage", ["truncated", "flipped", "absent", "not a tar"])
def test_a_damaged_shard_is_named_and_what_precedes_the_damage_may_be_used(damage: str, tmp_path: Path) -> None:
    folder = write_shards(tmp_path / "set" / "a-%06d.tar", numbered(40), 10)
    broken = folder / "a-000002.tar"
    data = bytearray(broken.read_bytes())
    if damage == "truncated":
        del data[len(data) // 2 :]
    elif damage == "flipped":
        with tarfile.open(broken) as shard:
            at = shard.getmembers()[11].offset
        data[at] ^= 1
    elif damage == "not a tar":
        data[:] = b"<html>not found</html>" * 100
    broken.write_bytes(data)
    if damage == "absent":
        broken.unlink()
    path = folder / "a-{000000..000003}.tar"
    with pytest.raises(DataError, match=r"1 of 4 are damaged or missing; a-000002\.tar: .*data\.allow_partial=true"):
        open_shards(path)
    source = open_shards(path, allow_partial=True)
    assert 30 <= len(source.labels) < 40
    assert "a-000002.tar" in source.missing[0]
    if damage in ("truncated", "flipped"):
        assert len(source.labels) > 30
    data = data_settings("webdataset", path, allow_partial=True, minival_share=0.3)
    plan = layout.plan(data, f"file://{tmp_path}/store")
    layout.PLANS.share(plan)
    writer.write_group(plan, range(len(plan.names)))
    assert len(writer.write_manifest(plan)[1].table) == len(source.labels)


def test_splits_are_recognized_by_the_names_of_the_shards(tmp_path: Path) -> None:
    for number, name in enumerate(("imagenet1k-train-%04d.tar", "imagenet1k-validation-%02d.tar")):
        write_shards(tmp_path / "set" / name, numbered(6, first=100 * number), 3)
    by_folder = open_shards(tmp_path / "set")
    assert np.bincount(by_folder.split).tolist() == [6, 0, 6]
    by_pattern = open_shards(
        f"{tmp_path}/set/imagenet1k-train-*.tar::{tmp_path}/set/imagenet1k-validation-{{00..01}}.tar"
    )
    assert by_pattern.digest == by_folder.digest
    write_shards(tmp_path / "set" / "test-%d.tar", numbered(3, first=900))
    parts = dict(
        zip(open_shards(tmp_path / "set").names.tolist(), open_shards(tmp_path / "set").split.tolist(), strict=True)
    )
    assert parts[b"test-0/000000.jpg"] == VAL
    assert parts[b"imagenet1k-validation-00/000000.jpg"] == MINIVAL
    assert parts[b"imagenet1k-train-0000/000000.jpg"] == TRAIN
    write_shards(tmp_path / "set" / "extra-%d.tar", numbered(3, first=950))
    with pytest.raises(ConfigError, match=r"those of 1 do not, as extra-0\.tar; .*data\.val_path"):
        open_shards(tmp_path / "set")


def test_shards_of_an_evaluation_beside_a_validation_are_test_as_folders_are(tmp_path: Path) -> None:
    for first, name in enumerate(("training", "validation", "evaluation")):
        write_shards(tmp_path / f"{name}-%d.tar", numbered(4, first=50 * first))
    source = open_shards(tmp_path)
    parts = {bytes(name).split(b"-")[0]: part for name, part in zip(source.names, source.split.tolist(), strict=True)}
    assert parts == {b"training": TRAIN, b"validation": MINIVAL, b"evaluation": VAL}


def test_the_shards_of_val_can_be_given(tmp_path: Path) -> None:
    write_shards(tmp_path / "a" / "%d.tar", numbered(4))
    write_shards(tmp_path / "b" / "%d.tar", numbered(2, first=50))
    source = open_shards(tmp_path / "a", val_path=str(tmp_path / "b" / "0.tar"))
    assert {source.names[i].split(b"/")[0]: part for i, part in enumerate(source.split)} == {b"a": TRAIN, b"b": VAL}
    with pytest.raises(
        ConfigError, match=r"data\.path .* and data\.val_path .* both name 1 shard, first .*0\.tar: data"
    ):
        open_shards(tmp_path / "a", val_path=str(tmp_path / "a"))
    with pytest.raises(ConfigError, match="1 shards are listed twice, first "):
        open_shards(f"{tmp_path}/a/0.tar::{tmp_path}/a")


def test_shards_of_train_and_val_that_are_exchanged_are_refused(tmp_path: Path) -> None:
    write_shards(tmp_path / "set" / "train-%d.tar", numbered(8), 4)
    write_shards(tmp_path / "set" / "val-%d.tar", numbered(4, first=50))
    train, val = f"{tmp_path}/set/train-{{0..1}}.tar", f"{tmp_path}/set/val-0.tar"
    assert len(open_shards(train, val_path=val).labels) == 12
    with pytest.raises(
        ConfigError, match=r"by their names, the shards of data\.path .* are of val .*: exchange the two"
    ):
        open_shards(val, val_path=train)


def test_labels_of_train_and_val_in_two_forms_are_refused(tmp_path: Path) -> None:
    write_shards(tmp_path / "set" / "train-%d.tar", numbered(6))
    write_shards(tmp_path / "set" / "val-%d.tar", [{"jpg": photo(50 + i), "cls": "abc"[i % 3]} for i in range(6)])
    with pytest.raises(ConfigError, match="train and val have no class in common: train has 0, 1, 2, val has a, b, c;"):
        open_shards(tmp_path / "set")


@pytest.mark.parametrize("spelled", ["train-{0..3}.tar", "train-00.tar"])
def test_a_pattern_that_matches_nothing_is_told_a_shard_that_is_there(spelled: str, tmp_path: Path) -> None:
    write_shards(tmp_path / "set" / "train-%03d.tar", numbered(8), 4)
    with pytest.raises(ConfigError, match=r"; .*/set has 2 shards, as .*/set/train-000\.tar$"):
        addresses.check_addresses(data_settings("webdataset", tmp_path / "set" / spelled))


def test_a_hard_link_is_the_member_that_it_names(tmp_path: Path) -> None:
    """GNU tar writes the second of two names of one file so; a link to a member that comes later has no content."""
    with tarfile.open(write_archive(tmp_path / "set" / "0.tar", {}), "w") as archive:
        for name, data in (("0.jpg", photo(0)), ("0.cls", b"0"), ("1.cls", b"1")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for name, target in (("1.jpg", "0.jpg"), ("2.cls", "1.cls"), ("2.jpg", "3.jpg")):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.LNKTYPE, target
            archive.addfile(info)
    source = open_shards(tmp_path / "set")
    assert [(source.read(i), source.classes[source.labels[i]]) for i in range(2)] == [(photo(0), "0"), (photo(0), "1")]
    assert source.unused == ("1 samples without an image, first 0.tar: 2",)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("pipe:touch executed", "neither a local path nor"),
        ("/data/a-{000..1", "a brace is missing"),
        ("/data/a-{000-002}.tar", r"a range is written \{000\.\.123\}, a choice \{a,b\}"),
        ("/data/a-{000..9999999}.tar", "names 10,000,000 shards"),
        ("ftp://host/a.tar", "neither a local path nor"),
        ("https://host/a.tar?key=1", "no address of a shard"),
        ("https://host/a-*.tar", r"wildcards need a list of files, which https:// lacks; a range is written \{000"),
        ("/no/such/*.tar", "names no shards"),
    ],
)
def test_addresses_that_are_none_are_refused(path: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        open_shards(path)
    assert not (tmp_path / "executed").exists()


def test_a_tar_with_folders_of_classes_is_sent_to_data_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no sample with an image and a label .*fields are \.jpg 4.*data=folder"):
        open_shards(write_archive(tmp_path / "set.tar", [(f"{'ab'[i % 2]}/{i}.jpg", photo(i)) for i in range(4)]))


def test_keys_that_several_shards_have_are_reported_and_their_samples_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_shards(tmp_path / "set" / "a-%d.tar", numbered(4))
    write_shards(tmp_path / "set" / "b-%d.tar", numbered(4, first=50))
    assert len(open_shards(tmp_path / "set").labels) == 8
    assert "4 keys are in several shards, as 000000; their samples are all used" in caplog.text


@pytest.mark.parametrize("label", [{}, {"cls": -1}])
def test_shards_of_a_test_that_nobody_labelled_are_in_no_split(label: dict[str, int], tmp_path: Path) -> None:
    write_shards(tmp_path / "set" / "train-%d.tar", numbered(20))
    write_shards(tmp_path / "set" / "test-%d.tar", [{"jpg": photo(100 + i)} | label for i in range(15)])
    assert np.bincount(open_shards(tmp_path / "set").split).tolist() == [20]
    write_shards(tmp_path / "set" / "val-%d.tar", numbered(8, first=50))
    source = open_shards(tmp_path / "set")
    assert np.bincount(source.split, minlength=3).tolist() == [20, 0, 8]
    said = "15 samples of test without a label in cls, which are in no split, first test-0.tar: 000000"
    assert source.unused == (said,)


@pytest.mark.parametrize(
    ("label", "said"),
    [
        ({"txt": "ant"}, "15 samples without a label in cls, which have one in txt"),
        ({"cls": b"\xff"}, "is no UTF-8 text"),
    ],
)
def test_shards_of_a_test_whose_labels_are_not_read_are_refused(
    label: dict[str, Any], said: str, tmp_path: Path
) -> None:
    write_shards(tmp_path / "set" / "train-%d.tar", numbered(20))
    write_shards(tmp_path / "set" / "test-%d.tar", [{"jpg": photo(100 + i)} | label for i in range(15)])
    with pytest.raises(ConfigError, match=f"15 of 35 files would not be used: .*{said}"):
        open_shards(tmp_path / "set")


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "web").mkdir()
    handler = functools.partial(Quiet, directory=str(tmp_path / "web"))
    with serving(ThreadingHTTPServer(("127.0.0.1", 0), handler)) as server:
        yield f"http://127.0.0.1:{server.server_port}"


def test_shards_of_a_web_server_are_downloaded_once(web: str, tmp_path: Path) -> None:
    folder = write_shards(tmp_path / "web" / "a-%06d.tar", numbered(20), 10)
    path = f"{web}/a-{{000000..000001}}.tar"
    source = open_shards(path)
    assert source.digest == open_shards(folder).digest
    shutil.rmtree(folder)
    again = open_shards(path)
    assert again.read(7) == source.read(7)
    with pytest.raises(DataError, match=r"1 of 3 are damaged or missing; a-000002\.tar"):
        open_shards(f"{web}/a-{{000000..000002}}.tar")


def test_the_index_and_the_shards_are_those_of_any_other_set(tmp_path: Path) -> None:
    samples = numbered(60)
    write_shards(tmp_path / "set" / "train-%06d.tar", samples, 10)
    write_shards(tmp_path / "set" / "val-%06d.tar", numbered(12, first=200), 10)
    data = data_settings("webdataset", tmp_path / "set", minival_share=0.2, samples_per_shard=20)
    source = open_source(data)
    index.save(source, uri := f"file://{tmp_path}/index.npz")
    loaded = index.load(data, uri)
    assert [loaded.read(i) for i in range(72)] == [source.read(i) for i in range(72)]
    plan = layout.plan(data, f"file://{tmp_path}/store")
    for number in range(len(plan.names)):
        writer.write_group(plan, [number])
    _, manifest = writer.write_manifest(plan)
    assert sum(manifest.samples(split) for split in ("train", "minival")) == 60
    assert manifest.samples("val") == 12
    labels = {sample["jpg"]: sample["cls"] for sample in samples}
    for path in Path(plan.root.removeprefix("file://")).glob("train-*.tar"):
        for sample in webdataset.WebDataset(str(path), shardshuffle=False):
            assert int(sample["cls"]) == labels[sample["jpg"]]


def test_a_json_that_is_none_is_no_label(tmp_path: Path) -> None:
    members = []
    for i, text in enumerate(
        (b"{", b"[" * 100_000, b'{"label": NaN}', b'{"label": []}', b"\xff", json.dumps({"label": 1}).encode())
    ):
        members += [(f"{i}.jpg", photo(i)), (f"{i}.json", text)]
    source = open_shards(write_archive(tmp_path / "set.tar", members))
    assert (len(source.labels), source.unused) == (1, ("5 samples without a label in json.label, first set.tar: 0",))


@pytest.mark.parametrize(
    ("suffix", "text", "classes"),
    [
        ("json", '{{"label": [{}]}}', ("0", "1", "2")),
        ("json", '{{"label": ["c{}"]}}', ("c0", "c1", "c2")),
        ("cls", "[{}]", ("0", "1", "2")),
        *((suffix, "{0[0]} {0[1]} {0[2]} 0", ("0", "1", "2")) for suffix in ("cls", "txt")),
        ("cls", "[{0[0]}., {0[1]}., {0[2]}., 0.]", ("0", "1", "2")),
        ("json", '{{"label": [{0[0]}, {0[1]}, {0[2]}, 0]}}', ("0", "1", "2")),
        # What str() writes of values that are no plain number or text.
        ("cls", "tensor({})", ("0", "1", "2")),
        ("cls", "tensor([{}], device='cuda:0')", ("0", "1", "2")),
        ("cls", "array([{0[0]}, {0[1]}, {0[2]}], dtype=int64)", ("0", "1", "2")),
        ("cls", "np.int64({})", ("0", "1", "2")),
        ("cls", "b'{}'", ("0", "1", "2")),
        ("cls", '"c{}"', ("c0", "c1", "c2")),
        ("txt", "b'c{}'", ("c0", "c1", "c2")),
        ("cls", "({},)", ("0", "1", "2")),
        ("cls", "('c{}',)", ("c0", "c1", "c2")),
    ],
)
def test_a_list_of_one_label_or_a_one_hot_vector_is_a_label(
    suffix: str, text: str, classes: tuple[str, ...], tmp_path: Path
) -> None:
    labels = [[int(i % 3 == label) for label in range(3)] if "[0]" in text else i % 3 for i in range(12)]
    samples = [{"jpg": photo(i), suffix: text.format(label).encode()} for i, label in enumerate(labels)]
    source = open_shards(write_shards(tmp_path / "set" / "%d.tar", samples))
    assert source.classes == classes
    assert truth(source) == {sample["jpg"]: classes[i % 3] for i, sample in enumerate(samples)}


@pytest.mark.parametrize(
    "texts", [("[0, 1]", "[1]", "[0, 2, 3]"), ("[0, 1, 1]", "[1, 0, 0]"), ("[0.5, 0.5]",), ("[0, 1]", "[0, 1, 0]")]
)
@pytest.mark.parametrize("suffix", ["cls", "json"])
def test_several_labels_of_a_sample_are_refused(suffix: str, texts: tuple[str, ...], tmp_path: Path) -> None:
    samples = [
        {"jpg": photo(i), suffix: (text if suffix == "cls" else f'{{"label": {text}}}').encode()}
        for i, text in enumerate(texts * 12)
    ]
    field = "cls" if suffix == "cls" else "json.label"
    with pytest.raises(ConfigError, match=rf"samples with several labels in {field} \(one is read, also as a one-hot"):
        open_shards(write_shards(tmp_path / "set" / "%d.tar", samples))


def npy(value: object) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array(value))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("suffix", "encode"),
    [
        ("cls.npy", npy),
        ("cls.npy", lambda label: npy(np.eye(3)[label])),
        ("cls", lambda label: str(np.eye(3)[label]).encode()),
        ("json", lambda label: json.dumps({"id": 7, "category": label}).encode()),
        ("json", lambda label: json.dumps({"labels": [label]}).encode()),
    ],
)
def test_labels_in_arrays_and_under_usual_keys_are_read(
    suffix: str, encode: Callable[[int], bytes], tmp_path: Path
) -> None:
    members = [(f"{i}.{one}", data) for i in range(12) for one, data in (("jpg", photo(i)), (suffix, encode(i % 3)))]
    source = open_shards(write_archive(tmp_path / "set.tar", members))
    assert source.classes == ("0", "1", "2")
    assert truth(source) == {photo(i): str(i % 3) for i in range(12)}


@pytest.mark.parametrize(
    ("suffix", "data", "said"),
    [
        ("cls", b"\0\0\0\1\xff", "samples whose cls is no UTF-8 text of one line, whole number or list of them"),
        ("cls.npy", npy(np.array(["a", None], object)), "samples whose cls.npy is no UTF-8 text of one line"),
        (
            "json",
            b'{"label": {"name": "a", "id": 3}}',
            "the .json fields have the keys label.name, label.id: data.label_field=json.label.name takes one",
        ),
    ],
)
def test_a_field_without_a_label_is_named(suffix: str, data: bytes, said: str, tmp_path: Path) -> None:
    members = [(f"{i}.{one}", content) for i in range(12) for one, content in (("jpg", photo(i)), (suffix, data))]
    archive = write_archive(tmp_path / "set.tar", members)
    with pytest.raises(ConfigError, match=re.escape(said)):
        open_shards(archive, label_field=suffix if suffix == "cls.npy" else None)


def test_measurements_are_no_classes(tmp_path: Path) -> None:
    samples = [{"jpg": photo(i), "cls": f"{i / 7:.2f}".encode()} for i in range(12)]
    with pytest.raises(
        ConfigError, match=r"cls has 12 different labels in 12 samples, as 0\.14, which are measurement"
    ):
        open_shards(write_shards(tmp_path / "set" / "%d.tar", samples))


@pytest.mark.parametrize("address", ["s3://b/set/train-*", "s3://b/set/train-*.tar"])
def test_a_wildcard_in_the_object_store_needs_no_suffix(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("train-0.tar", "train-1.tar", "train-0.json", "val-0.tar")
    listed: list[str] = []
    monkeypatch.setattr(
        addresses.archive, "walk_folder", lambda root: listed.append(root) or SimpleNamespace(names=names)
    )
    assert addresses._match(address, []) == ["s3://b/set/train-0.tar", "s3://b/set/train-1.tar"]
    assert listed == ["s3://b/set"]


@pytest.mark.parametrize(
    "beside", ["00002.tar.zst", "00002.tar.part", "00002.parquet", "00002.tar.crdownload", "x.tfrecord"]
)
def test_files_beside_shards_that_may_be_shards_are_named_and_refused(beside: str, tmp_path: Path) -> None:
    folder = write_shards(tmp_path / "set" / "%05d.tar", numbered(6))
    (folder / beside).write_bytes(b"\x28\xb5\x2f\xfd")
    said = rf"1 files beside the \d shards look like more and are not read, as {re.escape(beside)}: decompress"
    with pytest.raises(DataError, match=said):
        open_shards(folder)
    source = open_shards(folder, allow_partial=True)
    assert (len(source.labels), len(source.missing)) == (6, 1)


def test_what_img2dataset_writes_beside_its_shards_is_counted(tmp_path: Path) -> None:
    folder = write_shards(tmp_path / "set" / "%05d.tar", numbered(6))
    for name in ("00000.parquet", "00000_stats.json", "README.md", "metadata.parquet", "urls.arrow"):
        (folder / name).write_bytes(b"PAR1")
    source = open_shards(folder)
    assert source.missing == ()
    assert source.unused == ("5 files beside the shards, first 00000.parquet",)


def test_compressed_copies_and_remains_of_downloads_beside_their_tar_are_counted(tmp_path: Path) -> None:
    """Without that every sample of ``00000.tar.gz`` would be there twice."""
    folder = write_shards(tmp_path / "set" / "%05d.tar", numbered(6))
    for suffix in ("gz", "zst", "part"):
        (folder / f"00000.tar.{suffix}").write_bytes(gzip.compress((folder / "00000.tar").read_bytes()))
    source = open_shards(folder)
    assert (len(source.labels), source.missing) == (6, ())
    assert source.unused == ("3 files beside the shards, first 00000.tar.gz",)


def test_a_folder_without_shards_says_what_it_has(tmp_path: Path) -> None:
    (tmp_path / "train-0.tar.zst").write_bytes(b"\x28\xb5\x2f\xfd")
    with pytest.raises(ConfigError, match=r"names no shards .*; it contains 1 other files, first .*train-0\.tar\.zst"):
        open_shards(tmp_path)


def test_shards_with_short_names_of_splits_are_these(tmp_path: Path) -> None:
    write_shards(tmp_path / "tr-%03d.tar", numbered(6))
    source = open_shards(write_shards(tmp_path / "te-%03d.tar", numbered(3, first=6)))
    assert np.bincount(source.split, minlength=3).tolist() == [6, 0, 3]


@pytest.mark.parametrize(
    ("names", "is_said"), [(("treino", "teste"), True), (("00-4f1a", "01-9c2e"), False), (("part_1", "part_2"), False)]
)
def test_shards_of_few_names_are_said_to_be_all_train(
    names: tuple[str, str], is_said: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number, name in enumerate(names):
        write_shards(tmp_path / f"{name}-%03d.tar", numbered(3, first=3 * number))
    assert open_shards(tmp_path).own_val is False
    assert (f"the shards of {' and '.join(sorted(names))} are all train, and a part" in caplog.text) == is_said


def with_two(first: Callable[[int], str], second: Callable[[int], Any]) -> list[dict[str, Any]]:
    return [{"jpg": photo(i), "cls": first(i), "json": {"Label": second(i)}} for i in range(12)]


@pytest.mark.parametrize(
    ("samples", "said"),
    [
        (
            with_two(lambda i: str(i % 2), lambda i: i % 4),
            "the classes are the 2 labels of cls, and not the 4 of json.l",
        ),
        (
            with_two(lambda i: "0", lambda i: "ab"[i % 2]),
            "the classes are the 1 labels of cls, and not the 2 of json.la",
        ),
        (
            with_two(lambda i: "ab"[i % 2], lambda i: "ba"[i % 2]),
            "and not the 2 of json.label, which divide the samples",
        ),
        (with_two(lambda i: str(i % 2), lambda i: "ab"[i % 2]), ""),
        (with_two(lambda i: str(i % 2), lambda i: f"a photo {i}"), ""),
        (with_two(lambda i: str(i % 2), lambda i: "all"), ""),
    ],
)
def test_a_field_that_divides_the_samples_in_another_way_is_said(
    samples: list[dict[str, Any]], said: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    open_shards(write_shards(tmp_path / "%03d.tar", samples))
    assert ("in another way" in caplog.text, said in caplog.text) == (bool(said), True)


@pytest.mark.parametrize(
    ("numbers", "said"), [((0, 2, 3), "as if shards were missing: no s-001.tar"), ((0, 1), ""), ((0, 90), "")]
)
def test_gaps_in_the_numbers_of_shards_are_said(
    numbers: tuple[int, ...], said: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number in numbers:
        folder = write_shards(tmp_path / "new" / "%d.tar", numbered(3, first=3 * number))
        (folder / "0.tar").rename(tmp_path / f"s-{number:03d}.tar")
    open_shards(tmp_path)
    assert ("have gaps" in caplog.text, said in caplog.text) == (bool(said), True)


def test_names_of_classes_beside_shards_with_numbers_are_named_with_their_setting(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_shards(tmp_path / "s-%03d.tar", numbered(6))
    (tmp_path / "classnames.txt").write_text("ant\nbee\ncat\n")
    with caplog.at_level(logging.INFO, "effnet"):
        open_shards(tmp_path)
    assert f"data.class_file={tmp_path}/classnames.txt would give the classes their names" in caplog.text


@pytest.mark.parametrize(
    ("field", "content", "said"),
    [
        (
            "target.pyd",
            pickle.dumps(1),
            r"; \.target\.pyd are pickles, which are not read, since one could run code: if ",
        ),
        ("cls.pth", b"PK\3\4\0\0\0\0\0\0", r"; \.cls\.pth are pickles, which are not read"),
        ("label.txt", b"1", r"; \.label\.txt may have the labels: data\.label_field=label\.txt reads these"),
        ("index", b"1", r"; \.index may have the labels: data\.label_field=index reads these"),
        (
            "npz",
            b"PK\3\4\0\0\0\0\0\0",
            r"; \.npz are not read: write the shards again with the labels as text, as \.cls",
        ),
        ("yaml", b"label: 1", r"; \.yaml are not read: write the shards again with the labels as text"),
        ("json", b'{"image": {"label": 1}}', r"keys image\.label: data\.label_field=json\.image\.label takes one"),
        ("json", b'{"label": {"id": 1, "name": "ant"}}', r"label\.name: data\.label_field=json\.label\.name takes one"),
    ],
)
def test_a_field_that_may_have_the_labels_is_named_with_what_to_do(
    field: str, content: bytes, said: str, tmp_path: Path
) -> None:
    members = [(f"{i}.{one}", data) for i in range(6) for one, data in (("jpg", photo(i)), (field, content))]
    write_archive(tmp_path / "a.tar", members)
    with pytest.raises(ConfigError, match=said):
        open_shards(tmp_path)


def test_pickles_that_a_setting_names_are_not_read_either(tmp_path: Path) -> None:
    samples = [{"jpg": photo(i), "target.pyd": pickle.dumps(i % 3)} for i in range(6)]
    with pytest.raises(ConfigError, match=r"\.target\.pyd are pickles, which are not read, since one could run code"):
        open_shards(write_shards(tmp_path / "set" / "%d.tar", samples), label_field="target.pyd")


def test_images_that_are_not_read_are_no_missing_labels(tmp_path: Path) -> None:
    samples = [{"webp": photo(i, "WEBP"), "cls": i % 3} for i in range(6)]
    with pytest.raises(ConfigError, match="no sample with an image that is read") as refusal:
        open_shards(write_shards(tmp_path / "set" / "%d.tar", samples))
    assert "label_field" not in str(refusal.value)


def test_numbers_in_some_shards_and_names_in_others_are_no_classes_of_one_set(tmp_path: Path) -> None:
    """They were twice as many classes, of which each shard had its half."""
    names = ("ant", "bee", "cat")
    for number, labels in enumerate((range(3), names)):
        members = [
            (f"{i}.{one}", data)
            for i, label in enumerate(labels)
            for one, data in (("jpg", photo(10 * number + i)), ("cls", str(label).encode()))
        ]
        write_archive(tmp_path / "set" / f"a-{number}.tar", members)
    with pytest.raises(
        ConfigError, match=r"labels of 1 shards are numbers, and of 1 names: a-0.tar has 0, 1, 2, a-1.tar"
    ):
        open_shards(tmp_path / "set")
    (tmp_path / "names.txt").write_text("\n".join(names))
    source = open_shards(tmp_path / "set", class_file=str(tmp_path / "names.txt"))
    assert truth(source) == {photo(10 * number + i): name for number in range(2) for i, name in enumerate(names)}


def test_digits_and_letters_in_one_shard_are_classes(tmp_path: Path) -> None:
    samples = [{"jpg": photo(i), "cls": "0a1b"[i % 4]} for i in range(8)]
    assert open_shards(write_shards(tmp_path / "set" / "%d.tar", samples, 4)).classes == ("0", "1", "a", "b")


def test_a_label_in_another_field_is_said_of_a_sample_without_one(tmp_path: Path) -> None:
    samples: list[dict[str, Any]] = [{"jpg": photo(i), "cls": i % 3} for i in range(9)]
    samples += [{"jpg": photo(i), "json": {"label": i % 3}} for i in range(10, 12)]
    source = open_shards(write_shards(tmp_path / "set" / "%d.tar", samples))
    assert source.unused == ("2 samples without a label in cls, which have one in json.label, first 0.tar: 000009",)


def test_compressed_shards_alone_are_named(tmp_path: Path) -> None:
    (tmp_path / "a-0.tar.zst").write_bytes(b"\x28\xb5\x2f\xfd")
    with pytest.raises(
        ConfigError, match=r"names no shards .*; a-0\.tar\.zst is not read: decompress such files to \.tar"
    ):
        open_shards(tmp_path)


@pytest.mark.parametrize(
    ("members", "said", "unsaid"),
    [
        (
            {"npy": npy(np.zeros((8, 8, 3), np.uint8)), "cls": b"1"},
            "arrays and pickles are no images: write these",
            "label_field",
        ),
        ({"pyd": b"\x80\4K\1.", "cls": b"1"}, "arrays and pickles are no images: write these enc", "labels as text"),
    ],
)
def test_images_that_are_not_encoded_are_no_labels(
    members: dict[str, bytes], said: str, unsaid: str, tmp_path: Path
) -> None:
    write_archive(tmp_path / "a.tar", [(f"{i}.{field}", data) for i in range(6) for field, data in members.items()])
    with pytest.raises(ConfigError, match=f"no sample with an image that is read.*{said}") as refusal:
        open_shards(tmp_path)
    assert unsaid not in str(refusal.value)


def test_members_that_are_apart_need_no_other_label_field(tmp_path: Path) -> None:
    members = [(f"{i}.jpg", photo(i)) for i in range(6)] + [(f"{i}.cls", b"1") for i in range(6)]
    write_archive(tmp_path / "a.tar", members)
    with pytest.raises(ConfigError, match="6 samples whose members are apart in the tar") as refusal:
        open_shards(tmp_path)
    assert "data.label_field" not in str(refusal.value)


def test_a_class_file_of_other_names_is_said(tmp_path: Path) -> None:
    folder = write_shards(tmp_path / "set" / "%d.tar", [{"jpg": photo(i), "cls": "ABC"[i % 3]} for i in range(6)])
    (tmp_path / "names.txt").write_text("a\nb\nc\n")
    said = r"no sample with a label that is one of the classes.* 6 samples with .* none of the 3 classes, as 'A', first"
    with pytest.raises(ConfigError, match=said):
        open_shards(folder, class_file=str(tmp_path / "names.txt"))


def test_a_table_beside_shards_without_labels_is_named(tmp_path: Path) -> None:
    folder = write_shards(tmp_path / "set" / "%d.tar", [{"jpg": photo(i)} for i in range(6)])
    (folder / "labels.csv").write_text("key,label\n000000,1\n")
    with pytest.raises(ConfigError, match=r"labels\.csv beside the shards is not read: if it has the labels by key"):
        open_shards(folder)


def test_a_file_with_fewer_names_than_classes_is_not_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_shards(tmp_path / "s-%03d.tar", numbered(6))
    (tmp_path / "zeroshot_classification_templates.txt").write_text("a photo of a {c}.\n")
    (tmp_path / "class_weights.json").write_text('{"a": 0.5, "b": 1.5}')
    with caplog.at_level(logging.INFO, "effnet"):
        open_shards(tmp_path)
    assert "data.class_file" not in caplog.text
