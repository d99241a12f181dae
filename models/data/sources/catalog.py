"""The table of data sets.

A row states how a data set is opened, its official counts, its files and where they are. Its settings are in
``conf/data/NAME.yaml``.

Source of addresses and md5 sums: torchvision 0.28 ``datasets/*.py``; cs231n.stanford.edu for Tiny-ImageNet;
thomasberg.org for Birdsnap's lists. Source of counts: the readme of each data set; meta.mat of the devkit for ImageNet;
README of fastai/imagenette (v2). Source of metrics: SimCLR, appendix B.8, after Kornblith et al. (2019).
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

from conf import schema
from conf.text import logger
from infra import store
from infra.errors import ConfigError
from infra.store import files
from models.data.sources.files.container import locate
from models.data.sources.files.download import Download, fetch
from models.data.sources.folders import folder
from models.data.sources.listing import MINIVAL, TRAIN, VAL, DataSet, Source
from models.data.sources.published import (
    builtin,
    cars_flowers,
    cifar,
    class_folders,
    elpv,
    imagenet,
    tiny_imagenet,
    transfer_sets,
)
from models.data.sources.wds import shards
from models.data.sources.wds.addresses import check_addresses

log = logger()
_TORONTO = "https://www.cs.toronto.edu/~kriz"
_OXFORD = "https://www.robots.ox.ac.uk/~vgg/data"
_FASTAI = "https://s3.amazonaws.com/fast-ai-imageclas"
_FEW_OBJECTS = 2_000  # of a folder that is listed, and whose unusual files are read, within seconds
_FEW_FILES = 50_000  # of a local folder
_PACKAGED = "is part of a Python package that is installed with effnet; there is nothing to download"

DATA_SETS: dict[str, DataSet] = {
    "mnist5k": DataSet(lambda *_: builtin.mnist5k(), 10, {TRAIN: 5_000}, note=f"mnist5k {_PACKAGED}", packaged=True),
    "digits": DataSet(lambda *_: builtin.digits(), 10, {TRAIN: 1_797}, note=f"digits {_PACKAGED}", packaged=True),
    "folder": DataSet(
        lambda data, _: folder.open_folder(data, {name: row.lists for name, row in DATA_SETS.items() if row.lists}),
        note="data=folder reads your own images; set data.path=FOLDER to the folder that contains them",
        grows=True,
    ),
    "webdataset": DataSet(
        lambda data, _: shards.open_shards(data),
        note="data=webdataset reads shards of others; set data.path to their addresses, as s3://bucket/train-{000..123}.tar",
        grows=True,
        root=shards.locate_root,
    ),
    "imagenet": DataSet(
        imagenet.open_imagenet,
        1_000,
        {TRAIN: 1_281_167, VAL: 50_000},
        undownloadable=(imagenet.TRAIN_ARCHIVE, imagenet.VAL_ARCHIVE, imagenet.DEVKIT_ARCHIVE),
        note="ImageNet requires agreement to its terms: sign in at https://image-net.org/download-images and put "
        f"{imagenet.TRAIN_ARCHIVE} (148 GB), {imagenet.VAL_ARCHIVE} (7 GB) and {imagenet.DEVKIT_ARCHIVE} into "
        "data.path",
        lists=("LOC_val_solution.csv",),
    ),
    "imagenette": DataSet(
        class_folders.open_imagenette,
        10,
        {TRAIN: 9_469, VAL: 3_925},
        downloads=(Download(f"{_FASTAI}/imagenette2.tgz", "fe2fc210e6bb7c5664d602c3cd71e612"),),
        alternatives=("imagenette2-320.tgz", "imagenette2-160.tgz"),
    ),
    "imagewoof": DataSet(
        class_folders.open_imagenette,
        10,
        {TRAIN: 9_025, VAL: 3_929},
        downloads=(Download(f"{_FASTAI}/imagewoof2.tgz"),),
        alternatives=("imagewoof2-320.tgz", "imagewoof2-160.tgz"),
    ),
    "tiny_imagenet": DataSet(
        tiny_imagenet.open_tiny_imagenet,
        200,
        {TRAIN: 100_000, VAL: 10_000},
        downloads=(Download("http://cs231n.stanford.edu/tiny-imagenet-200.zip"),),
        alternatives=("tiny-imagenet-200.tar.gz", "tiny-imagenet-200.tar"),
        lists=("val/val_annotations.txt",),
    ),
    "cifar10": DataSet(
        cifar.open_cifar10,
        10,
        {TRAIN: 50_000, VAL: 10_000},
        downloads=(Download(f"{_TORONTO}/cifar-10-python.tar.gz", "c58f30108f718f92721af3b95e74349a"),),
        alternatives=("cifar-10-images.tar.xz",),
        lists=("cifar-10-batches-py/data_batch_1",),
    ),
    "cifar100": DataSet(
        cifar.open_cifar100,
        100,
        {TRAIN: 50_000, VAL: 10_000},
        downloads=(Download(f"{_TORONTO}/cifar-100-python.tar.gz", "eb9058c3a382ffc7106e4002c42a8d85"),),
        alternatives=("cifar-100-images.tar.xz",),
        lists=("cifar-100-python/train",),
    ),
    "birdsnap": DataSet(
        transfer_sets.open_birdsnap,
        500,
        {TRAIN: 47_386, VAL: 2_443},
        downloads=(Download("http://thomasberg.org/datasets/birdsnap/1.1/birdsnap.tgz"),),
        note="birdsnap.tgz contains lists only: the get_birdsnap.py in it downloads the images from Flickr that still "
        "exist (about 40,000 of 49,829), so data.allow_partial=true will be needed",
        lists=("test_images.txt",),
    ),
    "cars": DataSet(
        cars_flowers.open_cars,
        196,
        {TRAIN: 8_144, VAL: 8_041},
        undownloadable=("cars_train.tgz", "cars_test.tgz", "car_devkit.tgz", cars_flowers.CARS_TEST_LABELS),
        alternatives=("car_ims.tgz", "cars_annos.mat"),
        note="the address of Stanford Cars is dead: put cars_train.tgz, cars_test.tgz, car_devkit.tgz and "
        f"{cars_flowers.CARS_TEST_LABELS}, or car_ims.tgz and cars_annos.mat, from a copy that you may use into "
        "data.path (github.com/pytorch/vision/issues/7545 names copies)",
        lists=("cars_train_annos.mat", "cars_annos.mat"),
    ),
    "flowers102": DataSet(
        cars_flowers.open_flowers102,
        102,
        {TRAIN: 1_020, MINIVAL: 1_020, VAL: 6_149},
        metric="mean per class",
        downloads=(
            Download(f"{_OXFORD}/flowers/102/102flowers.tgz", "52808999861908f626f3c1f4e79d11fa"),
            Download(f"{_OXFORD}/flowers/102/imagelabels.mat", "e0620be6f572b9609742df49c70aed4d"),
            Download(f"{_OXFORD}/flowers/102/setid.mat", "a5357ecc9cb78c4bef273ce3793fc85c"),
        ),
        lists=("imagelabels.mat",),
    ),
    "aircraft": DataSet(
        transfer_sets.open_aircraft,
        100,
        {TRAIN: 3_334, MINIVAL: 3_333, VAL: 3_333},
        metric="mean per class",
        downloads=(Download(f"{_OXFORD}/fgvc-aircraft/archives/fgvc-aircraft-2013b.tar.gz"),),
        lists=("images_variant_train.txt",),
    ),
    "pets": DataSet(
        transfer_sets.open_pets,
        37,
        {TRAIN: 3_680, VAL: 3_669},  # the paper's Table 6 prints 3,369 for val
        metric="mean per class",
        downloads=(
            Download(f"{_OXFORD}/pets/data/images.tar.gz", "5c4f3ee8e5d25df40f4fd59a7f44e54c"),
            Download(f"{_OXFORD}/pets/data/annotations.tar.gz", "95a8c909bbe2e81eed6a22bccdf3f68f"),
        ),
        lists=("annotations/trainval.txt",),
    ),
    "food101": DataSet(
        transfer_sets.open_food101,
        101,
        {TRAIN: 75_750, VAL: 25_250},
        downloads=(Download("http://data.vision.ee.ethz.ch/cvl/food-101.tar.gz", "85eeb15f3717b99a5da872d97d918f87"),),
        lists=("meta/classes.txt",),
    ),
    "elpv": DataSet(
        elpv.open_elpv,
        2,
        {TRAIN: 2_624},
        undownloadable=(elpv.LABELS,),
        note="data=elpv is part of the Python package elpv-dataset, under CC BY-NC-SA 4.0 (not for commercial use): "
        "pip install 'effnet[elpv]'",
        package=elpv.PACKAGE,
        license=elpv.LICENSE,
    ),
}


def find(source: str) -> DataSet:
    """Returns the row of ``data.source``; raises ConfigError with the choices if there is none."""
    if source not in DATA_SETS:
        raise ConfigError(f"data.source {source!r} is unknown; choices: {', '.join(DATA_SETS)}")
    return DATA_SETS[source]


def open_source(data: schema.Data) -> Source:
    """Opens the configured source.

    Raises:
        ConfigError: The source is unknown, or ``data.path`` has none of it.
        DataError: The data are damaged, or incomplete without ``data.allow_partial``.
    """
    data_set = find(data.source)
    if data_set.packaged and data.path is not None:
        log.warning(
            "%s is part of a Python package: data.path %s is not read; data=folder reads it", data.name, data.path
        )
    return data_set.open(data, data_set)


def check_place(data: schema.Data) -> None:
    """Refuses a place without anything of the source, in a few requests; reads no image.

    Raises:
        ConfigError: Nothing is there, or the object store refuses the bucket or the credentials.
        TransientError: The object store or server does not respond.
    """
    if data.path is None:
        return
    if data.source == "webdataset":
        check_addresses(data)
    elif data.path.startswith("s3://"):
        uri = locate(data.path)
        if store.list_entries(uri, at_most=1) or store.exists(uri):
            return
        raise ConfigError(f"data.path {data.path}: there is no object of this name, and none below it")


def download(data: schema.Data, say: Callable[[str], None]) -> Sequence[Path]:
    """Downloads the files of ``data.source`` into ``data.path``; keeps complete ones.

    Args:
        data: Data set and its folder.
        say: Callback for progress lines.

    Raises:
        ConfigError: The data set has no public address (the message says where to get it), ``data.path`` is not a
            local folder, or the disk is full.
        DataError: A file does not have its published md5.
        NotFoundError: The address is dead.
        TransientError: The server does not respond; the same command resumes the download.
    """
    data_set = find(data.source)
    if not data_set.downloads:
        raise ConfigError(data_set.note)
    if data.path is None or (root := locate(data.path)).startswith("s3://"):
        raise ConfigError(f"download {data.source} needs data.path=FOLDER, a local folder")
    folder = Path(root)
    with files.errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    paths = [fetch(remote, folder, say) for remote in data_set.downloads]
    if data_set.note:
        say(data_set.note)
    return paths


def is_small_folder(data: schema.Data) -> bool:
    """Whether the images of a user's own are listed in about a second, or in a few requests to an object store."""
    if data.source != "folder":
        return False
    root = locate(str(data.path))
    if str(data.path).startswith("s3://"):
        return 0 < len(store.list_entries(root, at_most=_FEW_OBJECTS)) < _FEW_OBJECTS
    below = (name for _, folders, names in os.walk(root) for name in (*folders, *names))
    return next(itertools.islice(below, _FEW_FILES, None), None) is None


def packaged() -> frozenset[str]:
    """Returns the names of the data sets that need no ``data.path`` here."""
    return frozenset(
        name for name, row in DATA_SETS.items() if row.packaged or (row.package and find_spec(row.package))
    )
