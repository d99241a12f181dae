"""Settings of a training job: the network, the images and the recipe.

Facts of the paper (block table, BN momentum, normalisation) are not settings; they are in ``models/``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

from conf.text import did_you_mean

MISSING: Any = "???"  # Hydra's marker for "must be given"
# Marks a setting that is newer than stored jobs and models: at its default it is not written (compose.py).
LATER = {"later": True}
# Marks a LATER setting that is newer than the keys of stored searches and studies, too: at its default it is no part of
# their digests.
NEWEST = {"later": True, "digested": False}
# A renamed setting carries ``stored_as``, or ``stored_values`` for its values: the words under which it is stored, so
# that stored jobs can be read and keep their keys (compose.py).
METRICS = ("top-1", "mean per class")
POLICIES = ("none", "v0", "imagenet", "randaugment")
PRECISIONS = ("auto", "fp32", "tf32", "bf16")
BN_GROUPS = ("slice", "rank", "sync")
PADDINGS = ("symmetric", "same")
PREPROCESSINGS = ("imagenet", "advprop", "lite")
REWRITTEN, IN_PLACE = SHARDS = ("rewritten", "in_place")
BICUBIC, BILINEAR = INTERPOLATIONS = ("bicubic", "bilinear")
CENTER, SQUASH = CROP_MODES = ("center", "squash")
FOLD_TOLERANCE = 0.01  # by which data.folds times data.val_share may differ from 1
MAX_RESOLUTION = 16  # multiplier of the image side; what exceeds it is a number of pixels
# Names become parts of object keys, paths, job names, names in MLflow and Prefect, and arguments of commands.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_VERSION = re.compile(rf"{_NAME.pattern}/\d{{4}}-[0-9a-f]{{8}}")  # of a data set
_REFERENCE = re.compile(rf"{_NAME.pattern}(@{_NAME.pattern}|/[0-9]{{1,9}})")


def require(condition: bool, message: str) -> None:
    """Raises ValueError unless the condition holds; the message names the key, the bound and the value."""
    if not condition:
        raise ValueError(message)


def require_choice(key: str, value: str | None, choices: Sequence[str]) -> None:
    """Refuses what is not one of the choices, and names the nearest; accepts None."""
    if value is not None and value not in choices:
        hint = f"; {did_you_mean(str(value), choices)}".rstrip("; ")
        raise ValueError(f"{key} must be one of {', '.join(choices)}, is {value!r}{hint}")


def require_name(key: str, value: str | None) -> None:
    """Refuses a name with characters that are special in paths or commands; accepts None and MISSING."""
    require(
        value in (None, MISSING) or bool(_NAME.fullmatch(str(value))),
        f"{key} must be 1 to 63 of A-Z a-z 0-9 . _ - and start with a letter or digit, is {value!r}",
    )


def require_port(key: str, address: str) -> None:
    """Refuses a URL whose port is not a number from 0 to 65535; accepts one without a port."""
    try:
        _ = urlsplit(address).port
    except ValueError:
        raise ValueError(f"{key} must have a number from 0 to 65535 as port, is {address!r}") from None


def require_reference(key: str, value: str | None) -> None:
    """Refuses what cannot be a version in the model registry; accepts None."""
    require(
        value is None or bool(_REFERENCE.fullmatch(value)),
        f"{key} must be NAME@ALIAS or NAME/VERSION, as efficientnet-b0@champion, is {value!r}",
    )


@dataclass
class Model:
    """The network, and the factors by which the whole family is scaled.

    ``width``, ``depth`` and ``resolution`` multiply the variant's own coefficients; 1.0 is the paper's size.
    """

    name: str = "efficientnet_b0"  # Name of the network, e.g. efficientnet_b0 or resnet50.
    width: float = 1.0  # Multiplier of the channels.
    depth: float = 1.0  # Multiplier of the repeats.
    resolution: float = 1.0  # Multiplier of the image side.
    survival_prob: float = 0.8  # Survival probability of the last block in stochastic depth; the first block keeps 1.0.
    # Stages such as r1_k3_s11_e1_i32_o16_se0.25; empty = those of B0 (Table 1).
    blocks: list[str] = field(default_factory=list, metadata=LATER)
    # Padding of convolutions: symmetric (kernel // 2) | same (TensorFlow's); `effnet import` sets it.
    padding: str = field(default="symmetric", metadata=LATER)
    # Epsilon of batch norm, TensorFlow's by default (PyTorch's is 1e-5); `effnet import` sets it.
    bn_epsilon: float = field(default=1e-3, metadata=LATER)
    # Pixels that the weights expect: imagenet (mean, deviation) | advprop | lite; `effnet import` sets it.
    preprocessing: str = field(default="imagenet", metadata=LATER)

    def __post_init__(self) -> None:
        require_name("model.name", self.name)
        for key in ("width", "depth", "resolution"):
            require(getattr(self, key) > 0, f"model.{key} must be > 0, is {getattr(self, key)}")
        require(
            self.resolution <= MAX_RESOLUTION,
            f"model.resolution multiplies that of the variant: {self.resolution} is no multiplier",
        )
        require(0 < self.survival_prob <= 1, f"model.survival_prob must be in (0, 1], is {self.survival_prob}")
        require(0 < self.bn_epsilon < 1, f"model.bn_epsilon must be in (0, 1), is {self.bn_epsilon}")
        for key, choices in (("padding", PADDINGS), ("preprocessing", PREPROCESSINGS)):
            require_choice(f"model.{key}", getattr(self, key), choices)


@dataclass(frozen=True)
class EvalTransform:
    """How an image becomes the square that is evaluated: a central box, resized.

    The box is ``side / (side + crop_pad)`` of the short side, both ways; squashed, of the width and of the height.
    """

    crop_pad: int = 32  # Margin in pixels of the resized image.
    interpolation: str = BICUBIC  # Resize: bicubic | bilinear.
    crop_mode: str = CENTER  # Box: center (a square) | squash (of the image's aspect ratio).


@dataclass
class Augment:
    """Augmentation of training images; part of the data set, since it depends on what keeps a label valid."""

    crop_area_min: float = 0.08  # Minimum share of the image that a random crop keeps.
    crop_aspect_max: float = 4 / 3  # Aspect ratio of the widest crop; the narrowest is its inverse.
    flip_prob: float = 0.5  # Probability of a horizontal flip.
    eval_crop_pad: int = 32  # Evaluation crops the central size/(size+pad) of the short side; 0 = no margin.
    eval_interpolation: str = field(default=BICUBIC, metadata=NEWEST)  # Resize of evaluation: bicubic | bilinear.
    # Box of evaluation: center (a square) | squash (of the image's aspect ratio, which the resize does not keep).
    eval_crop_mode: str = field(default=CENTER, metadata=NEWEST)
    # Augmentation policy: none | v0 (AutoAugment of the official code) | imagenet (the published one) | randaugment.
    policy: str = "none"
    randaugment_layers: int = 2  # N of RandAugment: operations per image.
    randaugment_magnitude: float = 9.0  # M of RandAugment, from 0 to 30 (published: B5 17, B7 28).
    erase_prob: float = 0.0  # Probability of random erasing, applied on the device.
    mixup_alpha: float = 0.0  # Alpha of mixup, applied on the device; 0 = off.
    # Alpha of CutMix, applied on the device; 0 = off; with mixup too, each batch gets one of them.
    cutmix_alpha: float = 0.0

    def __post_init__(self) -> None:
        require_choice("augment.policy", self.policy, POLICIES)
        require_choice("augment.eval_interpolation", self.eval_interpolation, INTERPOLATIONS)
        require_choice("augment.eval_crop_mode", self.eval_crop_mode, CROP_MODES)
        require(self.eval_crop_pad >= 0, f"augment.eval_crop_pad must be >= 0, is {self.eval_crop_pad}")
        require(self.randaugment_layers > 0, "augment.randaugment_layers must be > 0")
        require(
            0 <= self.randaugment_magnitude <= 30,
            f"augment.randaugment_magnitude must be in [0, 30], is {self.randaugment_magnitude}",
        )
        require(0 <= self.erase_prob <= 1, f"augment.erase_prob must be in [0, 1], is {self.erase_prob}")
        for key in ("mixup_alpha", "cutmix_alpha"):
            require(getattr(self, key) >= 0, f"augment.{key} must be >= 0, is {getattr(self, key)}")
        require(0 < self.crop_area_min <= 1, f"crop_area_min must be in (0, 1], is {self.crop_area_min}")
        require(self.crop_aspect_max >= 1, f"crop_aspect_max must be >= 1, is {self.crop_aspect_max}")
        require(0 <= self.flip_prob <= 1, f"flip_prob must be in [0, 1], is {self.flip_prob}")

    @property
    def evaluation(self) -> EvalTransform:
        """The settings of evaluation."""
        return EvalTransform(self.eval_crop_pad, self.eval_interpolation, self.eval_crop_mode)


@dataclass
class Data:
    """A data set, and how it is divided into shards."""

    # Name of the data set and of its prefix in the object store: letters, digits, . _ - (63 at most).
    name: str = MISSING
    # Source, a row of models/data/sources/catalog.py: mnist5k, folder, imagenet, cifar10 and others.
    source: str = MISSING
    # Folder with the official archives or the extracted tree, local or s3://; of webdataset the shards, also https://,
    # with braces, and several patterns with :: between them.
    path: str | None = None
    # Shards of val of webdataset, written as data.path; null = recognized by their names.
    val_path: str | None = field(default=None, metadata=NEWEST)
    # Where labels are: of webdataset's samples the field, cls, txt or another suffix, or json.KEY; of a folder whose
    # images are divided into no classes the column of a CSV file; null = recognized.
    label_field: str | None = field(default=None, metadata=NEWEST)
    # Folders of train and of val of a folder, whatever their names; those beside the ones of val are train if only they
    # are named, and [.] takes all folders as classes; empty = recognized by their names.
    train_folders: list[str] = field(default_factory=list, metadata=NEWEST)
    # As train_folders, for val.
    val_folders: list[str] = field(default_factory=list, metadata=NEWEST)
    # Level of the folders that are the classes of a folder, counted below the top or the folder of a split: 1 = the
    # first, 2 = those in it (as of PATIENT/CLASS/IMAGE), -1 = the folder that each image is in.
    class_level: int = field(default=1, metadata=NEWEST)
    # Level of the folders of a folder whose images all come into one split, as those of a patient; null = each image
    # is divided by its content.
    group_level: int | None = field(default=None, metadata=NEWEST)
    # File with the names of the classes of webdataset, one a line or a JSON list, in the order of the labels.
    class_file: str | None = field(default=None, metadata=NEWEST)
    # Shards of webdataset: rewritten (shuffled into new ones) | in_place (read where they are, only a manifest is
    # written).
    shards: str = field(default=REWRITTEN, metadata=NEWEST)
    # Accept a set whose counts are not the official ones, or of which many files cannot be used; the manifest records
    # what is missing.
    allow_partial: bool = False
    # Convert WebP, BMP, GIF (first frame) and TIFF (first page) to PNG without loss; false = such files are not used.
    convert: bool = field(default=False, metadata=NEWEST)
    verify_images: bool = True  # Decode every image once; images that do not decode are excluded and listed.
    # Encode larger images again, with at most this many pixels a side; null = original bytes.
    max_side: int | None = None
    limit: int | None = None  # Maximum number of samples, from the shuffled whole; null = all.
    # Share of val, where the source has no val split of its own; of a folder the expected share, not the exact one.
    val_share: float = 0.2
    # Number of equal parts into which images without a val split of their own are divided; one of them is val, so
    # data.val_share must be one part, as 0.2 of 5. The seeds of scaling, transfer and linear run over the parts: as
    # many seeds test every image once. 1 = a single val, of data.val_share.
    folds: int = field(default=1, metadata=NEWEST)
    # Number of the part that is val, from 0; where seeds run over the parts, that of the first seed.
    fold: int = field(default=0, metadata=NEWEST)
    # Name of the val of a folder, which is kept under this name while the folder grows; null = val grows too.
    frozen_val: str | None = field(default=None, metadata=NEWEST)
    # Write shards of those images only that the data set has not yet, and a new version of its manifest; the old shards
    # stay as they are, and so do minival and val. false = shard the whole folder anew. null = false, but true in effnet
    # nightly on a set that grows, as long as none of its images changes its class.
    append: bool | None = field(default=None, metadata=NEWEST)
    # Versions of data sets that effnet nightly refused and that it takes as they are, e.g.
    # transfer.data.accept=[products/0002-5f0c9a31]: the limits of the data do not apply to what they add, and their
    # images are no longer withheld. Those of other data sets do not count, and no other verb reads it.
    accept: list[str] = field(default_factory=list, metadata=NEWEST)
    # Share of train that becomes minival, of a folder the expected share; the paper's is 25,022 of 1,281,167.
    minival_share: float = 0.02
    # official: a set's own validation part is minival | cut: it joins train, and minival_share is split off.
    minival: str = "official"
    samples_per_shard: int = 1250  # Samples per shard; the default writes the paper's 1,281,167 images as 1,024 shards.
    shards_per_task: int = 8  # Shards that one Prefect task writes.
    seed: int = 0  # Seed of the split and of the shuffle before sharding.
    # Shards (NAME.tar) that are damaged and cannot be written again; jobs train without them and record it.
    leave_out: list[str] = field(default_factory=list, metadata=LATER)
    metric: str = "top-1"  # Metric of results: top-1 | mean per class (each class has the same weight).
    augment: Augment = field(default_factory=Augment)  # Augmentation of training images.

    def __post_init__(self) -> None:
        require_name("data.name", self.name)
        require_name("data.frozen_val", self.frozen_val)
        require_choice("data.shards", self.shards, SHARDS)
        for key, is_set in (
            ("convert", self.convert),
            ("max_side", self.max_side is not None),
            ("append", bool(self.append)),
        ):
            require(
                self.shards == REWRITTEN or not is_set,
                f"data.{key} needs data.shards={REWRITTEN}: shards that are read in place stay as they are",
            )
        require(
            self.shards == REWRITTEN or self.source in (MISSING, "webdataset"),
            f"data.shards={self.shards} is for data=webdataset, not for {self.source}",
        )
        for key in ("val_path", "class_file"):
            require(
                getattr(self, key) is None or self.source in (MISSING, "webdataset"),
                f"data.{key} is for data=webdataset, not for {self.source}",
            )
        for key in ("train_folders", "val_folders"):
            require(
                not getattr(self, key) or self.source in (MISSING, "folder"),
                f"data.{key} is for data=folder, not for {self.source}",
            )
        require(
            "." not in [*self.train_folders, *self.val_folders]
            or (self.train_folders, self.val_folders) == (["."], []),
            "data.train_folders=[.] takes all folders as classes, so nothing stands beside it",
        )
        for key, default in (("class_level", 1), ("group_level", None)):
            require(
                getattr(self, key) == default or self.source in (MISSING, "folder"),
                f"data.{key} is for data=folder, not for {self.source}",
            )
        require(self.class_level != 0, "data.class_level counts folders from 1, or from -1 for the last one")
        require(
            self.group_level is None or (self.group_level > 0 and self.group_level != self.class_level),
            f"data.group_level counts folders from 1 and is another level than data.class_level, is {self.group_level}",
        )
        require(self.append is not False or not self.accept, "data.accept and data.append=false exclude each other")
        for name in self.accept:
            require(
                bool(_VERSION.fullmatch(name)),
                f"data.accept takes versions as a night names them, DATA/0002-5f0c9a31, not {name!r}",
            )
        require(0 < self.val_share < 1, f"data.val_share must be in (0, 1), is {self.val_share}")
        self._check_folds()
        require(0 < self.minival_share < 1, f"data.minival_share must be in (0, 1), is {self.minival_share}")
        require_choice("data.metric", self.metric, METRICS)
        require_choice("data.minival", self.minival, ("official", "cut"))
        require(0 <= self.seed < 2**31, f"data.seed must be in [0, 2^31), is {self.seed}")
        require(self.samples_per_shard > 0, "data.samples_per_shard must be > 0")
        require(self.shards_per_task > 0, "data.shards_per_task must be > 0")
        require(self.limit is None or self.limit > 0, f"data.limit must be > 0, is {self.limit}")
        require(self.max_side is None or self.max_side >= 32, f"data.max_side must be >= 32, is {self.max_side}")

    def _check_folds(self) -> None:
        require(self.folds > 0, f"data.folds must be > 0, is {self.folds}")
        require(0 <= self.fold < self.folds, f"data.fold must be in [0, data.folds={self.folds}), is {self.fold}")
        if self.folds == 1:
            return
        require(
            abs(self.val_share * self.folds - 1) <= FOLD_TOLERANCE,
            f"data.folds={self.folds} makes a val of {1 / self.folds:.4g} of the images, and data.val_share is "
            f"{self.val_share:g}; data.val_share={1 / self.folds:.3g} is one part, data.folds=1 has a single val",
        )
        for key, is_set in (("frozen_val", self.frozen_val is not None), ("append", self.append)):
            require(not is_set, f"data.{key} keeps one val while the set grows: it cannot be had with data.folds > 1")

    def for_seed(self, seed: int) -> Data:
        """The settings of the training with this seed, counted from 0: the seeds run over the folds."""
        return replace(self, fold=(self.fold + seed) % self.folds)


@dataclass
class Recipe:
    """How a network is trained. The defaults are those of the official code (sources: models/training)."""

    epochs: int = 350  # Number of epochs.
    global_batch: int = 4096  # Images per step over all ranks.
    # Fixed parts of the global batch; order and randomness depend on them, not on the ranks.
    batch_slices: int = field(default=64, metadata={"stored_as": "logical_shards"})
    optimizer: str = "rmsprop"  # Optimizer: rmsprop (TensorFlow's form, as in the paper) | adamw | sgd (Nesterov).
    lr_per_256: float = 0.016  # Learning rate per 256 images; the peak rate is lr_per_256 * global_batch / 256.
    schedule: str = "staircase"  # Learning rate schedule: staircase (the paper's) | cosine (to 0 over the epochs).
    warmup_epochs: float = 5.0  # Epochs of linear warm-up.
    lr_decay: float = 0.97  # Factor of each decay of the staircase.
    lr_decay_epochs: float = 2.4  # Epochs between two decays of the staircase.
    weight_decay: float = 1e-5  # Weight decay.
    label_smoothing: float = 0.1  # Label smoothing.
    rmsprop_decay: float = 0.9  # Decay of RMSProp's mean square.
    momentum: float = 0.9  # Momentum of the optimizer.
    rmsprop_epsilon: float = 1e-3  # Epsilon of RMSProp.
    ema_decay: float = 0.9999  # Decay of the moving average of the weights.
    # Momentum of batch norm in PyTorch's sense (TensorFlow's 0.99); jobs of few steps need more.
    bn_momentum: float = 0.01
    # Batch-norm statistics over: slice (of the batch) | rank (what a rank computes together) | sync (all ranks).
    bn_groups: str = field(default="slice", metadata={"stored_values": {"slice": "shard"}})
    # Batch slices that a rank computes together, with rank or sync; null = all that it has.
    slices_per_pass: int | None = field(default=None, metadata={"stored_as": "shards_per_pass"})
    dropout: float | None = None  # Dropout before the classifier; null = the variant's own (0.2 for B0 to 0.5 for B7).
    precision: str = "auto"  # Precision: fp32 | tf32 | bf16 | auto (bf16 on a GPU that has it, else fp32).
    recompute: bool = False  # Recompute activations in the backward pass instead of storing them, for B6 and B7.
    seed: int = 0  # Seed of weights, order and augmentation.
    eval_every_epochs: int = 1  # Epochs between two evaluations.
    checkpoint_every_steps: int | None = None  # Steps between two checkpoints; null = at every evaluation.
    keep_checkpoints: int = 2  # Number of checkpoints that are kept.

    def __post_init__(self) -> None:
        require(self.epochs > 0, f"recipe.epochs must be > 0, is {self.epochs}")
        require(self.global_batch > 0, f"recipe.global_batch must be > 0, is {self.global_batch}")
        require(self.batch_slices > 0, f"recipe.batch_slices must be > 0, is {self.batch_slices}")
        require(0 < self.lr_per_256 < float("inf"), f"recipe.lr_per_256 must be > 0, is {self.lr_per_256}")
        require(self.warmup_epochs >= 0, f"recipe.warmup_epochs must be >= 0, is {self.warmup_epochs}")
        require(0 < self.lr_decay <= 1, f"recipe.lr_decay must be in (0, 1], is {self.lr_decay}")
        require(self.lr_decay_epochs > 0, f"recipe.lr_decay_epochs must be > 0, is {self.lr_decay_epochs}")
        require(self.dropout is None or 0 <= self.dropout < 1, f"recipe.dropout must be in [0, 1), is {self.dropout}")
        for key, choices in (
            ("optimizer", ("rmsprop", "adamw", "sgd")),
            ("schedule", ("staircase", "cosine")),
            ("precision", PRECISIONS),
            ("bn_groups", BN_GROUPS),
        ):
            require_choice(f"recipe.{key}", getattr(self, key), choices)
        at_once = self.slices_per_pass
        require(at_once is None or at_once > 0, f"recipe.slices_per_pass must be > 0, is {at_once}")
        require(
            at_once in (None, 1) or self.bn_groups != "slice",
            f"recipe.slices_per_pass={at_once} needs recipe.bn_groups=rank or sync: with slice each slice of "
            "the batch is computed alone",
        )
        require(0 <= self.label_smoothing < 1, f"recipe.label_smoothing must be in [0, 1), is {self.label_smoothing}")
        require(0 <= self.ema_decay < 1, f"recipe.ema_decay must be in [0, 1), is {self.ema_decay}")
        require(self.keep_checkpoints > 0, "recipe.keep_checkpoints must be > 0")
        require(self.eval_every_epochs > 0, "recipe.eval_every_epochs must be > 0")
        steps = self.checkpoint_every_steps
        require(steps is None or steps > 0, f"recipe.checkpoint_every_steps must be > 0, is {steps}")
        require(0 <= self.seed < 2**31, f"recipe.seed must be in [0, 2^31), is {self.seed}")


@dataclass
class StopRule:
    """When a training of one network is not worth its remaining epochs."""

    network: str = MISSING  # Name of the network.
    data: str = MISSING  # Name of the data set.
    epoch: int = MISSING  # Epoch after which it is judged, at the next evaluation.
    top1: float = MISSING  # Least top-1 of the averaged weights on minival, in percent.

    def __post_init__(self) -> None:
        for key in ("network", "data"):
            require_name(f"runtime.stop_below: {key}", getattr(self, key))
        require(self.epoch == MISSING or self.epoch > 0, f"runtime.stop_below: epoch must be > 0, is {self.epoch}")
        require(
            self.top1 == MISSING or 0 < self.top1 <= 100,
            f"runtime.stop_below: top1 must be in (0, 100], is {self.top1}",
        )
