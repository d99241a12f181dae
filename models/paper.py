"""Published numbers of Tan & Le (2019) against which runs are compared, named after their tables.

Source: arXiv 1905.11946v5 (11 Sep 2020). Version 5 replaced the accuracies of the ICML text by re-runs of the
open-source code with AutoAugment, so B0 is 77.1 here and 76.3 in version 1. Accuracies are percent on the
50,000 validation images of ImageNet. What the paper calls FLOPS are multiply-adds.
"""

from __future__ import annotations

from dataclasses import dataclass

ARXIV = "1905.11946v5"

# Section 3.3, result of the grid search at phi = 1: depth alpha**phi, width beta**phi, resolution gamma**phi.
ALPHA, BETA, GAMMA = 1.2, 1.1, 1.15
PRODUCT = 2.0  # target of alpha * beta**2 * gamma**2; at the paper's optimum it is 1.92027


@dataclass(frozen=True)
class Table2Row:
    """One network of Table 2, "EfficientNet performance results on ImageNet".

    Attributes:
        name: ``efficientnet_b0`` for the family, the printed name for a rival.
        top1: Percent.
        top5: Percent.
        params_m: Millions.
        flops_b: 1e9 multiply-adds; None where the paper prints none (GPipe).
        group: The EfficientNet to which the paper compares the network, such as ``efficientnet_b0``.
        params_ratio: Parameters divided by those of the group's EfficientNet, as printed.
        flops_ratio: Multiply-adds divided by those of the group's EfficientNet, as printed.
    """

    name: str
    top1: float
    top5: float
    params_m: float
    flops_b: float | None
    group: str
    params_ratio: float
    flops_ratio: float | None

    @property
    def ours(self) -> bool:
        """Whether the network is an EfficientNet, not a rival."""
        return self.name == self.group


_B0, _B1, _B2, _B3, _B4, _B5, _B6, _B7 = (f"efficientnet_b{phi}" for phi in range(8))

# Errata in the paper; the values below are kept as printed:
# - B2 params 9.2M and B4, B5, B7 FLOPS 4.2B, 9.9B, 37B; the actual counts are 9.11M and 4.39B, 10.27B, 37.7B.
# - AmoebaNet-A and PNASNet both 23B, but 5.5 and 6.0 times B4.
# - GPipe 557M; the inset of Figure 1 and Table 5 say 556M.
# - NASNet-A 82.7; the inset of Figure 5 says 80.7.
# - Table 4 still prints version 1's 78.8 (B1) and 84.4 (B7); section 1 still says B4 83.0 and ResNet-50 76.3.
# - The paper excludes ensembles, multi-crop results and networks pretrained on Instagram.
TABLE2: tuple[Table2Row, ...] = (
    Table2Row(_B0, 77.1, 93.3, 5.3, 0.39, _B0, 1, 1),
    Table2Row("ResNet-50", 76.0, 93.0, 26, 4.1, _B0, 4.9, 11),
    Table2Row("DenseNet-169", 76.2, 93.2, 14, 3.5, _B0, 2.6, 8.9),
    Table2Row(_B1, 79.1, 94.4, 7.8, 0.70, _B1, 1, 1),
    Table2Row("ResNet-152", 77.8, 93.8, 60, 11, _B1, 7.6, 16),
    Table2Row("DenseNet-264", 77.9, 93.9, 34, 6.0, _B1, 4.3, 8.6),
    Table2Row("Inception-v3", 78.8, 94.4, 24, 5.7, _B1, 3.0, 8.1),
    Table2Row("Xception", 79.0, 94.5, 23, 8.4, _B1, 3.0, 12),
    Table2Row(_B2, 80.1, 94.9, 9.2, 1.0, _B2, 1, 1),
    Table2Row("Inception-v4", 80.0, 95.0, 48, 13, _B2, 5.2, 13),
    Table2Row("Inception-resnet-v2", 80.1, 95.1, 56, 13, _B2, 6.1, 13),
    Table2Row(_B3, 81.6, 95.7, 12, 1.8, _B3, 1, 1),
    Table2Row("ResNeXt-101", 80.9, 95.6, 84, 32, _B3, 7.0, 18),
    Table2Row("PolyNet", 81.3, 95.8, 92, 35, _B3, 7.7, 19),
    Table2Row(_B4, 82.9, 96.4, 19, 4.2, _B4, 1, 1),
    Table2Row("SENet", 82.7, 96.2, 146, 42, _B4, 7.7, 10),
    Table2Row("NASNet-A", 82.7, 96.2, 89, 24, _B4, 4.7, 5.7),
    Table2Row("AmoebaNet-A", 82.8, 96.1, 87, 23, _B4, 4.6, 5.5),
    Table2Row("PNASNet", 82.9, 96.2, 86, 23, _B4, 4.5, 6.0),
    Table2Row(_B5, 83.6, 96.7, 30, 9.9, _B5, 1, 1),
    Table2Row("AmoebaNet-C", 83.5, 96.5, 155, 41, _B5, 5.2, 4.1),
    Table2Row(_B6, 84.0, 96.8, 43, 19, _B6, 1, 1),
    Table2Row(_B7, 84.3, 97.0, 66, 37, _B7, 1, 1),
    Table2Row("GPipe", 84.3, 97.0, 557, None, _B7, 8.4, None),
)
EFFICIENTNETS: tuple[Table2Row, ...] = tuple(row for row in TABLE2 if row.ours)
RIVALS: tuple[Table2Row, ...] = tuple(row for row in TABLE2 if not row.ours)


