"""Settings of a training job: the network and the recipe.

Facts of the paper (block table, BN momentum, normalisation) are not settings; they are in ``models/``.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from conf.fields import LATER, MISSING, require, require_choice, require_name

PRECISIONS = ("auto", "fp32", "tf32", "bf16")
BN_GROUPS = ("slice", "rank", "sync")
PADDINGS = ("symmetric", "same")
PREPROCESSINGS = ("imagenet", "advprop", "lite")
MAX_RESOLUTION = 16  # multiplier of the image side; what exceeds it is a number of pixels


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
        require(0 < self.lr_per_256 < float("inf"), f"recipe.lr_per_256 must be > 0 and finite, is {self.lr_per_256}")
        require(self.weight_decay >= 0, f"recipe.weight_decay must be >= 0, is {self.weight_decay}")
        for key in ("rmsprop_decay", "momentum"):
            require(0 <= getattr(self, key) < 1, f"recipe.{key} must be in [0, 1), is {getattr(self, key)}")
        require(self.rmsprop_epsilon > 0, f"recipe.rmsprop_epsilon must be > 0, is {self.rmsprop_epsilon}")
        require(0 < self.bn_momentum <= 1, f"recipe.bn_momentum must be in (0, 1], is {self.bn_momentum}")
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
