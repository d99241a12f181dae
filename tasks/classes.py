"""Compares the classes of a registered model with those of a data set by name, and reorders its classifier."""

from __future__ import annotations

import asyncio
import hashlib
import re
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from prefect import task

from conf.experiments import CLASSES_GIVEN
from conf.text import list_some, logger
from infra import store
from infra.errors import ConfigError
from models.results import ShardResult
from tasks import policy
from tasks.shard import ShardPlan

if TYPE_CHECKING:
    from infra.tracking.registry import Version

log = logger()
SHOWN = 3  # differences in a message
_IMAGENET = 1000  # classes
_WNID = re.compile(r"n\d{8}")
CLASS_NAMES = "class_names"  # tag of an imported version: where the names of its classes are from


@task(task_run_name="classes of {ref}", **policy.BOOKKEEPING)
async def match_classes(
    weights: tuple[str, str], ref: str, shards: ShardPlan | ShardResult, storage: str
) -> tuple[tuple[str, str], str]:
    """Returns weights whose logits are in the order of a data set's classes: the given ones if they are already.

    The second value is what is assumed about the names of imported weights; empty if they are known.

    If the data set has the same classes in another order, or a part of them, the rows of the classifier are reordered
    by name, which is logged. The network then chooses among the classes of the data set only.

    Args:
        weights: URI and sha256 of the registered weights.
        ref: ``NAME/VERSION``.
        shards: The data set, or its plan: other classes are refused before the set is written.
        storage: Root of the object store, for reordered weights.

    Raises:
        ConfigError: The data set has a class that the model lacks; the message shows the first differences. Or the
            names of imported weights are unknown, and their order could be one of several.
        ArtifactError: The version was not registered by effnet, or a file is damaged.
    """
    return await asyncio.to_thread(_match_classes, weights, ref, shards, storage)


def _match_classes(
    weights: tuple[str, str], ref: str, shards: ShardPlan | ShardResult, storage: str
) -> tuple[tuple[str, str], str]:
    from infra.tracking import registry
    from models.networks.weights import select_classes

    version = registry.resolve_version(ref)
    model, data, assumed = class_lists(version, shards)
    if model == data:
        return weights, assumed
    rows = require_rows(ref, shards, model, data)
    what = (
        "the same classes in another order" if len(model) == len(data) else f"{len(data)} of its {len(model)} classes"
    )
    log.info("%s: %s has %s; they are matched by name, and the model chooses among them", ref, shards.name, what)
    selected = select_classes(*weights, rows)
    sha256 = hashlib.sha256(selected).hexdigest()
    uri = store.join(storage, "weights", f"{sha256}.safetensors")
    if not store.exists(uri):
        store.ensure_root(storage)
        store.write(uri, selected)
    return (uri, sha256), assumed


def class_mismatch(version: Version, shards: ShardResult) -> str | None:
    """The difference between the classes of a version and of a data set as text; None if they differ in order at most.

    Imported weights may have no class names of their own, see ``class_lists``.
    """
    try:
        model, data, _ = class_lists(version, shards)
    except ConfigError as error:
        return str(error)
    rows = find_rows(model, data)
    return None if rows is not None and len(rows) == len(model) else describe_difference(model, data)


class ClassLists(NamedTuple):
    """Names of a model's and a data set's classes, and what is assumed about the model's; empty for nothing."""

    model: list[str]
    data: list[str]
    assumed: str = ""


def class_lists(version: Version, shards: ShardPlan | ShardResult) -> ClassLists:
    """The class names of a version and of a data set, in the order of logits and labels.

    Weights that were imported without ``published.class_file`` have no class names. Those of 1,000 classes are taken
    for ImageNet's, and are matched by WordNet ids, which are the class names of ImageNet's data. Of a data set with as
    many other classes, the order is assumed if its labels are numbers in their order, as in WebDataset shards, whose
    label is the index of the logit wherever they are trained on, or if all usual orders are the same, see
    ``describe_orders``. Folders that are named by numbers are in the order of their names as text.

    Raises:
        ConfigError: The names are unknown, and their order could be one of several.
    """
    from infra.tracking import registry
    from models.networks import packaged

    model = [str(name) for name in registry.describe(version)["class_names"]]
    data = list(_classes_of(shards))
    numbers = [str(number) for number in range(len(model))]
    of_imagenet = tuple(model) == packaged.imagenet_names()
    if "source_sha256" not in version.tags or not (of_imagenet or model == numbers):
        return ClassLists(model, data)
    wnids = list(packaged.imagenet_wnids())
    if len(model) == len(wnids) and set(data) <= set(wnids):
        return ClassLists(wnids, data)
    if version.tags.get(CLASS_NAMES) == CLASSES_GIVEN:
        return ClassLists(model, data)
    if len(model) != len(data):
        return ClassLists(model if of_imagenet else [f"number {name}" for name in model], data)
    ref = f"{version.name}/{version.version}"
    if data != numbers and (unequal := describe_orders(data)):
        hint = f" (seq 0 {len(data) - 1} > FILE where logit N is the class named N)" * (set(data) == set(numbers))
        raise ConfigError(
            f"{ref}: the names of its {len(model)} classes are unknown, and so is their order, which depends on what "
            f"it was trained with: {unequal}. Import the weights again with published.class_file=FILE, the names of "
            f"the classes of {shards.name} in the order of the weights, one a line{hint}"
        )
    assumed = f"class names unknown: assumed in the order of {shards.name}"
    log.warning("%s: %s", ref, assumed)
    return ClassLists(data, data, assumed)