# Top-1 of Google's AutoAugment weights in timm (`tf_efficientnet_b0_aa` ...), with Pillow's bicubic resize.
# Source: README of rwightman/gen-efficientnet-pytorch, its table of ported weights; they are B0 to B7 of Table 2.
PORTED_TOP1 = {_B0: 76.88, _B1: 78.84, _B2: 80.07, _B3: 81.65, _B4: 83.04, _B5: 83.70, _B6: 84.12, _B7: 84.42}


def table2(name: str) -> Table2Row:
    """Returns the row of one network, such as ``efficientnet_b3`` or ``ResNet-50``.

    Raises:
        KeyError: Table 2 has no such network.
    """
    for row in TABLE2:
        if row.name == name:
            return row
    raise KeyError(f"Table 2 has no network {name!r}; it has {', '.join(row.name for row in TABLE2)}")


@dataclass(frozen=True)
class Transferred:
    """One accuracy of Table 5, in percent; ``params_m`` (millions) excludes the ImageNet classifier."""

    name: str
    accuracy: float
    params_m: float | None


@dataclass(frozen=True)
class Table5Row:
    """One data set of Table 5, "EfficientNet performance results on transfer learning datasets".

    Attributes:
        data: The data set's printed name.
        public: The best public network; ``ours_public`` is the EfficientNet compared with it.
        public_ratio: Parameters of ``public`` divided by those of ``ours_public``, as printed.
        best: The best reported result; ``ours_best`` is the EfficientNet compared with it.
        best_ratio: Same as ``public_ratio``; None where the paper prints none (DAT).
    """

    data: str
    public: Transferred
    ours_public: Transferred
    public_ratio: float
    best: Transferred
    ours_best: Transferred
    best_ratio: float | None


# Flowers, Aircraft and Pets are mean accuracy per class, following those data sets' protocols; the paper only
# prints "Acc.". For DAT the paper gives no size for either network. Table 6 prints 3,369 test
# images for Pets; the official list has 3,669.
_T = Transferred  # abbreviated so that a row reads as printed
TABLE5: tuple[Table5Row, ...] = (
    Table5Row(
        "CIFAR-10", _T("NASNet-A", 98.0, 85), _T(_B0, 98.1, 4), 21, _T("GPipe", 99.0, 556), _T(_B7, 98.9, 64), 8.7
    ),
    Table5Row(
        "CIFAR-100", _T("NASNet-A", 87.5, 85), _T(_B0, 88.1, 4), 21, _T("GPipe", 91.3, 556), _T(_B7, 91.7, 64), 8.7
    ),
    Table5Row(
        "Birdsnap", _T("Inception-v4", 81.8, 41), _T(_B5, 82.0, 28), 1.5, _T("GPipe", 83.6, 556), _T(_B7, 84.3, 64), 8.7
    ),
    Table5Row(
        "Stanford Cars",
        _T("Inception-v4", 93.4, 41),
        _T(_B3, 93.6, 10),
        4.1,
        _T("DAT", 94.8, None),
        _T(_B7, 94.7, None),
        None,
    ),
    Table5Row(
        "Flowers",
        _T("Inception-v4", 98.5, 41),
        _T(_B5, 98.5, 28),
        1.5,
        _T("DAT", 97.7, None),
        _T(_B7, 98.8, None),
        None,
    ),
    Table5Row(
        "FGVC Aircraft",
        _T("Inception-v4", 90.9, 41),
        _T(_B3, 90.7, 10),
        4.1,
        _T("DAT", 92.9, None),
        _T(_B7, 92.9, None),
        None,
    ),
    Table5Row(
        "Oxford-IIIT Pets",
        _T("ResNet-152", 94.5, 58),
        _T(_B4, 94.8, 17),
        5.6,
        _T("GPipe", 95.9, 556),
        _T(_B6, 95.4, 41),
        14,
    ),
    Table5Row(
        "Food-101", _T("Inception-v4", 90.8, 41), _T(_B4, 91.5, 17), 2.4, _T("GPipe", 93.0, 556), _T(_B7, 93.0, 64), 8.7
    ),
)
TABLE5_GEO_MEAN_RATIOS = (4.7, 9.6)  # rival's parameters / EfficientNet's: public networks, best results


