"""CIFAR's pickles: read with the result of the standard unpickler, and without executing anything in them."""

import io
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkout import REAL_DATA
from made_archives import data_settings, set_counts, write_archive
from PIL import Image

from infra.errors import DataError
from models.data.sources import catalog
from models.data.sources.catalog import open_source
from models.data.sources.index import load, save
from models.data.sources.listing import TRAIN, VAL
from models.data.sources.published import pickles
from models.data.sources.published.cifar import CIFAR10, CIFAR100, Layout

REAL = REAL_DATA / "transfer"
real_images = pytest.mark.skipif(not REAL.is_dir(), reason="no real images: ../shared/data is absent")
IMAGES = 20  # images in a batch


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EFFNET_CACHE", str(tmp_path / "cache"))


def name_of(layout: Layout) -> str:
    return "cifar10" if layout == CIFAR10 else "cifar100"


def classes_of(layout: Layout) -> int:
    return catalog.DATA_SETS[name_of(layout)].classes


def archive_of(layout: Layout) -> str:
    return catalog.DATA_SETS[name_of(layout)].published[0]


def text(value: str) -> bytes:
    return b"U" + bytes([len(value)]) + value.encode()


def items(values: list[bytes]) -> bytes:
    return b"](" + b"".join(values) + b"e"


def python2_pickle(entries: dict[str, Any]) -> bytes:
    """Pickles a dictionary as Python 2's cPickle with protocol 2, the format of the official files."""
    out = b"\x80\x02}q\x01("
    for key, value in entries.items():
        out += text(key)
        if isinstance(value, np.ndarray):
            rows, columns = value.shape
            out += b"cnumpy.core.multiarray\n_reconstruct\nq\x04cnumpy\nndarray\nq\x05K\x00\x85U\x01b\x87Rq\x06"
            out += b"(K\x01M" + struct.pack("<H", rows) + b"M" + struct.pack("<H", columns) + b"\x86"
            out += b"cnumpy\ndtype\nq\x07U\x02u1K\x00K\x01\x87Rq\x08"
            out += b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
            out += b"\x89T" + struct.pack("<I", value.size) + value.tobytes() + b"tb"
        elif isinstance(value, str):
            out += text(value)
        else:
            out += items([text(item) if isinstance(item, str) else b"K" + bytes([item]) for item in value])
    return out + b"u."


def batch(seed: int, layout: Layout, count: int = IMAGES) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        "batch_label": f"batch {seed}",
        layout.labels: rng.integers(0, classes_of(layout), count).tolist(),
        "data": rng.integers(0, 256, (count, 3072), dtype=np.uint8),
        "filenames": [f"thing_s_{seed:03d}{n:03d}.png" for n in range(count)],
    }


def batches(layout: Layout) -> dict[str, dict[str, Any]]:
    return {name: batch(seed, layout) for seed, name in enumerate(layout.batches)}


def archived(path: Path, layout: Layout, write: Callable[[dict[str, Any]], bytes] = python2_pickle) -> Path:
    meta = {layout.names: [f"class{n}" for n in range(classes_of(layout))]}
    files = {name: write(content) for name, content in (batches(layout) | {layout.meta: meta}).items()}
    return write_archive(path / archive_of(layout), {f"{layout.folder}/{name}": data for name, data in files.items()})


