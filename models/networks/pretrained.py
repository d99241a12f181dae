"""Converts public EfficientNet weights of timm, torchvision and lukemelas' efficientnet-pytorch.

All three hold the same tensors. Names differ (key_maps.py), and so do facts that no file states: the padding of strided
convolutions, the epsilon of batch norm, and the input normalization that the weights expect.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from conf import schema
from conf.data_set import EvalTransform
from conf.text import logger
from infra.errors import ArtifactError, ConfigError
from models.networks import published_inputs, timm_config
from models.networks.build import build_model, resolve_architecture
from models.networks.efficientnet.variants import LITE, VARIANTS
from models.networks.key_maps import KEY_MAPS, TIMM, KeyMap, describe_foreign, describe_other_network
from models.networks.published_inputs import InputSettings
from models.networks.timm_config import TimmConfig
from models.networks.wrappers import base_name, rename_classifier, strip_wrappers

log = logger()
COUNTER = "num_batches_tracked"  # of batch norm: absent in some files, unused with a fixed momentum
GOOGLE = ("timm_tf", "lukemelas")  # origins whose weights are ports of Google's
_SHAPES: dict[tuple[str, int], dict[str, torch.Size]] = {}  # of networks built before, by description and classes
# File names of the projects, in lower case. ``tag`` marks weights that expect pixels in -1..1: AdvProp's and timm's of
# 3,600 epochs. Source: timm's efficientnet.py, mean and std of its default_cfgs; lukemelas' README.
_NAMES = {
    "timm": re.compile(
        r"(?<![0-9a-z])(?:(?P<tf>tf[_-])efficientnet[_-]|efficientnet_)(?:b\d|l2|lite\d)(?![0-9a-z])"
        r"(?P<tag>[._-](?:ap(?![0-9a-z])|ra4_e3600))?"
    ),
    "lukemelas": re.compile(r"(?<![0-9a-z])(?P<tag>adv[_-])?efficientnet-(?:b\d|l2|lite\d)(?![0-9a-z])"),
}
_ADVPROP = re.compile(r"(?<![0-9a-z])advprop(?![0-9a-z])")  # anywhere in a name; "ap" is also an average precision


_WITH_BACKGROUND = 1001  # classes
_CHOOSE_PIXELS = "published.preprocessing=imagenet, or advprop for weights of AdvProp or of timm's ra4_e3600"


@dataclass(frozen=True)
class PretrainedWeights:
    """Public weights, converted to an effnet network.

    Attributes:
        model: Network with the numerics that the weights were trained for.
        state_dict: Tensors in float32, by effnet's names.
        classes: Number of classes of its classifier.
        origin: Publisher of the weights, one of ``conf.experiments.ORIGINS``.
        transform: Transform of evaluation.
        guesses: Facts that neither the tensors nor the settings state, as ``origin timm``: from the name of the file.
    """

    model: schema.Model
    state_dict: dict[str, Tensor]
    classes: int
    origin: str
    transform: EvalTransform
    guesses: tuple[str, ...]


def convert(
    tensors: Mapping[str, Tensor], request: schema.Published, file: str, stated: TimmConfig | None = None
) -> PretrainedWeights:
    """Converts public tensors to an effnet network.

    Args:
        tensors: Tensors that ``checkpoint_file.read`` returned.
        request: Expected variant, origin, classes and preprocessing.
        file: Source file. Its base name distinguishes Google's weights in timm from timm's, and the normalization they
            expect; folder names are ignored, since users choose them freely.
        stated: What timm's ``config.json`` beside the file states: facts, where the name of the file gives guesses.

    Raises:
        ConfigError: variant, origin or number of classes differ from the request, or the origin must be given.
        ArtifactError: a tensor is missing, unexpected, of another shape or not finite.
    """
    tensors = strip_wrappers(tensors, file, request.weights)
    key_map = _find_key_map(tensors, file)
    tensors = rename_classifier(tensors, key_map, file)
    name = _find_variant(tensors, key_map, request.network, file)  # before the origin of what is no EfficientNet
    if stated is not None and key_map is TIMM:
        request = timm_config.complete(request, stated, name)
    is_known = request.preprocessing is not None or name in LITE
    origin = _resolve_origin(key_map, request.origin, file, is_known=is_known)
    inputs = published_inputs.find(_file_name_of(name, file), name, origin)
    model = _configure_model(name, origin, request, inputs.side, file)
    transform = EvalTransform(
        inputs.crop_pad if request.crop_pad is None else request.crop_pad,
        request.interpolation or inputs.interpolation,
        request.crop_mode or inputs.crop_mode,
    )
    classes = _count_classes(tensors, key_map)
    if classes == 1:
        raise ConfigError(
            f"{file} has a single logit, as a classifier of two classes with a sigmoid: give its last layer a row of "
            "zeros before the present one, by torch.cat([torch.zeros_like(w), w]) of weight and bias; softmax then "
            "gives the same probabilities"
        )
    if classes != request.classes and (stated is None or classes != stated.classes):
        background = "; of 1001 classes as TensorFlow's the first is the background" * (classes == _WITH_BACKGROUND)
        raise ConfigError(
            f"{file} has {classes} classes, not {request.classes}: set published.classes={classes} if that is intended"
            f"{background}"
        )
    state, broken = {}, []
    for name, (key, shape) in _expected_tensors(key_map, model, classes).items():
        tensor = tensors.get(key, torch.zeros(shape, dtype=torch.int64))  # only a counter may be missing
        state[name] = tensor if name.endswith(COUNTER) else tensor.float()
        if what := _describe_values(name, tensor):
            broken.append(f"{key} holds {what}")
    if broken:
        raise ArtifactError(f"{file}: {broken[0]} ({len(broken)} tensors are wrong)")
    guesses = _list_guesses(key_map, request, model, origin, inputs)
    return PretrainedWeights(model, state, classes, origin, transform, guesses)


def _describe_values(name: str, tensor: Tensor) -> str:
    """Returns what is wrong with the numbers of a tensor; empty if nothing is."""
    if name.endswith(COUNTER):
        return ""
    if not tensor.is_floating_point() or tensor.element_size() < 2:
        return f"{str(tensor.dtype).removeprefix('torch.')} numbers, whose scale is not stored: save it in float32"
    if not tensor.float().isfinite().all():
        return "non-finite numbers"
    if tensor.ndim > 1 and tensor.numel() > 1 and bool((tensor == tensor.flatten()[0]).all()):  # a kernel
        return f"{float(tensor.flatten()[0]):g} everywhere, as of a network whose weights were not loaded or not saved"
    return "negative variances" if name.endswith("running_var") and bool((tensor.float() < 0).any()) else ""


def _list_guesses(
    key_map: KeyMap, request: schema.Published, model: schema.Model, origin: str, inputs: InputSettings
) -> tuple[str, ...]:
    """Returns the facts that come from the name of the file, or from what is usual for its origin."""
    guesses = [f"origin {origin}"] * (request.origin is None and key_map is TIMM)
    is_certain = request.preprocessing is not None or origin == "torchvision" or model.name in LITE
    guesses += [f"preprocessing {model.preprocessing}"] * (not is_certain)
    guesses += [f"resolution {inputs.side}"] * (request.resolution is None)
    guesses += [f"crop_pad {inputs.crop_pad}"] * (request.crop_pad is None)
    guesses += [f"interpolation {inputs.interpolation}"] * (request.interpolation is None)
    guesses += [f"crop_mode {inputs.crop_mode}"] * (request.crop_mode is None)
    return tuple(guesses)


def _file_name_of(variant: str, file: str) -> str:
    """Returns the file's own name, or nothing if it names another variant than the tensors are of, which is logged."""
    match = re.search(r"efficientnet[_-](b\d|l2|lite\d)(?![0-9a-z])", base_name(file).lower())
    if match is None or variant == f"efficientnet_{match[1]}":
        return base_name(file).lower()
    log.warning(
        "%s: by its name it is efficientnet_%s, by its tensors %s, which counts", base_name(file), match[1], variant
    )
    return ""


