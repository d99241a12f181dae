"""Solar cells in electroluminescence images, from the Python package elpv-dataset or a folder with its files.

2,624 gray photographs of 300 x 300 pixels from 44 modules, with the probability of a defect: 0, 1/3, 2/3 or 1. Cells
with more than 1/2 are ``defective`` here. The license of the images is CC BY-NC-SA 4.0, not for commercial use; effnet
redistributes none.

Source: Deitsch et al., "Automatic classification of defective photovoltaic module cells in electroluminescence images",
Solar Energy 185 (2019); README and labels.csv of elpv-dataset 1.0.0.
"""

from __future__ import annotations

from importlib.util import find_spec

from conf import schema
from infra.errors import ConfigError, DataError
from models.data.sources import listing
from models.data.sources.files import archive
from models.data.sources.listing import TRAIN, DataSet, Listing, Source

PACKAGE, LABELS = "elpv_dataset", "labels.csv"
LICENSE = "CC-BY-NC-SA-4.0"
CLASSES = ("functional", "defective")


def open_elpv(data: schema.Data, data_set: DataSet) -> Source:
    """Opens ``labels.csv`` with lines ``images/NAME.png PROBABILITY TYPE``, and the images that it names.

    Raises:
        ConfigError: ``data.path`` has no such file, or is not given and the package is not installed.
        DataError: A line of the file is damaged, or images are missing.
    """
    files = archive.open_files(data.path or _package_folder(), [LABELS])
    table = files.find(LABELS)
    if table is None:
        raise ConfigError(f"{files.root}: no {LABELS} of elpv-dataset")
    images = files.folder("images")
    entries = Listing(files, CLASSES)
    for number, line in enumerate(files.read(table).decode(errors="replace").splitlines(), start=1):
        try:
            path, probability, _ = line.split()
            label = int(float(probability) > 0.5)
        except ValueError as error:
            raise DataError(f"{files.root}/{LABELS}: line {number} is not IMAGE PROBABILITY TYPE") from error
        name = path.removeprefix("images/")
        entries.add(images.get(name), name, label, TRAIN)
    return listing.check_listing(data, entries, data_set)


def _package_folder() -> str:
    spec = find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(
            "data=elpv needs data.path=FOLDER with labels.csv and images/, or the Python package that contains them: "
            "pip install 'effnet[elpv]' (CC BY-NC-SA 4.0, not for commercial use)"
        )
    return f"{spec.submodule_search_locations[0]}/data"