def _classes_of(shards: ShardPlan | ShardResult) -> tuple[str, ...]:
    from models.data.shards import manifest as manifests

    return shards.classes if isinstance(shards, ShardPlan) else manifests.load(shards.manifest_uri)[1].classes


def describe_orders(names: Sequence[str]) -> str:
    """Says where the usual orders of class names differ; empty if they are all the same.

    Sources: torchvision's ``datasets/folder.py`` sorts names as text; timm's ``data/readers/reader_image_folder.py`` by
    ``natural_key``, in lower case and parts of digits as numbers; other data sets have an order of their own.
    """
    orders = {
        "the data set has": list(names),
        "torchvision has (sorted as text)": sorted(names),
        "timm has (sorted by numbers, in lower case)": sorted(names, key=_natural_key),
    }
    row = next((row for row in range(len(names)) if len({order[row] for order in orders.values()}) > 1), None)
    if row is None:
        return ""
    return f"as class {row} " + ", ".join(f"{who} {order[row]!r}" for who, order in orders.items())


def _natural_key(name: str) -> list[str | int]:
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name.lower())]


def require_rows(ref: str, shards: ShardPlan | ShardResult, model: Sequence[str], data: Sequence[str]) -> list[int]:
    """The index in ``model`` of each name in ``data``.

    Raises:
        ConfigError: The data set has a class that the model lacks; the message shows the first differences.
    """
    rows = find_rows(model, data)
    if rows is None:
        raise ConfigError(
            f"{ref} was trained on other classes than those of {shards.name}: {describe_difference(model, data)}; its "
            f"accuracy there would mean nothing. {_remedy(model, data)}"
        )
    return rows


def _remedy(model: Sequence[str], data: Sequence[str]) -> str:
    """What to do about lists of other classes, or of the same in another spelling."""
    spelled = {_spell(name) for name in data}
    if len(spelled) == len(data) and spelled <= {_spell(name) for name in model}:
        return (
            "The names are the same but for case, spaces, hyphens and underscores, quotes, a number before them or "
            "synonyms behind a comma: rename the classes of the data set, or import the weights again with the names "
            "of the data set in published.class_file"
        )
    if len(model) == _IMAGENET and all(map(_WNID.fullmatch, data)):
        return (
            "The data set has WordNet ids: weights imported without published.class_file are matched by these, "
            f"if their {_IMAGENET:,} classes are ImageNet's"
        )
    are_numbers = [all(map(str.isdecimal, names)) for names in (model, data)]
    if are_numbers == [False, True]:
        return (
            "The classes of the data set are numbers: data.class_file for shards, or a list as classes.txt beside "
            "folders, gives them the names"
        )
    if are_numbers == [True, False]:
        return (
            "The classes of the model are numbers: take the data set without a list of their names (data.class_file, "
            "or one as classes.txt beside folders)"
        )
    return (
        "Take the data set that it was trained on, or, if these are its classes by other names, give the classes those "
        f"of the model, as {min(model)!r}: in the folders or the table of labels, or, of data=webdataset, in "
        "data.class_file; imported weights get other names by published.class_file"
    )


def _spell(name: str) -> str:
    """A name without distinctions that spellings of one class have."""
    text = unicodedata.normalize("NFC", name).casefold().strip(" '\"")
    text = re.sub(r"^(n\d{8}|\d+)(?=[\s_.-])", "", text.partition(",")[0])
    return " ".join(re.split(r"[\s_.-]+", text)).strip()


def find_rows(model: Sequence[str], data: Sequence[str]) -> list[int] | None:
    """The index in ``model`` of each name in ``data``; None if one is missing, or if names repeat in unequal lists."""
    if list(model) == list(data):
        return list(range(len(model)))
    index = {name: row for row, name in enumerate(model)}
    if len(index) < len(model) or len(set(data)) < len(data) or not index.keys() >= set(data):
        return None
    return [index[name] for name in data]


def describe_difference(model: Sequence[str], data: Sequence[str]) -> str | None:
    """The first classes that differ between a model's list and a data set's; None if the lists are equal."""
    if list(model) == list(data):
        return None
    pairs = [(i, a, b) for i, (a, b) in enumerate(zip(model, data, strict=False)) if a != b]
    only = {"data": sorted(set(data) - set(model)), "model": sorted(set(model) - set(data))}
    if len(model) != len(data) or 0 < len(only["data"]) < len(pairs):  # one other name changes the places of many
        parts = [f"the model has {len(model)} classes, the data {len(data)}"] * (len(model) != len(data))
        parts += [f"only the {side} has {list_some(map(repr, names), SHOWN)}" for side, names in only.items() if names]
        return "; ".join(parts)
    shown = ", ".join(_describe_pair(*pair) for pair in pairs[:SHOWN])
    return f"{shown} ({len(pairs)} of {len(model)} differ)"


def _describe_pair(label: int, model: str, data: str) -> str:
    """Two names of a class; those that differ in the form of their characters alone look alike unless escaped."""
    is_alike = unicodedata.normalize("NFC", model) == unicodedata.normalize("NFC", data)
    write = ascii if is_alike else repr
    return f"class {label} is {write(model)} in the model and {write(data)} in the data"