def _find_key_map(tensors: Mapping[str, Tensor], file: str) -> KeyMap:
    for key_map in KEY_MAPS:
        if f"{key_map.outside['stem.0']}.weight" in tensors:
            return key_map
    if foreign := describe_foreign(tensors, file):
        raise ArtifactError(foreign)
    stems = ", ".join(f"{key_map.outside['stem.0']}.weight ({key_map.name})" for key_map in KEY_MAPS)
    raise ArtifactError(
        f"{file} is not a known EfficientNet: it has none of {stems}; its first tensors are "
        f"{', '.join(list(tensors)[:3])}"
    )


def _resolve_origin(key_map: KeyMap, requested: str | None, file: str, *, is_known: bool) -> str:
    """Returns the publisher, which determines the numerics; timm's two kinds have the same tensors.

    Args:
        key_map: Names of the tensors.
        requested: ``published.origin``.
        file: Source file.
        is_known: Whether the normalization of the pixels needs no name of the file.

    Raises:
        ConfigError: The tensors are of another publisher, or of timm and the file does not show which kind.
    """
    possible = ("timm", "timm_tf") if key_map is TIMM else (key_map.name,)
    if requested is not None:
        if requested not in possible:
            raise ConfigError(f"{file} has the tensor names of {key_map.name}, but published.origin is {requested}")
        return requested
    if key_map is not TIMM:
        return key_map.name
    match = _NAMES["timm"].search(base_name(file).lower())
    if match is None:
        pixels = "" if is_known else f", and {_CHOOSE_PIXELS}"
        raise ConfigError(
            f"{base_name(file)} does not show whether it is timm's efficientnet or tf_efficientnet, which "
            f"have the same tensors but different numerics: set published.origin=timm or timm_tf{pixels}"
        )
    return "timm_tf" if match["tf"] else "timm"


