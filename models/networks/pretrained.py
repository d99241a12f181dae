"""Public EfficientNet weights as networks of ours: timm's, torchvision's, and lukemelas' efficientnet-pytorch's.

The tensors are the same in all of them. Names differ (dialects.py), and so do facts that no file states: how strided
convolutions pad, the epsilon of batch norm, the pixels that the weights expect.
"""

from __future__ import annotations

import io
import pickle
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import safetensors.torch
import torch
from torch import Tensor

from conf import schema
from infra.errors import ArtifactError, ConfigError
from models.networks.build import build_model, resolve_architecture
from models.networks.efficientnet.variants import LITE, VARIANTS
from models.networks.key_maps import KEY_MAPS, TIMM, KeyMap

PICKLES = (".pth", ".pt", ".bin")
COUNTER = "num_batches_tracked"  # of a norm: some files lack it, and with a fixed momentum nothing reads it
GOOGLE = ("timm_tf", "lukemelas")  # origins whose weights are ports of Google's
# How the projects name their files. ``tag``: of weights that expect pixels from -1 to 1, which are AdvProp's and timm's
# of 3,600 epochs. Source: timm's efficientnet.py, mean and std of its default_cfgs; lukemelas' README.
_NAMES = {
    "timm": re.compile(r"(?P<tf>tf_)?efficientnet_(?:b\d|l2|lite\d)(?![0-9a-z])(?P<tag>[._](?:ap[._-]|ra4_e3600))?"),
    "lukemelas": re.compile(r"(?P<tag>adv-)?efficientnet-(?:b\d|l2|lite\d)(?![0-9a-z])"),
}


@dataclass(frozen=True)
class PretrainedWeights:
    """Public weights as one of our networks.

    Attributes:
        model: the network, with the numerics that the weights were trained for.
        state_dict: float32, by our names.
        classes: of its classifier.
        origin: who published them, one of ``conf.experiments.ORIGINS``.
    """

    model: schema.Model
    state_dict: dict[str, Tensor]
    classes: int
    origin: str