@pytest.fixture(params=[CIFAR10, CIFAR100], ids=["cifar10", "cifar100"])
def layout(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Layout:
    layout: Layout = request.param
    train = sum(part == TRAIN for part in layout.batches.values())
    set_counts(monkeypatch, name_of(layout), {TRAIN: IMAGES * train, VAL: IMAGES})
    return layout


def test_the_synthetic_pickles_are_readable_by_the_standard_unpickler() -> None:
    expected = batch(3, CIFAR10)
    result = pickle.loads(python2_pickle(expected), encoding="latin1")  # noqa: S301 - made by this test
    assert result.keys() == expected.keys()
    assert np.array_equal(result["data"], expected["data"])
    assert result["labels"] == expected["labels"]
    assert result["filenames"] == expected["filenames"]


@pytest.mark.parametrize("protocol", ["python2", 3, 4])
def test_the_restricted_reader_returns_what_the_standard_unpickler_returns(protocol: Any) -> None:
    expected = batch(4, CIFAR10)
    data = python2_pickle(expected) if protocol == "python2" else pickle.dumps(expected, protocol)
    result = pickles.read(data, "x")
    array = result.pop("data")
    assert array.shape == (IMAGES, 3072)
    assert data[array.start : array.start + IMAGES * 3072] == expected.pop("data").tobytes()
    assert result == expected


def test_every_pixel_and_label_is_preserved(layout: Layout, tmp_path: Path) -> None:
    archived(tmp_path, layout)
    # The counts are made the official ones, but 20 images cannot cover 100 classes.
    source = open_source(data_settings(name_of(layout), tmp_path, allow_partial=True))
    expected = batches(layout)
    assert not [line for line in source.missing if not line.startswith("classes")]
    assert set(source.sizes.tolist()) == {0}
    for index, name in enumerate(source.names.tolist()):
        batch_name, _, rest = name.decode().partition("/")
        row = int(rest[:5])
        content = expected[batch_name]
        assert rest[6:] == content["filenames"][row]
        assert source.labels[index] == content[layout.labels][row]
        assert source.split[index] == layout.batches[batch_name]
        with Image.open(io.BytesIO(source.read(index)), formats=("PNG",)) as image:
            assert np.array_equal(np.asarray(image), content["data"][row].reshape(3, 32, 32).transpose(1, 2, 0))
    assert source.classes == tuple(f"class{n}" for n in range(classes_of(layout)))


def test_a_changed_pixel_changes_the_digest(tmp_path: Path) -> None:
    digests = set()
    for number in range(2):
        files = {name: batch(seed, CIFAR10) for seed, name in enumerate(CIFAR10.batches)}
        files["test_batch"]["data"][3, 5] ^= number
        contents: dict[str, dict[str, Any]] = {**files, "batches.meta": {"label_names": [str(n) for n in range(10)]}}
        write_archive(
            tmp_path / str(number) / archive_of(CIFAR10),
            {f"{CIFAR10.folder}/{name}": python2_pickle(content) for name, content in contents.items()},
        )
        digests.add(open_source(data_settings("cifar10", tmp_path / str(number), allow_partial=True)).digest)
    assert len(digests) == 2


def test_a_saved_index_gives_the_same_png(layout: Layout, tmp_path: Path) -> None:
    archived(tmp_path, layout)
    data = data_settings(name_of(layout), tmp_path, allow_partial=True)
    source = open_source(data)
    save(source, f"file://{tmp_path}/index.npz")
    again = load(data, f"file://{tmp_path}/index.npz")
    assert again.digest == source.digest
    assert [again.read(i) for i in range(40)] == [source.read(i) for i in range(40)]


def test_a_missing_batch_is_counted(tmp_path: Path) -> None:
    contents = {"data_batch_1": batch(0, CIFAR10), "test_batch": batch(1, CIFAR10)}
    contents["batches.meta"] = {"label_names": [str(n) for n in range(10)]}
    write_archive(tmp_path / archive_of(CIFAR10), {f"x/{name}": python2_pickle(one) for name, one in contents.items()})
    write_archive(
        tmp_path / archive_of(CIFAR10),
        {f"{CIFAR10.folder}/{name}": python2_pickle(one) for name, one in contents.items()},
    )
    with pytest.raises(DataError, match="train: 20 of 50,000 images; val or test: 20 of 10,000 images"):
        open_source(data_settings("cifar10", tmp_path))


class Evil:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> Any:
        return os.system, (self.command,)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("wrap", [lambda evil: evil, lambda evil: {"data": evil, "labels": [1]}])
def test_a_pickle_that_runs_a_command_is_refused_without_running_it(
    wrap: Callable[[Any], Any], protocol: int, tmp_path: Path
) -> None:
    marker = tmp_path / "ran"
    data = pickle.dumps(wrap(Evil(f"touch {marker}")), protocol)
    with pytest.raises(DataError, match=r"it imports posix\.system; nothing in it was executed"):
        pickles.read(data, "x")
    assert not marker.exists()
    pickle.loads(data)  # noqa: S301 - made by this test
    assert marker.exists()  # the payload works


def test_an_archive_with_such_a_pickle_is_refused(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    evil = pickle.dumps({"label_names": Evil(f"touch {marker}")}, 2)
    write_archive(tmp_path / archive_of(CIFAR10), {f"{CIFAR10.folder}/batches.meta": evil})
    with pytest.raises(DataError, match=r"batches.meta is not a pickle of plain data"):
        open_source(data_settings("cifar10", tmp_path))
    assert not marker.exists()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no pickle",
        b"\x80\x02]q\x01.",
        b"\x80\x02K\x01.",
        b"\x80\x02}(U\x01au.",
        b"\x80\x02}",
        b"\x80\x02cbuiltins\neval\n(U\x011tR.",
        b"\x80\x02cnumpy\nndarray\n(tR.",
        b"\x80\x02P1\n.",
        b"\x80\x02cnumpy\ndtype\n)\x81.",
        b"\x80\x02h\x05.",
        pickle.dumps({"data": np.arange(9, dtype=np.int64).reshape(3, 3)}, 4),
        pickle.dumps({"data": np.empty((2, 2), object)}, 4),
        pickle.dumps({1, 2, 3}),
        pickle.dumps(io.StringIO),
        b"\x80\x02}r\xff\xff\xff\x7f.",  # a memo of 2^31 entries
        b"\x80\x02}(" + b")" + b"\x85" * 1_000_000 + b"K\x01u.",  # a key that is nested a million deep
        b"\x80\x02}(U\x01acnumpy\ndtype\n(U\x02u1tRu.",
        b"\x80\x02}(U\x01acnumpy\nndarray\n}U\x05shapeK\x01sbu.",
        b"\x80\x04B\xff\xff\xff\xff",
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\x00\x00",
    ],
)
def test_anything_but_plain_data_is_refused(data: bytes) -> None:
    with pytest.raises(DataError, match="is not a pickle of plain data"):
        pickles.read(data, "x")