def _resolve_preprocessing(name: str, origin: str, file: str) -> str:
    """Returns the input normalization that the weights expect.

    Raises:
        ConfigError: the origin has published both kinds, and the file name does not show which one this is.
    """
    if name in LITE:
        return "lite" if origin in GOOGLE else "imagenet"
    if origin == "torchvision":
        return "imagenet"
    match = _NAMES["lukemelas" if origin == "lukemelas" else "timm"].search(base_name(file).lower())
    if match is None:
        raise ConfigError(
            f"{base_name(file)} does not show which input normalization the weights of {origin} expect, "
            f"and a wrong one costs accuracy without an error: set {_CHOOSE_PIXELS}"
        )
    return "advprop" if match["tag"] or _ADVPROP.search(base_name(file).lower()) else "imagenet"


def _find_variant(tensors: Mapping[str, Tensor], key_map: KeyMap, requested: str | None, file: str) -> str:
    """Returns the variant that the tensors match in every name and shape."""
    misfits = {
        name: _describe_mismatch(tensors, key_map, name) for name in _list_candidates(tensors, key_map, requested)
    }
    variant = next((name for name, misfit in misfits.items() if misfit is None), None)
    if variant is None:
        name = requested or next(iter(misfits))
        fits = f"does not fit {name}" if requested else f"fits no variant of EfficientNet; compared with {name}"
        raise ArtifactError(describe_other_network(tensors, file) or f"{file} {fits}: {misfits[name]}")
    if requested not in (None, variant):
        raise ConfigError(f"{file} holds {variant}, not {requested}: set published.network={variant}")
    return variant


def _list_candidates(tensors: Mapping[str, Tensor], key_map: KeyMap, requested: str | None) -> list[str]:
    """Lists the variants with the fewest differing module names, and the requested one."""
    modules = {key.rpartition(".")[0] for key in tensors}
    differ = {
        name: len(modules ^ set(key_map.modules(resolve_architecture(schema.Model(name=name))).values()))
        for name in VARIANTS
    }
    if requested is not None:
        resolve_architecture(schema.Model(name=requested))  # refuses a misspelled name and suggests the closest
    return [name for name, count in differ.items() if count == min(differ.values()) or name == requested]


def _describe_mismatch(tensors: Mapping[str, Tensor], key_map: KeyMap, name: str) -> str | None:
    """Describes the first tensors that do not match the variant, one of each kind; None if all match."""
    expected = dict(_expected_tensors(key_map, schema.Model(name=name), _count_classes(tensors, key_map)).values())
    missing = [key for key in expected if key not in tensors and not key.endswith(COUNTER)]
    unexpected = [key for key in tensors if key not in expected]
    wrong = [key for key, shape in expected.items() if key in tensors and tensors[key].shape != shape]
    problems = [
        f"{keys[0]} {problem}" + (f", and {len(keys) - 1} more" if len(keys) > 1 else "")
        for keys, problem in (
            (missing, "is missing"),
            (unexpected, "is unexpected"),
            (wrong, f"is {list(tensors[wrong[0]].shape)}, not {list(expected[wrong[0]])}" if wrong else ""),
        )
        if keys
    ]
    return "; ".join(problems) or None


def _expected_tensors(key_map: KeyMap, model: schema.Model, classes: int) -> dict[str, tuple[str, torch.Size]]:
    """Maps effnet's key to the project's key and the shape."""
    modules = key_map.modules(resolve_architecture(model))
    key = (repr(model), classes)
    if key not in _SHAPES:
        built = build_model(model, classes, device="meta").state_dict()
        _SHAPES[key] = {name: tensor.shape for name, tensor in built.items()}
    expected = {}
    for name, shape in _SHAPES[key].items():
        module, _, leaf = name.rpartition(".")
        expected[name] = (f"{modules[module]}.{leaf}", shape)
    return expected


def _count_classes(tensors: Mapping[str, Tensor], key_map: KeyMap) -> int:
    weight = tensors.get(f"{key_map.outside['classifier']}.weight")
    return 1000 if weight is None or not weight.ndim else len(weight)


def _configure_model(name: str, origin: str, request: schema.Published, side: int, file: str) -> schema.Model:
    """Returns the network with the numerics of its origin. Source: the three projects' model builders."""
    is_small = name in [f"efficientnet_b{phi}" for phi in range(5)]
    pytorch_epsilon = origin == "timm" or (origin == "torchvision" and is_small)  # its B5 to B7 are lukemelas' weights
    return schema.Model(
        name=name,
        resolution=(request.resolution or side) / VARIANTS[name].resolution,
        padding="same" if origin in GOOGLE else "symmetric",
        bn_epsilon=1e-5 if pytorch_epsilon else 1e-3,
        preprocessing=request.preprocessing or _resolve_preprocessing(name, origin, file),
    )