def read(data: bytes, file: str) -> dict[str, Tensor]:
    """The tensors of a ``.safetensors`` file, or of a pickle that holds nothing else.

    Args:
        data: the file.
        file: its name; the suffix says what it is.

    Raises:
        ConfigError: another kind of file.
        ArtifactError: it is damaged, or holds more than tensors by name; nothing in it is run.
    """
    if file.endswith(".safetensors"):
        try:
            return safetensors.torch.load(data)
        except Exception as error:  # as below
            raise ArtifactError(f"{file} is damaged, or no safetensors file: {_said(error)}") from error
    if not file.endswith(PICKLES):
        raise ConfigError(f"{file} is neither .safetensors nor {', '.join(PICKLES)}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns about its own oldest format
            held = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        message = f"{file} is refused: damaged, or a pickle that holds more than tensors and could run anything"
        raise ArtifactError(message) from error
    except Exception as error:  # bytes at random make torch's reader fail in every way there is
        raise ArtifactError(f"{file} is damaged, or no file that torch.save wrote: {_said(error)}") from error
    if not isinstance(held, Mapping):
        raise ArtifactError(f"{file} holds a {type(held).__name__}, not the tensors of a network by name")
    others = [str(key) for key, value in held.items() if not isinstance(key, str) or not _is_plain(value)]
    if others:
        raise ArtifactError(
            f"{file} holds {', '.join(others[:5])}, not only the tensors of a network by name: save "
            "its state dict alone"
        )
    return dict(held)


def _said(error: Exception) -> str:
    """The first sentence of an error in one line; of errors that name no more than a byte or a key, their kind."""
    words = " ".join(str(error).split()).partition(". ")[0][:200]
    return words if isinstance(error, RuntimeError | OSError | safetensors.SafetensorError) else type(error).__name__


def _is_plain(value: object) -> bool:
    """Whether it is a tensor that holds its numbers; a file may also describe sparse and empty ones."""
    return isinstance(value, Tensor) and value.device.type == "cpu" and value.layout is torch.strided


def convert(tensors: Mapping[str, Tensor], asked: schema.Published, file: str) -> PretrainedWeights:
    """Public tensors as one of our networks.

    Args:
        tensors: of ``read``.
        asked: what to take them for.
        file: where they come from. Its own name tells Google's weights in timm from timm's, and which pixels they
            expect; the folders around it say nothing, since anybody may have named them.

    Raises:
        ConfigError: another variant, origin or number of classes than asked for; or the origin must be said.
        ArtifactError: a tensor is missing, left over, of another shape or not finite.
    """
    dialect = _dialect(tensors, file)
    origin = _origin(dialect, asked.origin, file)
    model = _model(_variant(tensors, dialect, asked.network, file), origin, asked, file)
    classes = _classes(tensors, dialect)
    if classes != asked.classes:
        raise ConfigError(
            f"{file} tells {classes} classes apart, not {asked.classes}: set published.classes={classes}"
            " if that is meant"
        )
    state, broken = {}, []
    for own, (key, shape) in _expected(dialect, model, classes).items():
        tensor = tensors.get(key, torch.zeros(shape, dtype=torch.int64))  # only a counter may be missing
        state[own] = tensor if own.endswith(COUNTER) else tensor.float()
        if not state[own].isfinite().all():
            broken.append(key)
    if broken:
        raise ArtifactError(f"{file}: {broken[0]} holds numbers that are not finite ({len(broken)} tensors do)")
    return PretrainedWeights(model, state, classes, origin)


def _dialect(tensors: Mapping[str, Tensor], file: str) -> KeyMap:
    for dialect in KEY_MAPS:
        if f"{dialect.outside['stem.0']}.weight" in tensors:
            return dialect
    stems = ", ".join(f"{dialect.outside['stem.0']}.weight ({dialect.name})" for dialect in KEY_MAPS)
    raise ArtifactError(
        f"{file} is no EfficientNet that is known here: of {stems} it has none; it begins with "
        f"{', '.join(list(tensors)[:3])}"
    )


def _origin(dialect: KeyMap, asked: str | None, file: str) -> str:
    """Who published the weights: their numerics hang on it, and timm's two kinds have the same tensors."""
    possible = ("timm", "timm_tf") if dialect is TIMM else (dialect.name,)
    if asked is not None:
        if asked not in possible:
            raise ConfigError(f"{file} has the names of {dialect.name}, published.origin says {asked}")
        return asked
    if dialect is not TIMM:
        return dialect.name
    named = _NAMES["timm"].match(_own_name(file))
    if named is None:
        raise ConfigError(
            f"{_own_name(file)} does not say whether it is timm's efficientnet or tf_efficientnet, which "
            "have the same tensors and other numerics: set published.origin=timm or timm_tf"
        )
    return "timm_tf" if named["tf"] else "timm"


def _own_name(file: str) -> str:
    return file.rpartition("/")[2]


def _preprocessing(name: str, origin: str, file: str) -> str:
    """The pixels that the weights expect.

    Raises:
        ConfigError: the origin has published both kinds, and the file's name does not say which one this is.
    """
    if name in LITE:
        return "lite" if origin in GOOGLE else "imagenet"
    if origin == "torchvision":
        return "imagenet"
    named = _NAMES["lukemelas" if origin == "lukemelas" else "timm"].match(_own_name(file))
    if named is None:
        raise ConfigError(
            f"{_own_name(file)} does not say which pixels the weights of {origin} expect, and wrong ones "
            "cost accuracy without an error: set published.preprocessing=imagenet, or advprop for "
            "weights of AdvProp or of timm's ra4_e3600"
        )
    return "advprop" if named["tag"] else "imagenet"


def _variant(tensors: Mapping[str, Tensor], dialect: KeyMap, asked: str | None, file: str) -> str:
    """The variant that the tensors are of, down to every name and shape."""
    found = {name: _misfit(tensors, dialect, name) for name in _candidates(tensors, dialect, asked)}
    fitting = next((name for name, misfit in found.items() if misfit is None), None)
    if fitting is None:
        name = asked or next(iter(found))
        raise ArtifactError(f"{file} does not fit {name}: {found[name]}")
    if asked not in (None, fitting):
        raise ConfigError(f"{file} holds {fitting}, not {asked}: set published.network={fitting}")
    return fitting


def _candidates(tensors: Mapping[str, Tensor], dialect: KeyMap, asked: str | None) -> list[str]:
    """Variants by how few names of modules differ, those with the fewest; and what was asked for."""
    there = {key.rpartition(".")[0] for key in tensors}
    differ = {
        name: len(there ^ set(dialect.modules(resolve_architecture(schema.Model(name=name))).values()))
        for name in VARIANTS
    }
    if asked is not None:
        resolve_architecture(schema.Model(name=asked))  # a misspelt name is refused with the nearest
    return [name for name, count in differ.items() if count == min(differ.values()) or name == asked]


def _misfit(tensors: Mapping[str, Tensor], dialect: KeyMap, name: str) -> str | None:
    """The first tensor that keeps the file from being the variant, in words; None where all fit."""
    expected = dict(_expected(dialect, schema.Model(name=name), _classes(tensors, dialect)).values())
    missing = [key for key in expected if key not in tensors and not key.endswith(COUNTER)]
    left = [key for key in tensors if key not in expected]
    wrong = [key for key, shape in expected.items() if key in tensors and tensors[key].shape != shape]
    for keys, says in (
        (missing, "is missing"),
        (left, "has no place in it"),
        (wrong, f"is {list(tensors[wrong[0]].shape)}, not {list(expected[wrong[0]])}" if wrong else ""),
    ):
        if keys:
            return f"{keys[0]} {says}" + (f", and {len(keys) - 1} more" if len(keys) > 1 else "")
    return None


def _expected(dialect: KeyMap, model: schema.Model, classes: int) -> dict[str, tuple[str, torch.Size]]:
    """Our key -> their key, and the shape."""
    modules = dialect.modules(resolve_architecture(model))
    found = {}
    for own, tensor in build_model(model, classes, device="meta").state_dict().items():
        module, _, leaf = own.rpartition(".")
        found[own] = (f"{modules[module]}.{leaf}", tensor.shape)
    return found


def _classes(tensors: Mapping[str, Tensor], dialect: KeyMap) -> int:
    bias = tensors.get(f"{dialect.outside['classifier']}.bias")
    return 1000 if bias is None else bias.numel()


def _model(name: str, origin: str, asked: schema.Published, file: str) -> schema.Model:
    """The network with the numerics of its origin. Source: the three projects' model builders."""
    small = name in [f"efficientnet_b{phi}" for phi in range(5)]
    pytorch_epsilon = origin == "timm" or (origin == "torchvision" and small)  # its B5 to B7 are lukemelas' weights
    return schema.Model(
        name=name,
        resolution=(asked.resolution or VARIANTS[name].resolution) / VARIANTS[name].resolution,
        padding="same" if origin in GOOGLE else "symmetric",
        bn_epsilon=1e-5 if pytorch_epsilon else 1e-3,
        preprocessing=asked.preprocessing or _preprocessing(name, origin, file),
    )
