"""Reads the shards of a data set with plain webdataset: ``python examples/read_shards.py s3://effnet/data/NAME/DIGEST``.

Run ``eval "$(effnet env)"`` first, which connects the shell to the services. The address is the folder of a
``manifest.json``. Fields are decoded here and not by webdataset's ``decode()``, which also unpickles.
"""

from __future__ import annotations

import io
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import webdataset
from PIL import Image

from infra import store


def read_samples(data_uri: str) -> Iterator[tuple[Image.Image, int]]:
    """The images of all splits with their labels, shard by shard."""
    manifest = store.read_json(store.join(data_uri, "manifest.json"))
    with tempfile.TemporaryDirectory() as folder:
        for shard in manifest["shards"]:
            path = Path(folder, Path(shard["name"]).name)
            store.download(store.join(data_uri, shard["name"]), path)
            for sample in webdataset.WebDataset(str(path), shardshuffle=False):
                image = next(sample[field] for field in ("jpg", "png") if field in sample)
                yield Image.open(io.BytesIO(image)), int(sample["cls"])
            path.unlink()


if __name__ == "__main__":
    for number, (image, label) in enumerate(read_samples(sys.argv[1])):
        print(number, image.size, label)
