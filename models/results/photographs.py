"""What public ImageNet networks see in photographs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class PhotographNetwork:
    """A registered public network; ``published_top1`` is its publisher's, in percent of ImageNet's 50,000 images."""

    name: str = ""
    version: str = ""  # NAME/VERSION in the registry
    params: int | None = None
    multiply_adds: int | None = None
    resolution: int | None = None
    published_top1: float | None = None


@dataclass(frozen=True, kw_only=True)
class Photograph:
    """A photograph; ``png`` is base64."""

    name: str = ""
    png: str = ""


@dataclass(frozen=True, kw_only=True)
class PhotographMap:
    """The most probable classes of a photograph, and the activation map of the first, as base64 of a PNG."""

    photograph: str = ""
    network: str = ""
    classes: tuple[str, ...] = ()
    probabilities: tuple[float, ...] = ()
    png: str = ""


@dataclass(frozen=True, kw_only=True)
class PhotographsResult:
    """Public networks, photographs, and a map for each pair."""

    networks: tuple[PhotographNetwork, ...] = ()
    photographs: tuple[Photograph, ...] = ()
    maps: tuple[PhotographMap, ...] = ()
    missing: tuple[str, ...] = ()
    command: str = ""
    mlflow_url: str = ""
