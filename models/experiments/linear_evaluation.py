"""Linear evaluation: logistic regression on the frozen features of a network.

Source: Kornblith et al., "Do better ImageNet models transfer better?" (2019), section 3: logistic regression on the
features of the last layer, its regularization selected on a validation part, then fitted on train and validation.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from conf import schema
from models.data.loading.loader import Loader
from models.data.shards import manifest as manifests
from models.experiments.paired import describe_lead
from models.networks import checkpoint_file, pretrained
from models.networks.build import build_model
from models.networks.efficientnet.network import EfficientNet
from models.networks.efficientnet.preprocessing import Normalize
from models.networks.packaged import FrozenNetwork, weights_path
from models.results import LinearComparison, ShardResult
from models.statistics import compare_folds

PARTS = ("train", "minival", "val")
BATCH = 32
CALIBRATION_BATCHES = 8
MAX_ITERATIONS = 500  # of L-BFGS; a fit that has not converged by then is used as it is

Answers = NDArray[np.bool_]  # [N], True where the image was classified correctly


@dataclass(frozen=True)
class Split:
    """Features and labels of a split: ``[N, K]`` float32 and ``[N]`` int64."""

    features: NDArray[np.float32]
    labels: NDArray[np.int64]


def build_frozen(frozen: FrozenNetwork) -> EfficientNet:
    """Builds the network with its weights.

    Raises:
        NotFoundError: The package of the weights is not installed.
    """
    if frozen.seed is None:
        path = weights_path(frozen.network)
        tensors = checkpoint_file.read(path.read_bytes(), path.name)
        weights = pretrained.convert(tensors, schema.Published(), path.name)
        network = build_model(weights.model, weights.classes)
        network.load_state_dict(weights.state_dict)
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(frozen.seed)
            network = build_model(schema.Model(name=frozen.network, preprocessing="lite"), 1000)
    assert isinstance(network, EfficientNet)  # noqa: S101 - for the type checker
    return network


def classify_val(frozen: FrozenNetwork, shards: ShardResult, config: schema.Config) -> tuple[Answers, float]:
    """Classifies val by a regression on the features of train and minival.

    Args:
        frozen: The network.
        shards: The data set.
        config: Its crop of evaluation, and the settings of the evaluation.

    Returns:
        Which images of val were classified correctly, ``[N]``, and the percentage of the most frequent class of val.

    Raises:
        DataError: A shard or an image is damaged.
        NotFoundError: The package of the weights is not installed.
    """
    manifest = manifests.load_verified(shards.manifest_uri, shards.manifest_sha256, config.data.leave_out)
    network, side, augment = build_frozen(frozen), config.linear.resolution, config.data.augment
    cache, threads = Path(config.run_dir) / "cache", config.runtime.loader_threads
    cache_bytes = int(config.runtime.cache_gb * 1e9)
    splits = {}
    for part in PARTS:
        with closing(Loader(manifest, shards.manifest_uri, part, side, augment, cache, threads, cache_bytes)) as loader:
            if part == "train" and frozen.seed is not None:
                calibrate(network, loader)
            splits[part] = extract(network, loader)
    majority = float(np.bincount(splits["val"].labels).max() / len(splits["val"].labels))
    return fit_and_classify(splits, config.linear.strengths), 100 * majority


def _images(loader: Loader) -> Iterator[tuple[Tensor, NDArray[np.int64]]]:
    """Normalized images ``[n, 3, side, side]`` and their labels ``[n]``, n <= BATCH."""
    normalize = Normalize(torch.device("cpu"))
    for batch in loader.eval_batches(BATCH, 0, 1):
        yield normalize(batch.images), batch.labels.numpy()


def extract(network: EfficientNet, loader: Loader) -> Split:
    """Computes the pooled features of all images of a split."""
    network.eval()
    with torch.inference_mode():
        rows = [(network.features(images).mean((2, 3)).numpy(), labels) for images, labels in _images(loader)]
    return Split(np.concatenate([row for row, _ in rows]), np.concatenate([labels for _, labels in rows]))


def calibrate(network: EfficientNet, loader: Loader) -> None:
    """Sets the statistics of batch norm to those of ``CALIBRATION_BATCHES`` of images, spread over the split.

    Statistics of random weights are of no data: without it, activations shrink or grow from block to block, and the
    features are worse than random ones need to be.
    """
    network.eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # the mean over all batches
            module.train()
    stride = max(1, loader.samples // BATCH // CALIBRATION_BATCHES)
    with torch.no_grad():
        for number, (images, _) in enumerate(_images(loader)):
            if number % stride == 0:
                network.features(images)


def fit_and_classify(splits: Mapping[str, Split], strengths: Sequence[float]) -> Answers:
    """Fits a regression for each strength on train, and the best on minival once more on both, and classifies val.

    Args:
        splits: Train, minival and val.
        strengths: Inverse strengths of the L2 regularization; of several that are equally good, the first is taken.
    """
    train, minival, val = (splits[part] for part in PARTS)
    scores = [
        float((_fit(train.features, train.labels, c).predict(minival.features) == minival.labels).mean())
        for c in strengths
    ]
    best = strengths[int(np.argmax(scores))]
    features = np.concatenate([train.features, minival.features])
    labels = np.concatenate([train.labels, minival.labels])
    answers: Answers = _fit(features, labels, best).predict(val.features) == val.labels
    return answers


def _fit(features: NDArray[np.float32], labels: NDArray[np.int64], strength: float) -> Any:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=MAX_ITERATIONS)).fit(
            features, labels
        )


def compare_networks(
    public: Mapping[str, Sequence[Answers]], random: Mapping[str, Sequence[Sequence[Answers]]], test_over_train: float
) -> tuple[list[LinearComparison], list[str]]:
    """Compares ImageNet's weights of each network with its random ones, and with ImageNet's of the first network.

    Args:
        public: By network, the answers of ImageNet's weights in each fold.
        random: By network, for each fold, the answers of each random weights.
        test_over_train: Test images of a fold over its training images.

    Returns:
        The comparisons and the verdict of each in words, at 5 % over all comparisons.
    """
    leads = []
    first = next(iter(public))
    for network, of_folds in public.items():
        tested = [(ours, rows) for ours, rows in zip(of_folds, random[network], strict=True) if rows]
        if tested:
            ours = [np.stack([answers] * len(rows)) for answers, rows in tested]
            theirs = [np.stack(rows) for _, rows in tested]
            leads.append((network, f"{network} with random weights", compare_folds(ours, theirs, test_over_train)))
    for network, of_folds in list(public.items())[1:]:
        ours, theirs = ([answers[None] for answers in folds] for folds in (of_folds, public[first]))
        leads.append((network, first, compare_folds(ours, theirs, test_over_train)))
    return (
        [LinearComparison(first=one, second=other, lead=lead) for one, other, lead in leads],
        [describe_lead(one, other, lead, len(leads)) for one, other, lead in leads],
    )
