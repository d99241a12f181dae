"""Files and packages that settings name: what this machine lacks is refused before services start."""

from __future__ import annotations

import logging
import re
from contextlib import suppress
from pathlib import Path

from conf import schema
from conf.overrides import expand_home
from conf.text import logger
from infra.errors import ConfigError
from models.networks.timm_config import WEIGHTS

log = logger()
# Accelerate and the trainer of Transformers save these beside the network.
_NO_WEIGHTS = re.compile(r"optimizer|scheduler|random_states|scaler|training_args")
# Weights on the Hub as timm names them: hf-hub:timm/tf_efficientnet_b0.aa_in1k, also without the first part.
_ON_THE_HUB = re.compile(
    r"(?:(?:hf[-_]hub:|hf://(?:models/)?|https://huggingface\.co/)(?P<name>[\w.-]+/[\w.-]+)|(?P<timm>timm/[\w.-]+))/?"
)


def check_class_file(data: schema.Data) -> None:
    """Raises for a file with the names of classes that is not there, or has none."""
    if data.class_file is not None and not data.class_file.startswith("s3://"):
        from models.data.sources.class_file import read_class_names

        read_class_names(data.class_file, "data.class_file")


def check_packaged(verb: str, config: schema.Config) -> None:
    """Raises for a network of a Python package that is not installed."""
    public = config.transfer.network
    packaged = {
        "linear": config.linear.networks,
        "transfer": [public] if public else [],
        "study": config.linear.networks + ([public] if public else []) + config.transfer.more_networks,
    }
    if verb in packaged:
        from models.networks.packaged import weights_path

        for name in packaged[verb]:
            weights_path(name)


def check_files(verb: str, config: schema.Config) -> None:
    """Raises for a file on this machine that the settings name and that is not there."""
    names = {
        "photographs": config.photographs.images,
        "gate": config.gate.weights,
        "import": [path for path in (config.published.path, config.published.class_file) if path],
    }
    schemes = () if verb == "photographs" else ("s3://", "file://")
    for name in names.get(verb, []):
        path = Path(expand_home(name).removeprefix("file://"))
        if (hub := _ON_THE_HUB.fullmatch(name)) and verb == "import" and not path.exists():
            raise ConfigError(
                f"effnet import: {name} is a name on the Hugging Face Hub, and nothing is downloaded: `hf download "
                f"{hub['name'] or hub['timm']} --local-dir FOLDER`, then published.path=FOLDER/model.safetensors"
            )
        if "://" in name and not name.startswith(schemes):
            places = "neither a local file nor s3://" if schemes else "no path of a local file"
            raise ConfigError(f"effnet {verb}: {name} is {places}; download it first")
        if name.startswith("s3://") or path.is_file():
            continue
        if path.is_dir():
            raise ConfigError(f"effnet {verb}: {name} is a folder, not a file{_name_a_file(path)}")
        raise ConfigError(f"effnet {verb}: no file {name}")


def check_weights(published: schema.Published) -> None:
    """Raises for weights on this machine that cannot be imported; the flow reads them again, and logs what it skips."""
    if not str(published.path).startswith("s3://"):
        from models.experiments import published_file

        log.addFilter(_is_error)
        try:
            published_file.read(published)
        finally:
            log.removeFilter(_is_error)


def _is_error(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR


def _name_a_file(folder: Path) -> str:
    """Names a file of weights in a folder, as the end of a message; empty without any."""
    suffixes = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".tar")
    with suppress(OSError):
        paths = [path for depth in ("*", "*/*", "snapshots/*/*") for path in sorted(folder.glob(depth))]
        paths = [path for path in paths if path.suffix.lower() in suffixes and not _NO_WEIGHTS.match(path.name)]
        paths.sort(key=lambda path: path.name not in WEIGHTS)
        return f"; it has {paths[0]}" if paths else ""
    return ""
