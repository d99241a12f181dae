"""Files and packages that settings name: what this machine lacks is refused before services start."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from conf import schema
from conf.overrides import expand_home
from infra.errors import ConfigError


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
        if "://" in name and not name.startswith(schemes):
            places = "neither a local file nor s3://" if schemes else "no path of a local file"
            raise ConfigError(f"effnet {verb}: {name} is {places}; download it first")
        path = Path(expand_home(name).removeprefix("file://"))
        if name.startswith("s3://") or path.is_file():
            continue
        if path.is_dir():
            raise ConfigError(f"effnet {verb}: {name} is a folder, not a file{_name_a_file(path)}")
        raise ConfigError(f"effnet {verb}: no file {name}")


def _name_a_file(folder: Path) -> str:
    """Names the first file of weights in a folder, as the end of a message; empty without any."""
    suffixes = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".tar")
    with suppress(OSError):
        names = sorted(path.name for path in folder.iterdir() if path.suffix.lower() in suffixes)
        return f"; it has {folder / names[0]}" if names else ""
    return ""