@dataclass(frozen=True)
class Table6Row:
    """One data set of Table 6, "Transfer Learning Datasets"; counts of images as printed.

    Attributes:
        data: The printed name.
        key: The name of the configuration in ``conf/data``.
        train: Images in the official training split, including the validation split if there is one.
        metric: The metric of the data set's protocol, ``top-1`` or ``mean per class``.
        validation: Images of ``train`` that belong to the official validation split.
        misprinted: Images in the official test list, if the paper prints another number.
    """

    data: str
    key: str
    train: int
    test: int
    classes: int
    metric: str
    validation: int = 0
    misprinted: int | None = None


# The paper prints no metric. Source: SimCLR, appendix B.8, which follows Kornblith et al. (2019) and the papers of the
# data sets.
TABLE6: tuple[Table6Row, ...] = (
    Table6Row("CIFAR-10", "cifar10", 50_000, 10_000, 10, "top-1"),
    Table6Row("CIFAR-100", "cifar100", 50_000, 10_000, 100, "top-1"),
    Table6Row("Birdsnap", "birdsnap", 47_386, 2_443, 500, "top-1"),
    Table6Row("Stanford Cars", "cars", 8_144, 8_041, 196, "top-1"),
    Table6Row("Flowers", "flowers102", 2_040, 6_149, 102, "mean per class", validation=1_020),
    Table6Row("FGVC Aircraft", "aircraft", 6_667, 3_333, 100, "mean per class", validation=3_333),
    Table6Row("Oxford-IIIT Pets", "pets", 3_680, 3_369, 37, "mean per class", misprinted=3_669),
    Table6Row("Food-101", "food101", 75_750, 25_250, 101, "top-1"),
)
# Keyed by the names in models/data/sources/catalog.py.
TABLE6_BY_SOURCE = {row.key: row for row in TABLE6}
TABLE5_BY_SOURCE: dict[str, Table5Row] = dict(zip(TABLE6_BY_SOURCE, TABLE5, strict=True))


@dataclass(frozen=True)
class Table4Row:
    """One pair of Table 4, "Inference Latency Comparison": batch 1, one core of a Xeon E5-2690, mean of 20 runs.

    Attributes:
        rival_s: Seconds for one image.
        ours_top1: Percent as printed there, still those of version 1 (78.8 and 84.4; Table 2 has 79.1 and 84.3).
        speedup: Speedup of the EfficientNet over the rival, as printed.
    """

    rival: str
    rival_top1: float
    rival_s: float
    ours: str
    ours_top1: float
    ours_s: float
    speedup: float


TABLE4: tuple[Table4Row, ...] = (
    Table4Row("ResNet-152", 77.8, 0.554, _B1, 78.8, 0.098, 5.7),
    Table4Row("GPipe", 84.3, 19.0, _B7, 84.4, 3.1, 6.1),
)

# Printed names of the networks of related work and of B0, by their names in models/networks.
PRINTED_NAMES = {
    "mobilenetv1_100": "MobileNetV1",
    "mobilenet_v2": "MobileNetV2",
    "resnet50": "ResNet-50",
    "efficientnet_b0": "EfficientNet-B0",
    "resnet152": "ResNet-152",
    "legacy_senet154": "SENet",
}


def printed_top1(network: str) -> float | None:
    """Accuracy of a network in Table 2, in percent."""
    names = (network, PRINTED_NAMES.get(network))
    return next((row.top1 for row in TABLE2 if row.name in names), None)


def printed_latency_s(network: str) -> float | None:
    """Latency of a network in Table 4, in seconds."""
    seconds = {row.ours: row.ours_s for row in TABLE4} | {row.rival: row.rival_s for row in TABLE4}
    return seconds.get(PRINTED_NAMES.get(network, network))


def printed_speedup(ours: str, rival: str) -> float | None:
    """How many times as fast as a rival an EfficientNet is in Table 4."""
    pair = (ours, PRINTED_NAMES.get(rival, rival))
    return next((row.speedup for row in TABLE4 if (row.ours, row.rival) == pair), None)
