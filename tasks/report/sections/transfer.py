"""Tables 5 and 6: transfer to other data, each in the protocol of its data set, beside the paper's results."""

from __future__ import annotations

from models import paper
from tasks.report.numbers import standard_error
from tasks.report.sections.family import short_name
from tasks.report.sections.values import RUN, Json, entries, mapping, scored, typed

NUMBERS = ("value", "standard_error", "n", "top1", "params", "multiply_adds", "train", "classes")
TEXTS = ("data", "source", "network", "metric", "protocol", "mlflow_url")
POINT = ("lr_per_256", "weight_decay", "value", "n", "stopped_at_epoch")


def facts(summary: Json, part: Json) -> Json:
    """Table 5 by data set, the grids behind it, Table 6, and what a reproduction fine-tuned that is not among them."""
    rows = [_row(entry) for entry in entries(part, "rows")]
    names = {row.key: row for row in paper.TABLE6}
    for row in rows:  # a set may go by another name; its format says which it is
        row["key"] = row["source"] if row["source"] in names else row["data"] or "unnamed"
    quoted = {row.data: row for row in paper.TABLE5}
    table5, table6 = [], []
    for key in dict.fromkeys([*names, *(row["key"] for row in rows)]):
        printed = names.get(key)
        ours = [row for row in rows if row["key"] == key]
        title = printed.data if printed else key
        table5.append({"data": title, "ours": ours, "paper": quoted.get(title)})
        table6.append({"data": title, "ours": ours[0] if ours else None, "paper": printed})
    moved = [_moved(entry) for entry in entries(summary, "transfer")]
    shown = {(row["data"], row["network"]) for row in rows}
    return {
        "table5": table5,
        "table6": table6,
        "grids": [row for row in rows if row["grid"]],
        "family": [row for row in moved if (row["data"], row["name"]) not in shown],
        "moved": bool(moved),
        "ratios": paper.TABLE5_GEO_MEAN_RATIOS,
        "short": short_name,
    }


def _moved(entry: Json) -> Json:
    """What a reproduction fine-tuned, by its set's metric; by top-1 where it names none."""
    row = scored(entry, ("minutes", "value", "standard_error"), ("name", "data", "metric", *RUN))
    if row["value"] is None:
        row |= {"value": row["top1"], "standard_error": row["se1"], "metric": "top-1"}
    return row


def _row(entry: Json) -> Json:
    row = typed(entry, NUMBERS, TEXTS)
    if row["standard_error"] is None and row["metric"] == "top-1":  # of a mean over classes it takes each class' n
        row["standard_error"] = standard_error(row["value"], row["n"])
    grid = [typed(point, POINT, ("reason",)) for point in entries(entry, "grid")]
    rates = sorted({point["lr_per_256"] for point in grid if point["lr_per_256"] is not None})
    decays = sorted({point["weight_decay"] for point in grid if point["weight_decay"] is not None})
    cells = {(point["weight_decay"], point["lr_per_256"]): point for point in grid}
    chosen = typed(mapping(entry, "chosen"), ("lr_per_256", "weight_decay"), ())
    return row | {
        "short": short_name(row["network"] or "unnamed"),
        "chosen": chosen,
        "grid": grid,
        "rates": rates,
        "matrix": [(decay, [cells.get((decay, rate)) for rate in rates]) for decay in decays],
        "stopped": sum(point["stopped_at_epoch"] is not None for point in grid),
    }
