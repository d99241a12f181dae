"""Says where each setting's value came from: a word of the command, a file of ``conf/``, or the schema's default."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from conf import compose, overrides


@dataclass(frozen=True)
class Setting:
    """A setting with its value and its source, e.g. ``recipe.epochs=2`` or ``recipe/laptop.yaml``."""

    key: str
    value: Any
    source: str


def settings(words: Sequence[str] = ()) -> list[Setting]:
    """Returns all settings of a command in the order of the schema.

    Args:
        words: Overrides ``KEY=VALUE``, as for ``compose.compose``.

    Raises:
        OverrideError: Unknown key, option or value.
    """
    composed = asdict(compose.compose(words))
    sources = dict(_file_settings(words))
    for word in words:
        key = word.partition("=")[0]
        if key not in compose.GROUPS:
            sources = {known: file for known, file in sources.items() if not known.startswith(f"{key}.")}
            sources |= dict.fromkeys([key, *(k for k in compose.flatten(composed) if k.startswith(f"{key}."))], word)
    return [Setting(key, value, sources.get(key, "default")) for key, value in compose.flatten(composed).items()]


def _file_settings(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yields the keys that the files of ``conf/`` set, with the file, in the order in which Hydra merges them."""
    import yaml
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.types import RunMode

    GlobalHydra.instance().clear()
    with initialize_config_dir(version_base="1.3", config_dir=str(overrides.ROOT.resolve())):
        loader = GlobalHydra.instance().config_loader()
        merged = loader.compute_defaults_list(
            "config", list(map(overrides.in_hydra_words, words)), RunMode.RUN
        ).defaults
    for entry in merged:
        path = overrides.ROOT / f"{entry.config_path}.yaml"
        if not path.is_file():  # Hydra's files, and the schema
            continue
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        content.pop("defaults", None)
        prefix = f"{entry.package}." if entry.package else ""
        for key in compose.flatten(content, prefix):
            yield key, f"{entry.config_path}.yaml"
