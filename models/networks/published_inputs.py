"""Image side, crop and interpolation with which the publishers of weights evaluate them, by the names of their files.

Sources: timm 1.0 models/efficientnet.py, default_cfgs, with its sizes for tests; torchvision 0.29
models/efficientnet.py, the transforms of each weights class. Google's weights, and so those of lukemelas and of timm's
``tf_`` networks, are evaluated at the paper's resolution with a margin of 32 pixels, except where timm states other
numbers. Normalization is resolved in ``pretrained.py``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from conf.data_set import BICUBIC, BILINEAR, CENTER, SQUASH
from models.networks.efficientnet.variants import VARIANTS


@dataclass(frozen=True)
class InputSettings:
    """The short side is resized to ``side + crop_pad`` pixels, and the central ``side`` pixels are the input.

    With crop mode ``squash`` both sides are resized to that number of pixels.
    """

    side: int
    crop_pad: int
    interpolation: str = BICUBIC
    crop_mode: str = CENTER


# By a part of the file's own name, the first that matches; users put words before it.
_TIMM = {
    r"efficientnet_b0\.ra4_e3600_r224": InputSettings(256, 0),
    r"efficientnet_b1\.ra4_e3600_r240": InputSettings(288, 0),
    r"efficientnet_b1(\.ft_in1k|-533bc792)": InputSettings(256, 0),
    r"efficientnet_b2(\.ra_in1k|_ra-bcdf34b7)": InputSettings(288, 0),
    r"efficientnet_b3(\.ra2_in1k|_ra2-cf984f9c)": InputSettings(320, 0),
    r"efficientnet_b4(\.ra2_in1k|_ra2_320-7eb33cd5)": InputSettings(384, 0),
    r"efficientnet_b5\.sw_in12k_ft_in1k": InputSettings(448, 0, crop_mode=SQUASH),
    r"efficientnet_b5\.sw_in12k": InputSettings(416, 21),
    r"tf_efficientnet_b3": InputSettings(300, 31),
    r"tf_efficientnet_l2(_ns_475|\.ns_jft_in1k_475)": InputSettings(475, 32),
    r"tf_efficientnet_l2": InputSettings(800, 33),
    r"tf_efficientnet_lite3": InputSettings(300, 31, BILINEAR),
    r"tf_efficientnet_lite4": InputSettings(380, 33, BILINEAR),
}
# By the network, whatever the file is called: hashes in the names change from release to release.
_TORCHVISION = {
    "efficientnet_b1": InputSettings(240, 15, BILINEAR),  # its default weights, IMAGENET1K_V2
    "efficientnet_b2": InputSettings(288, 0),
    "efficientnet_b3": InputSettings(300, 20),
    "efficientnet_b4": InputSettings(380, 4),
    "efficientnet_b5": InputSettings(456, 0),
    "efficientnet_b6": InputSettings(528, 0),
    "efficientnet_b7": InputSettings(600, 0),
}
_TABLES = {
    "timm": _TIMM,
    "timm_tf": _TIMM,
    "torchvision": {r"efficientnet_b1_rwightman": InputSettings(240, 16)},  # IMAGENET1K_V1
}


def find(file_name: str, variant: str, origin: str) -> InputSettings:
    """Returns the settings of a published file; of a file with any other name, torchvision's or those of the paper.

    Args:
        file_name: Name of the file without folders, in lower case.
        variant: Name of the network, as ``efficientnet_b3``.
        origin: Publisher, one of ``conf.experiments.ORIGINS``.
    """
    for pattern, settings in _TABLES.get(origin, {}).items():
        if re.search(rf"(?<![0-9a-z])(?<!tf_){pattern}", file_name):
            return settings
    if origin == "torchvision" and variant in _TORCHVISION:
        return _TORCHVISION[variant]
    return InputSettings(VARIANTS[variant].resolution, 32)
