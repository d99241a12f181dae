"""The real ImageNet images that lie beside a checkout, multiplied into an archive of the official layout."""

from __future__ import annotations

import io
import sys
import tarfile
from pathlib import Path

from conf import schema

ARCHIVE = Path(__file__).parents[1].parent / "shared" / "data" / "imagenet" / "ILSVRC2012_img_train.tar"


def archive() -> Path:
    """Where the images are; without them the benchmark ends with one line and exit code 2."""
    if not ARCHIVE.exists():
        print(f"{ARCHIVE} is not there: this benchmark measures on real images and on nothing else", file=sys.stderr)
        raise SystemExit(2)
    return ARCHIVE


def multiply(source: Path, target: Path, copies: int) -> int:
    """Writes a tar of tars in which each image stands ``copies`` times, each time under a name of its own.

    Few real images then make epochs that are long enough to time. Returns the number of images.
    """
    images = 0
    with tarfile.open(source) as outer, tarfile.open(target, "w", format=tarfile.USTAR_FORMAT) as target_tar:
        for member in outer:
            inner = io.BytesIO()
            with (
                tarfile.open(fileobj=outer.extractfile(member)) as class_tar,
                tarfile.open(fileobj=inner, mode="w", format=tarfile.USTAR_FORMAT) as many,
            ):
                for image in class_tar:
                    data = class_tar.extractfile(image).read()  # type: ignore[union-attr]
                    wnid = Path(image.name).stem.partition("_")[0]
                    for number in range(copies):
                        _add(many, f"{wnid}_{1000 * images + number}.JPEG", data)
                    images += 1
            _add(target_tar, member.name, inner.getvalue())
    return images * copies


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def official_folder(folder: Path, copies: int) -> int:
    """Makes ``folder`` look like ImageNet's: the multiplied training archive beside validation and devkit."""
    folder.mkdir()
    for other in ARCHIVE.parent.glob("ILSVRC2012_*"):
        if other != ARCHIVE:
            (folder / other.name).symlink_to(other)
    return multiply(archive(), folder / ARCHIVE.name, copies)


def settings(folder: Path, samples_per_shard: int) -> schema.Data:
    """The data set in ``folder``; nothing is decoded to verify it, which would be most of the time."""
    return schema.Data(
        name="imagenet",
        source="imagenet",
        path=str(folder),
        allow_partial=True,
        verify_images=False,
        minival_share=0.001,
        samples_per_shard=samples_per_shard,
    )
