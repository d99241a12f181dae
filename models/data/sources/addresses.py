"""What each data set consists of on the web, or where a user can get it.

Source of addresses and md5 sums: torchvision 0.28 ``datasets/*.py``; cs231n.stanford.edu for Tiny-ImageNet;
thomasberg.org for Birdsnap's lists.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Download:
    """One file: its address, and its md5 where one is published (our guard against damage, not against malice)."""

    url: str
    md5: str | None = None

    @property
    def name(self) -> str:
        """Of the local file."""
        return self.url.rpartition("/")[2]


_TORONTO = "https://www.cs.toronto.edu/~kriz"
_OXFORD = "https://www.robots.ox.ac.uk/~vgg/data"

REMOTE: dict[str, tuple[Download, ...]] = {
    "cifar10": (Download(f"{_TORONTO}/cifar-10-python.tar.gz", "c58f30108f718f92721af3b95e74349a"),),
    "cifar100": (Download(f"{_TORONTO}/cifar-100-python.tar.gz", "eb9058c3a382ffc7106e4002c42a8d85"),),
    "flowers102": (
        Download(f"{_OXFORD}/flowers/102/102flowers.tgz", "52808999861908f626f3c1f4e79d11fa"),
        Download(f"{_OXFORD}/flowers/102/imagelabels.mat", "e0620be6f572b9609742df49c70aed4d"),
        Download(f"{_OXFORD}/flowers/102/setid.mat", "a5357ecc9cb78c4bef273ce3793fc85c"),
    ),
    "aircraft": (Download(f"{_OXFORD}/fgvc-aircraft/archives/fgvc-aircraft-2013b.tar.gz"),),
    "pets": (
        Download(f"{_OXFORD}/pets/data/images.tar.gz", "5c4f3ee8e5d25df40f4fd59a7f44e54c"),
        Download(f"{_OXFORD}/pets/data/annotations.tar.gz", "95a8c909bbe2e81eed6a22bccdf3f68f"),
    ),
    "food101": (Download("http://data.vision.ee.ethz.ch/cvl/food-101.tar.gz", "85eeb15f3717b99a5da872d97d918f87"),),
    "imagenette": (
        Download("https://s3.amazonaws.com/fast-ai-imageclas/imagenette2.tgz", "fe2fc210e6bb7c5664d602c3cd71e612"),
    ),
    "tiny_imagenet": (Download("http://cs231n.stanford.edu/tiny-imagenet-200.zip"),),
    "birdsnap": (Download("http://thomasberg.org/datasets/birdsnap/1.1/birdsnap.tgz"),),
}

AFTERWARDS: dict[str, str] = {
    "birdsnap": "birdsnap.tgz holds lists only: its own get_birdsnap.py fetches the images from Flickr, as many as "
    "are still there (about 40,000 of 49,829), so data.allow_partial=true will be needed"
}

ELSEWHERE: dict[str, str] = {
    "imagenet": "ImageNet is for who agrees to its terms: sign in at https://image-net.org/download-images and put "
    "ILSVRC2012_img_train.tar (138 GB), ILSVRC2012_img_val.tar (6 GB), ILSVRC2012_devkit_t12.tar.gz into data.path",
    "cars": "the address of Stanford Cars is dead: put cars_train.tgz, cars_test.tgz, car_devkit.tgz and "
    "cars_test_annos_withlabels.mat, or car_ims.tgz and cars_annos.mat, from a copy you may use into data.path "
    "(github.com/pytorch/vision/issues/7545 says where others found one)",
    "folder": "data=folder is a set of your own: data.path=FOLDER names where it is",
    "mnist5k": "mnist5k lies inside a Python package; there is nothing to fetch",
    "digits": "digits lie inside a Python package; there is nothing to fetch",
}
