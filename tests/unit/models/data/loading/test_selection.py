"""Selection of samples by id from a synthetic data set in a folder."""

from __future__ import annotations

import io
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from made_set import MadeSet, write_set
from matrix import with_slow_rest
from PIL import Image

from conf.data_set import INTERPOLATIONS, SQUASH, EvalTransform
from conf.schema import Augment
from infra import store
from infra.errors import ConfigError, DataError
from models.data.loading import selection
from models.data.loading.loader import Loader


@pytest.fixture
def made(tmp_path: Path) -> MadeSet:
    """Labels cycle through 0 to 9; val starts at the 24th synthetic image: 4, 5 ... 9, 0, 1 ..."""
    return write_set(f"file://{tmp_path}/set", {"train": [16], "minival": [8], "val": [5, 9]})


def test_the_selection_is_deterministic_and_of_different_classes(made: MadeSet) -> None:
    assert selection.distinct_classes(made.manifest, "val", 4) == [0, 1, 2, 3]
    made.manifest.table["label"][24:30] = [4, 4, 7, 4, 7, 0]
    for _ in range(2):
        assert selection.distinct_classes(made.manifest, "val", 3) == [0, 2, 5]


def test_a_split_of_fewer_classes_gives_one_sample_of_each(made: MadeSet) -> None:
    assert selection.distinct_classes(made.manifest, "val", 11) == list(range(10))


def test_images_are_read_by_id_from_any_shard(made: MadeSet) -> None:
    samples = selection.read(made.manifest, made.uri, "val", [13, 0, 5])
    assert samples.blobs == [made.images[24 + i] for i in (13, 0, 5)]
    assert samples.labels == [7, 4, 9]


def test_pixels_equal_those_of_an_evaluation(made: MadeSet, tmp_path: Path) -> None:
    augment = Augment(eval_crop_pad=8)
    with closing(Loader(made.manifest, made.uri, "val", 20, augment, tmp_path / "cache", 1)) as loader:
        batch = next(loader.eval_batches(14, 0, 1))
    pixels = selection.read(made.manifest, made.uri, "val", batch.ids.tolist()).squares(20, augment.evaluation)
    assert np.array_equal(pixels, batch.images.numpy())
    assert pixels[0].std() > 5
    assert Image.open(io.BytesIO(made.images[24])).size == (27, 28)


@pytest.mark.parametrize("interpolation", with_slow_rest(INTERPOLATIONS))
@pytest.mark.parametrize(("crop_pad", "shape"), [(0, (500, 333)), (0, (120, 400)), (20, (500, 375))])
def test_squashed_images_are_those_of_timm(interpolation: str, crop_pad: int, shape: tuple[int, int]) -> None:
    """timm's ``squash``: both sides are resized, whatever the shape, to the square whose center is cropped."""
    side, noise = 96, np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    image = Image.fromarray(noise).resize(shape, Image.Resampling.BICUBIC)
    whole = image.resize((side + crop_pad,) * 2, Image.Resampling[interpolation.upper()])
    margin = crop_pad // 2
    theirs = np.asarray(whole.crop((margin, margin, margin + side, margin + side))).astype(int)
    png = io.BytesIO()
    image.save(png, "PNG")
    transform = EvalTransform(crop_pad, interpolation, SQUASH)
    ours = selection.decode_squares({"a": png.getvalue()}, side, transform)[0].astype(int)
    differences = np.abs(ours - theirs)
    # The whole image: the order of the two resizes. With a crop the box begins at a pixel, timm's between two.
    assert differences.max() <= 1 if crop_pad == 0 else differences.mean() < 2
    squared = selection.decode_squares({"a": png.getvalue()}, side, EvalTransform(crop_pad, interpolation))[0]
    assert np.abs(squared - theirs).mean() > 5


def test_a_split_is_evaluated_squashed_where_the_settings_say_so(made: MadeSet, tmp_path: Path) -> None:
    augment = Augment(eval_crop_pad=0, eval_crop_mode=SQUASH)
    with closing(Loader(made.manifest, made.uri, "val", 20, augment, tmp_path / "cache", 1)) as loader:
        batch = next(loader.eval_batches(14, 0, 1))
    whole = Image.open(io.BytesIO(made.images[24 + int(batch.ids[0])])).convert("RGB")
    expected = np.asarray(whole.resize((20, 20), Image.Resampling.BICUBIC)).astype(int)
    assert np.abs(batch.images[0].numpy() - expected).max() <= 2


@pytest.mark.parametrize("number", [-1, 14])
def test_an_unknown_id_is_refused_with_the_valid_range(made: MadeSet, number: int) -> None:
    with pytest.raises(ConfigError, match=f"made: val has no image {number}; ids are 0 to 13"):
        selection.read(made.manifest, made.uri, "val", [0, number])


def test_a_damaged_image_is_refused(made: MadeSet) -> None:
    uri = store.join(made.uri.rpartition("/")[0], made.manifest.shards[2].name)
    data = bytearray(store.read(uri))
    data[int(made.manifest.table["offset"][24]) + 100] ^= 1
    store.write(uri, bytes(data))
    with pytest.raises(DataError, match="sample 0: its checksum"):
        selection.read(made.manifest, made.uri, "val", [0])