def test_a_truncated_batch_is_refused() -> None:
    data = python2_pickle(batch(0, CIFAR10))
    for length in (10, 200, len(data) // 2, len(data) - 1):
        with pytest.raises(DataError, match="is not a pickle of plain data"):
            pickles.read(data[:length], "x")


@pytest.mark.parametrize(
    "change",
    [
        {"labels": [10] * IMAGES},
        {"labels": [1] * (IMAGES - 1)},
        {"data": np.zeros((IMAGES, 1024), np.uint8)},
        {"filenames": ["a"]},
        {"data": "pixels"},
    ],
)
def test_an_inconsistent_batch_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    contents = {"test_batch": batch(0, CIFAR10) | change, "batches.meta": {"label_names": [str(n) for n in range(10)]}}
    write_archive(
        tmp_path / archive_of(CIFAR10),
        {f"{CIFAR10.folder}/{name}": python2_pickle(one) for name, one in contents.items()},
    )
    with pytest.raises(DataError, match="test_batch"):
        open_source(data_settings("cifar10", tmp_path, allow_partial=True))


@real_images
@pytest.mark.slow
def test_the_real_folders_contain_all_sixty_thousand_images() -> None:
    source = open_source(data_settings("cifar10", REAL / "cifar-10-images.tar.xz"))
    assert np.bincount(source.split).tolist() == [50_000, 0, 10_000]
    assert np.bincount(source.labels).tolist() == [6_000] * 10
    assert source.classes[:3] == ("airplane", "automobile", "bird")
    assert Image.open(io.BytesIO(source.read(59_999))).size == (32, 32)
