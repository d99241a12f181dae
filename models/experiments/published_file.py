"""Reads a published checkpoint: its bytes, what is stated beside them, its network and the names of its classes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

from conf import schema
from conf.experiments import CLASSES_GIVEN
from conf.text import logger
from infra import store
from infra.errors import ArtifactError, ConfigError
from models.data.sources.class_file import read_class_names
from models.networks import checkpoint_file, packaged, pretrained, timm_config
from models.networks.pretrained import PretrainedWeights
from models.networks.timm_config import TimmConfig

log = logger()


@dataclass(frozen=True)
class PublishedFile:
    """A checkpoint that was read.

    Attributes:
        uri: Where the file is.
        sha256: Its digest.
        weights: Its network.
        class_names: Names of the classes, by row of the classifier.
        class_source: Where they are from: ``CLASSES_GIVEN``, ``of ImageNet`` or ``unknown``.
    """

    uri: str
    sha256: str
    weights: PretrainedWeights
    class_names: tuple[str, ...]
    class_source: str


def read(options: schema.Published) -> PublishedFile:
    """Reads and checks every tensor of ``published.path``.

    Raises:
        ConfigError: No path, an unsupported file type, or a network, origin or class count other than requested.
        NotFoundError: No such file.
        ArtifactError: The file is damaged, has another sha256, or fits no network of effnet.
        TransientError: The store does not respond.
    """
    if options.path is None:
        raise ConfigError("which file? e.g. published.path=/weights/tf_efficientnet_b0_aa-827b6e33.pth")
    if "://" not in options.path and Path(options.path).is_dir():
        raise ConfigError(f"published.path {options.path} is a folder{_describe_folder(Path(options.path))}")
    uri = options.path if "://" in options.path else f"file://{Path(options.path).resolve()}"
    data = store.read(uri)
    sha256 = hashlib.sha256(data).hexdigest()
    if options.sha256 is not None and not sha256.startswith(options.sha256.lower()):
        raise ArtifactError(f"{options.path} has sha256 {sha256}, published.sha256 says {options.sha256}")
    stated = timm_config.read_beside(options.path)
    tensors = checkpoint_file.read(data, options.path, options.weights)
    weights = pretrained.convert(tensors, options, options.path, stated)
    names, source = _name_classes(weights, options.class_file, stated)
    if source != CLASSES_GIVEN and not packaged.has_weights(sha256):
        weights = replace(weights, guesses=(*weights.guesses, f"class names {source}"))
    return PublishedFile(uri, sha256, weights, tuple(names), source)


def _describe_folder(folder: Path) -> str:
    """Returns what to do with a folder in place of a file."""
    if (folder / "saved_model.pb").exists():
        return " of TensorFlow, which is not read: timm has Google's weights for PyTorch, as tf_efficientnet_b0"
    known = sorted(
        one.name for one in folder.iterdir() if one.name.endswith((".safetensors", *checkpoint_file.PICKLES))
    )
    return f": give the file, as {folder / known[0]}" if known else ", in which no file has the suffix of weights"


def _name_classes(weights: PretrainedWeights, file: str | None, stated: TimmConfig | None) -> tuple[list[str], str]:
    """Names of the classes, and where they are from: a file of the user, timm's config.json, or what is usual.

    Without them they are ImageNet's for 1,000 classes, and otherwise their numbers.

    Raises:
        ConfigError: The user's file has another number of names, or there is none.
    """
    if file is not None:
        names = read_class_names(file, "published.class_file")
        if len(names) != weights.classes:
            raise ConfigError(
                f"published.class_file {file} has {len(names)} names, the weights have {weights.classes} classes"
            )
        return names, CLASSES_GIVEN
    if stated is not None and stated.has_names and stated.network == weights.model.name:
        try:
            names = read_class_names(stated.path, "names of classes in")
        except ConfigError as error:
            log.warning("%s: they are not used", error)
        else:
            if len(names) == weights.classes:
                log.info("%s states the names of the %d classes", stated.path, len(names))
                return names, CLASSES_GIVEN
            log.warning("%s has %d names, the weights have %d classes", stated.path, len(names), weights.classes)
    names = list(packaged.imagenet_names())
    if weights.classes == len(names):
        return names, "of ImageNet"
    return [str(number) for number in range(weights.classes)], "unknown"
