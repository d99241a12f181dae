"""Table 7 and Figure 7: networks scaled by one method each, and what they look at."""

from __future__ import annotations

import re

from models.experiments import scaling_study
from tasks.report.sections.values import Json, entries, scored, typed

PNG = re.compile(r"iVBORw0KGgo[A-Za-z0-9+/]*={0,2}")  # base64 of a PNG's first bytes, then base64 only
MODEL = ("params", "multiply_adds", "resolution")


def facts(part: Json) -> Json:
    """Table 7 with ours in it, and the gallery: a row for each image, a cell for each network."""
    models = [scored(entry, MODEL, ("name", "dimension", "method", "mlflow_url")) for entry in entries(part, "models")]
    images = [typed(entry, (), ("id", "label")) | {"png": png(entry)} for entry in entries(part, "images")]
    cells = {
        (str(entry.get("image")), str(entry.get("model"))): typed(entry, ("probability",), ("prediction",))
        | {"png": png(entry)}
        for entry in entries(part, "maps")
    }
    gallery = [
        image | {"cells": [cells.get((str(image["id"]), str(model["name"]))) for model in models]} for image in images
    ]
    return {"table7": _table7(models), "models": models, "gallery": gallery}


def _table7(models: list[Json]) -> list[Json]:
    """Returns the printed rows, each with the measured row of the same method, then the other measured networks."""
    rows: list[Json] = []
    left = [*models]
    for printed in scaling_study.TABLE7:
        ours = next((model for model in left if model["dimension"] == printed.method), None)
        left = [model for model in left if model is not ours]
        rows.append({"method": printed.method, "ours": ours, "paper": printed})
    return rows + [{"method": model["dimension"] or model["name"], "ours": model, "paper": None} for model in left]


def png(entry: Json) -> str | None:
    """The base64 of a PNG, or None where it is anything else."""
    text = entry.get("png")
    return text if isinstance(text, str) and PNG.fullmatch(text) else None
