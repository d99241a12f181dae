"""Transfer sets whose splits are lists of names: Food-101, Oxford-IIIT Pets, FGVC Aircraft, Birdsnap.

Each opener reads the official archives or their extracted files, anywhere below ``data.path``, checks the counts
against the official ones (``DataError``, unless ``data.allow_partial``) and raises ``ConfigError`` if the lists are
missing.

Source of the layouts: the readme of each set, and torchvision 0.28 ``datasets/{food101,oxford_iiit_pet,
fgvc_aircraft}.py``.
"""

from __future__ import annotations

from conf import schema
from infra.errors import ConfigError, DataError
from models.data.sources import listing
from models.data.sources.files.archive import ARCHIVES, Files
from models.data.sources.files.image_format import SUFFIXES
from models.data.sources.listing import MINIVAL, TRAIN, VAL, DataSet, Listing, Source

# The readme of FGVC Aircraft 2013b: "Each image has at the bottom a banner 20 pixels high containing copyright
# information. Please make sure to remove this banner when using the images to train and evaluate algorithms."
# Crops stay above it; the image bytes are unchanged.
AIRCRAFT_BANNER = 20

_PACKED = (*ARCHIVES, ".7z", ".rar", ".zst")
# Five of Birdsnap's 49,829 are GIF (in its images.txt). They count as present; verification excludes them by name.
_BIRD_SUFFIXES = (*SUFFIXES, ".gif")


def open_food101(data: schema.Data, data_set: DataSet) -> Source:
    """Opens Food-101: ``meta/{classes,train,test}.txt`` and ``images/CLASS/ID.jpg``."""
    files = listing.open_files(data, data_set)
    classes = _lines(files, "meta/classes.txt")
    rank = {name: label for label, name in enumerate(classes)}
    images = files.folder("images")
    entries = Listing(files, classes)
    for part, name in ((TRAIN, "meta/train.txt"), (VAL, "meta/test.txt")):
        for line in _lines(files, name):
            entries.add(images.get(f"{line}.jpg"), f"{line}.jpg", rank.get(line.partition("/")[0], -1), part)
    return listing.check_listing(data, entries, data_set)


def open_pets(data: schema.Data, data_set: DataSet) -> Source:
    """Opens Pets: ``annotations/{trainval,test}.txt`` with lines ``ID CLASS SPECIES BREED``, and ``images/ID.jpg``."""
    files = listing.open_files(data, data_set)
    lists = {
        part: [line.split() for line in _lines(files, f"annotations/{name}.txt") if line[0] != "#"]
        for part, name in ((TRAIN, "trainval"), (VAL, "test"))
    }
    try:
        breeds = {int(label): name.rpartition("_")[0] for lines in lists.values() for name, label, *_ in lines}
        labelled = [(part, name, int(label)) for part, lines in lists.items() for name, label, *_ in lines]
    except ValueError as error:
        raise DataError(f"{files.root}: annotations/*.txt has lines other than ID CLASS SPECIES BREED") from error
    images = files.folder("images")
    rank = {number: label for label, number in enumerate(sorted(breeds))}  # a subset skips numbers
    entries = Listing(files, [breeds[number] for number in sorted(breeds)])
    for part, name, number in labelled:
        entries.add(images.get(f"{name}.jpg"), f"{name}.jpg", rank[number], part)
    return listing.check_listing(data, entries, data_set)


def open_aircraft(data: schema.Data, data_set: DataSet) -> Source:
    """Opens Aircraft: ``images_variant_{train,val,test}.txt`` with lines ``ID VARIANT``, and ``images/ID.jpg``."""
    files = listing.open_files(data, data_set)
    classes = _lines(files, "variants.txt")
    rank = {name: label for label, name in enumerate(classes)}
    images = files.folder("images")
    entries = Listing(files, classes)
    for part, name in ((TRAIN, "train"), (MINIVAL, "val"), (VAL, "test")):
        for line in _lines(files, f"images_variant_{name}.txt"):
            image, _, variant = line.partition(" ")
            entries.add(images.get(f"{image}.jpg"), f"{image}.jpg", rank.get(variant, -1), part)
    return listing.check_listing(data, entries, data_set, crop_bottom=AIRCRAFT_BANNER)


def open_birdsnap(data: schema.Data, data_set: DataSet) -> Source:
    """Opens Birdsnap: ``species.txt``, ``test_images.txt``, ``images.txt`` if present, and the available images.

    Without ``images.txt`` the folder of an image determines its species.
    """
    files = listing.open_files(data, data_set)
    species = [line.split("\t") for line in _lines(files, "species.txt")[1:]]
    if any(len(one) != 4 for one in species):
        raise DataError(f"{files.root}: species.txt has columns other than id, common, scientific, dir")
    species.sort(key=lambda one: int(one[0]) if one[0].isdigit() else 0)
    by_id = {one[0]: label for label, one in enumerate(species)}
    by_folder = {one[3].lower(): label for label, one in enumerate(species)}
    stated: dict[str, int] = {}
    if files.find("images.txt") is not None:
        header, *lines = [line.split("\t") for line in _lines(files, "images.txt")]
        if not {"path", "species_id"} <= set(header):
            raise DataError(f"{files.root}: images.txt has no columns path and species_id, but {', '.join(header)}")
        path, label = header.index("path"), header.index("species_id")
        stated = {line[path]: by_id.get(line[label], -1) for line in lines}
    test = set(_lines(files, "test_images.txt")[1:])
    entries = Listing(files, [one[1] for one in species])
    for name, row in _bird_images(files).items():
        bird = stated.get(name, -1) if stated else by_folder.get(name.partition("/")[0].lower(), -1)
        if bird >= 0:  # other images are not part of the set
            entries.add(row, name, bird, VAL if name in test else TRAIN)
    return listing.check_listing(data, entries, data_set)


def _bird_images(files: Files) -> dict[str, int]:
    """Maps ``SPECIES/FILE`` to rows, wherever the species folders are."""
    return {
        "/".join(name.split("/")[-2:]): row
        for row, name in enumerate(files.names)
        if name.lower().endswith(_BIRD_SUFFIXES) and "/" in name
    }


def _lines(files: Files, name: str) -> list[str]:
    """Reads the non-empty lines of a list file.

    Raises:
        ConfigError: The file is missing.
    """
    row = files.find(name)
    if row is None:
        packed = min((one for one in files.names if one.lower().endswith(_PACKED)), default="")
        hint = f"; {packed} in it is no official archive and is not read: unpack it there" if packed else ""
        raise ConfigError(f"{files.root} has no {name}; is it the right data set, with all of its archives?{hint}")
    try:
        return [line.strip() for line in files.read(row).decode().splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise DataError(f"{files.root}: {files.names[row]} is not text: {error}") from error
