"""Settings of a data set: where the images are, how they are divided, and how they are augmented."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from conf.fields import LATER, MISSING, NEWEST, require, require_choice, require_name, require_version

METRICS = ("top-1", "mean per class")
POLICIES = ("none", "v0", "imagenet", "randaugment")
REWRITTEN, IN_PLACE = SHARDS = ("rewritten", "in_place")
BICUBIC, BILINEAR = INTERPOLATIONS = ("bicubic", "bilinear")
CENTER, SQUASH = CROP_MODES = ("center", "squash")
FOLD_TOLERANCE = 0.01  # by which data.folds times data.val_share may differ from 1


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
    # As train_folders, for val; [.] takes all folders as classes and all images as val, for evaluate.
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
        self._check_whole_tree()
        for key, default in (("class_level", 1), ("group_level", None)):
            require(
                getattr(self, key) == default or self.source in (MISSING, "folder"),
                f"data.{key} is for data=folder, not for {self.source}",
            )
        require(self.class_level != 0, "data.class_level counts folders from 1, or from -1 for the last one")
        require(
            self.group_level is None
            or (self.group_level > 0 and (self.group_level != self.class_level or self.label_field is not None)),
            f"data.group_level counts folders from 1 and is another level than data.class_level, is {self.group_level}",
        )
        require(self.append is not False or not self.accept, "data.accept and data.append=false exclude each other")
        for name in self.accept:
            require_version("data.accept", name)
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

    def _check_whole_tree(self) -> None:
        for key, other in (("train_folders", "val_folders"), ("val_folders", "train_folders")):
            folders, beside = getattr(self, key), getattr(self, other)
            require(
                "." not in folders or (len(folders) == 1 and not beside),
                f"data.{key}=[.] takes all folders as classes, so data.{key} has no other folder and data.{other} none",
            )
        for key, is_set in (
            ("append", bool(self.append)),
            ("folds", self.folds > 1),
            ("frozen_val", self.frozen_val is not None),
            ("group_level", self.group_level is not None),
        ):
            require(
                not (is_set and self.is_only_val),
                f"data.val_folders=[.] takes all images as val, and data.{key} is about images that are trained on",
            )

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

    @property
    def is_only_val(self) -> bool:
        """Whether all images are val, so that they can be evaluated and not trained on."""
        return self.val_folders == ["."]

    def for_seed(self, seed: int) -> Data:
        """The settings of the training with this seed, counted from 0: the seeds run over the folds."""
        return replace(self, fold=(self.fold + seed) % self.folds)
