"""Parts as the experiments leave them, with made-up numbers: they stand for nothing that was ever measured."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping
from typing import Any

from PIL import Image

from models.results import Summary
from tasks.report.page import render
from tasks.report.results import PARTS, read_stored

Json = dict[str, Any]

ORIGIN: Json = {
    "profile": "laptop",
    "commit": "5e1f0aa7c3d94b2288ad01c6a7f9e3b04d5c6b7a",
    "finished": "2026-11-26 08:12:44 UTC",
    "machine": {
        "cpu": "a made-up processor",
        "cores": "2",
        "memory_gb": "24",
        "gpu": "none",
        "python": "3.11.7",
        "torch": "2.13.0+cpu",
        "prefect": "3.8.8",
    },
    "config": {"profile": "laptop", "recipe": {"epochs": 8, "lr_per_256": 0.016}, "variants": ["efficientnet_b0"]},
    "config_sha256": "c0ffee" * 10 + "abcd",
    "data_sha256": {"mnist5k": "9b" * 32},
    "missing": [],
}
URL = "http://127.0.0.1:5000/#/experiments/1/runs/0a1b2c3d"


def png(shade: int, side: int = 24) -> str:
    """A small image as base64."""
    image = Image.new("RGB", (side, side))
    image.putdata([((x * shade) % 256, (y * 9) % 256, (x * y + shade) % 256) for y in range(side) for x in range(side)])
    out = io.BytesIO()
    image.save(out, "PNG")
    return base64.b64encode(out.getvalue()).decode()


def error_of(percent: float | None, n: int) -> float | None:
    """The binomial standard error in points, by its definition."""
    return None if percent is None else 100 * math.sqrt(percent / 100 * (1 - percent / 100) / n)


def _point(
    network: str,
    dimension: str,
    scale: tuple[float, float, float],
    cost: float,
    top1: float | None,
    paper: Json | None = None,
) -> Json:
    depth, width, resolution = scale
    return {
        "network": network,
        "dimension": dimension,
        "width": width,
        "depth": depth,
        "resolution": resolution,
        "params": round(120_000 * width**2 * depth),
        "multiply_adds": round(cost * 1e6),
        "resolution_px": round(24 * resolution),
        "top1": top1,
        "top5": None if top1 is None else 99.5,
        "n_val": 1000,
        "mlflow_url": URL,
        "paper": paper
        or {"multiply_adds": round(cost * 1e9), "printed_flops": None, "top1": None, "source": "Figure 3"},
    }


def scaling() -> Json:
    """Table 3's networks and B0 in every dimension; one point of ResNet-50 failed, one was not asked for."""
    b0 = "efficientnet_b0"
    points = [_point(b0, "baseline", (1, 1, 1), 0.36, 90.1)]
    points += [_point(b0, "width", (1, w, 1), 0.36 * w**2, 90.1 + 1.4 * w**0.5) for w in (1.4, 1.8, 2.6)]
    points += [_point(b0, "depth", (d, 1, 1), 0.36 * d, 89.4 + 0.9 * d**0.6) for d in (2.0, 3.0, 4.0)]
    points += [_point(b0, "resolution", (1, 1, r), 0.36 * r**2, 90.0 + 1.2 * r) for r in (1.3, 1.7, 2.2)]
    points += [_point(b0, "compound", (1.2**p, 1.1**p, 1.15**p), 0.36 * 2**p, 91.2 + 1.3 * p) for p in (1, 2, 3)]
    points += [
        _point(b0, "width", (d, w, r), 0.36 * d * (w * r) ** 2, 90.3 + 0.5 * w + 0.6 * d + r)
        for d, r in ((1.0, 1.3), (2.0, 1.0), (2.0, 1.3))
        for w in (1.0, 1.4, 1.8)
    ]
    for network, cost, top1 in (("mobilenet_w1", 0.5, 88.2), ("mobilenetv2_w1", 0.3, 89.3), ("resnet50", 4.1, 91.0)):
        points += [
            _point(network, "baseline", (1, 1, 1), cost, top1),
            _point(network, "depth", (4, 1, 1), 3.8 * cost, top1 + 1.4),
            _point(network, "width", (1, 2, 1), 3.9 * cost, top1 + 1.9),
            _point(network, "resolution", (1, 1, 2), 4 * cost, None if network == "resnet50" else top1 + 0.8),
            _point(network, "compound", (1.4, 1.2, 1.3), 4.1 * cost, top1 + 2.6),
        ]
    points = [p for p in points if (p["network"], p["dimension"]) != ("resnet50", "compound")]
    reason = "resnet50 resolution 2.0: the loss was not finite at step 41"
    return ORIGIN | {
        "data": "mnist5k",
        "points": points,
        "missing": [reason],
        "command": "effnet scaling profile=laptop",
    }


def architecture() -> Json:
    """Thirty trials, three refused, one failed, with the front of those that were trained."""
    trials = []
    for number in range(30):
        cost, accuracy = 150_000 + 37_000 * (number * 7 % 30), 84.0 + 9 * ((number * 7 % 30) / 30) ** 0.6
        accuracy = round(accuracy - (number * 13 % 7) * 0.9, 1)
        trials.append(
            {
                "number": number,
                "blocks": [f"mb_k{3 + 2 * (number % 2)}_e6_s2_c{8 + 8 * i}_n{1 + i % 3}" for i in range(5)],
                "params": 90_000 + 900 * number,
                "multiply_adds": cost,
                "accuracy": accuracy,
                "n": 500,
                "standard_error": error_of(accuracy, 500),
                "reward": round(accuracy * (cost / 400_000) ** -0.07, 4),
                "state": "complete",
                "reason": None,
                "mlflow_url": URL,
                "pareto": False,
            }
        )
    for trial in trials:
        cheaper = [t for t in trials if t["multiply_adds"] <= trial["multiply_adds"] and t is not trial]
        trial["pareto"] = all(t["accuracy"] < trial["accuracy"] for t in cheaper)
    nothing: Json = {
        "accuracy": None,
        "n": None,
        "standard_error": None,
        "reward": None,
        "pareto": False,
        "mlflow_url": None,
    }
    for number in (30, 31, 32):
        refused = {
            "number": number,
            "multiply_adds": 2_000_000 + 90_000 * number,
            "state": "refused",
            "reason": "its multiply-adds are over the limit of 1,600,000",
        }
        trials.append(trials[number - 30] | nothing | refused)
    trials.append(trials[3] | nothing | {"number": 33, "state": "failed", "reason": "the loss was not finite"})
    baseline = trials[0] | {
        "number": 34,
        "multiply_adds": 359_792,
        "params": 126_822,
        "accuracy": 89.6,
        "standard_error": error_of(89.6, 500),
        "reward": 90.27,
        "pareto": False,
    }
    return ORIGIN | {
        "objective": {"exponent": -0.07, "target_multiply_adds": 400_000},
        "trials": trials,
        "baseline": baseline,
        "command": "effnet architecture profile=laptop",
    }


def transfer() -> Json:
    """Two official sets and one of ours; a mean per class brings its own standard error."""
    grid = [
        {
            "lr_per_256": lr,
            "weight_decay": wd,
            "value": 90 + 100 * lr - 1e4 * wd,
            "n": 400,
            "stopped_at_epoch": 3 if lr == 0.064 else None,
            "reason": None,
            "mlflow_run": "0a1b2c3d",
        }
        for lr in (0.004, 0.016, 0.064)
        for wd in (0.0, 1e-5, 1e-4)
    ]
    row: Json = {
        "data": "cifar10",
        "manifest_sha256": "9b" * 32,
        "source": "cifar10",
        "train": 4000,
        "classes": 10,
        "network": "efficientnet_b0",
        "metric": "top-1",
        "value": 91.0,
        "standard_error": error_of(91.0, 1000),
        "n": 1000,
        "top1": 91.0,
        "top5": 99.0,
        "params": 114_000,
        "feature_params": 104_000,
        "multiply_adds": 359_000,
        "resolution": 32,
        "protocol": "kornblith",
        "chosen": {"lr_per_256": 0.016, "weight_decay": 1e-5},
        "grid": grid,
        "cost": {"jobs": 10, "train_images": 400_000, "eval_images": 40_000, "multiply_adds": 446_000_000_000},
        "jobs_found": 0,
        "minutes": 1.5,
        "job": "finetune-b0-cifar10-0a1b2c3d4e",
        "mlflow_run": "0a1b2c3d",
        "format": 2,
        "mlflow_url": URL,
        "command": "effnet transfer profile=laptop",
        "commit": ORIGIN["commit"],
        "finished": ORIGIN["finished"],
        "paper": None,
    }
    flowers = row | {
        "data": "flowers102",
        "source": "flowers102",
        "metric": "mean per class",
        "value": 71.25,
        "standard_error": 1.37,
        "top1": 73.0,
        "n": 612,
        "grid": [],
        "protocol": "author",
    }
    digits = row | {
        "data": "digits",
        "source": "digits",
        "value": 95.18,
        "standard_error": error_of(95.18, 539),
        "n": 539,
        "grid": [],
    }
    return ORIGIN | {"rows": [row, flowers, digits], "command": "effnet transfer profile=laptop"}


def maps() -> Json:
    """Five networks on three images; one map failed."""
    methods = ("baseline", "depth", "width", "resolution", "compound")
    models = [
        {
            "name": f"efficientnet_b0 {method}",
            "dimension": method,
            "network": "efficientnet_b0",
            "method": "cam",
            "params": 126_822 + 1000 * i,
            "multiply_adds": 359_792 + 90_000 * i,
            "resolution": 24 + i,
            "top1": 90.0 + i,
            "n_val": 1000,
            "mlflow_url": URL,
        }
        for i, method in enumerate(methods)
    ]
    images = [{"id": i, "label": label, "png": png(3 + i)} for i, label in enumerate(("seven", "two", "one"))]
    found = [
        {
            "image": image["id"],
            "model": model["name"],
            "prediction": image["label"] if (i + k) % 4 else "nine",
            "probability": 0.5 + 0.09 * i,
            "png": png(11 + 7 * i + k),
        }
        for k, image in enumerate(images)
        for i, model in enumerate(models)
    ]
    reason = "image-2 of efficientnet_b0 compound: the map is flat"
    return ORIGIN | {
        "images": images,
        "models": models,
        "maps": found[:-1],
        "missing": [reason],
        "command": "effnet explain profile=laptop",
    }


def linear() -> Json:
    """One network with ImageNet's weights and with two random ones."""
    rows = [
        {
            "network": "efficientnet_lite0",
            "weights": weights,
            "params": 4_652_008,
            "multiply_adds": 200_000_000,
            "top1": top1,
            "seed_top1": seeds,
            "n": 1050,
        }
        for weights, top1, seeds in (("ImageNet", 84.1, [84.1]), ("random", 77.25, [76.5, 78.0]))
    ]
    other = "efficientnet_lite0 with random weights"
    lead = {"value": 6.85, "lower": 4.25, "upper": 9.5, "p": 0.0005, "n": 1050, "seeds": 2}
    return ORIGIN | {
        "data": "elpv",
        "n": 1050,
        "resolution": 160,
        "majority": 68.71,
        "rows": rows,
        "comparisons": [{"first": "efficientnet_lite0", "second": other, "lead": lead}],
        "verdicts": [f"efficientnet_lite0 beats {other} (+6.85 points, +4.25 to +9.50, p < 0.001)"],
        "command": "effnet linear profile=study",
    }


def photographs() -> Json:
    """Two networks on two photographs; one map is missing."""
    networks = [
        {
            "name": f"efficientnet_lite{size}",
            "version": f"efficientnet-lite{size}-lukemelas/1",
            "params": 4_652_008 + size,
            "multiply_adds": 385_187_552 + size,
            "resolution": 224 + size,
            "published_top1": 75.1 + size,
        }
        for size in range(2)
    ]
    images = [{"name": name, "png": png(5 + i)} for i, name in enumerate(("china", "flower"))]
    maps = [
        {
            "photograph": image["name"],
            "network": network["name"],
            "classes": ["palace", "bell cote"],
            "probabilities": [0.5 + 0.1 * i, 0.25 + 0.1 * k],
            "png": png(40 + 7 * i + k),
        }
        for i, image in enumerate(images)
        for k, network in enumerate(networks)
    ]
    return ORIGIN | {
        "networks": networks,
        "photographs": images,
        "maps": maps[:-1],
        "mlflow_url": URL,
        "command": "effnet photographs profile=laptop",
    }


def latency() -> Json:
    """Four networks and two pairs, one of which the paper has."""
    rows = []
    for network, px, params, cost, ms, top1, seconds in (
        ("efficientnet_b1", 240, 7_794_184, 686_802_832, 61.2, 79.1, 0.098),
        ("resnet152", 224, 60_192_808, 11_513_626_624, 402.5, 77.8, 0.554),
        ("efficientnet_b4", 380, 19_341_616, 4_393_771_024, 288.1, 82.9, None),
        ("senet154", 224, 115_088_984, 20_688_363_520, 911.4, 82.7, None),
    ):
        rows.append(
            {
                "network": network,
                "resolution": px,
                "params": params,
                "multiply_adds": cost,
                "batch1_ms": ms,
                "batch1_ms_low": 0.95 * ms,
                "batch1_ms_high": 1.1 * ms,
                "images_per_s": 1300 / ms,
                "throughput_batch": 16,
                "paper_top1": top1,
                "paper_latency_s": seconds,
            }
        )
    pairs = [
        {"ours": "efficientnet_b1", "rival": "resnet152", "measured": 6.577, "paper": 5.7},
        {"ours": "efficientnet_b4", "rival": "senet154", "measured": 3.163, "paper": None},
    ]
    faster = [row | {key: 0.6 * row[key] for key in ("batch1_ms", "batch1_ms_low", "batch1_ms_high")} for row in rows]
    return ORIGIN | {
        "threads": 1,
        "n": 20,
        "rows": rows,
        "speedups": pairs,
        "command": "effnet latency profile=laptop",
        "all_cores": {"threads": 2, "n": 20, "rows": faster, "speedups": []},
    }


FIRST_VERDICT = "91.25 % of 400 images (95 % interval 88.48 to 94.02): promoted, there was no champion"


def nights() -> Json:
    """Two versions of a line, the second tied with the first, and the first's move."""
    first = {
        "version": 1,
        "registered": "2026-11-27 03:04:05 UTC",
        "parent": "efficientnet-b0/2",
        "aliases": ["champion"],
        "top1": 91.25,
        "n_val": 400,
        "verdict": "promoted",
        "reason": FIRST_VERDICT,
        "mlflow_url": URL,
    }
    second = {
        "version": 2,
        "registered": "2026-11-28 03:04:05 UTC",
        "parent": "efficientnet-b0-digits/1",
        "aliases": ["challenger"],
        "top1": 91.5,
        "n_val": 400,
        "compared_with": 1,
        "difference": 0.25,
        "lower_bound": -0.48,
        "verdict": "tied",
        "reason": "not promoted, the lower bound is not above -0.3",
        "mlflow_url": URL,
    }
    move = {"old": None, "new": 1, "when": "2026-11-27 03:05:00 UTC", "who": "effnet@night", "why": "no champion"}
    return ORIGIN | {
        "line": "efficientnet-b0-digits",
        "data": "digits",
        "verdict": "not promoted, the lower bound is not above -0.3",
        "nights": [
            {"date": "2026-11-28", "outcome": "tied", "verdict": "not promoted, the lower bound is not above -0.3"},
            {"date": "2026-11-27", "outcome": "promoted", "verdict": FIRST_VERDICT, "version": 1},
        ],
        "versions": [second, first],
        "versions_total": 9,
        "moves": [move],
        "moves_total": 1,
        "command": "effnet nightly profile=laptop",
    }


def everything() -> Json:
    """All parts, as JSON in the store."""
    return {
        "scaling": scaling(),
        "architecture": architecture(),
        "transfer": transfer(),
        "maps": maps(),
        "latency": latency(),
        "linear": linear(),
        "photographs": photographs(),
        "nights": nights(),
    }


def trial(alpha: float, beta: float, gamma: float, top1: float, n: int = 400) -> Json:
    """A trained point of the grid search."""
    product = alpha * beta**2 * gamma**2
    return {
        "alpha": alpha,
        "beta": beta,
        "gamma": gamma,
        "product": product,
        "params": 88_431,
        "multiply_adds": 2_706_015,
        "resolution": round(32 * gamma),
        "minival_top1": top1,
        "n_minival": n,
        "standard_error": error_of(top1, n),
        "counted_cost": 1.01 * product,
        "mlflow_run": "ab12cd34ef56",
        "mlflow_url": "http://127.0.0.1:5000/#/runs/ab12cd34",
    }


def fine_tuned(data: str, top1: float, n: int) -> Json:
    """A network that a reproduction fine-tuned."""
    return {
        "name": "efficientnet_b0",
        "n_val": n,
        "data": data,
        "protocol": "kornblith",
        "metric": "top-1",
        "value": top1,
        "standard_error": error_of(top1, n),
        "n": n,
        "top1": top1,
        "top5": 99.72,
        "minutes": 0.6,
        "params": 114_000,
        "multiply_adds": 359_000,
        "chosen": {"lr_per_256": 0.016, "weight_decay": 1e-5},
        "mlflow_run": "77aa88bb99",
        "mlflow_url": "http://127.0.0.1:5000/#/77aa",
    }


def variant(phi: int) -> Json:
    """A trained member of the family."""
    return {
        "name": f"efficientnet_b{phi}",
        "params": 72_434 + 91_007 * phi,
        "multiply_adds": 1_384_812 * (1 + phi) ** 2,
        "resolution": 32 + 8 * phi,
        "top1": 95.4 + 0.3 * phi,
        "top5": 99.6 + 0.05 * phi,
        "n_val": 1000,
        "minutes": 0.8 + phi,
        "images_per_s": 2210.0 / (1 + phi),
        "epochs": 12,
        "minival_top1": 95.0,
        "n_minival": 400,
        "mlflow_run": f"{phi}f2a91bcd5e4f6a7",
        "mlflow_url": f"http://127.0.0.1:5000/#/runs/{phi}f2a91bc",
        "registered_name": f"efficientnet-b{phi}",
        "registered_version": 3,
        "aliases": [],
        "paper_params": 5_288_548 + phi,
        "paper_multiply_adds": 385_814_752 + phi,
    }


def result(name: str) -> Any:
    """The result of a part, as the experiment hands it over."""
    [kind] = [part.result for part in PARTS if part.name == name]
    return read_stored(kind, everything()[name], f"{name}.json").result


def render_stored(summary: Any, parts: Mapping[str, Any] | None = None) -> str:
    """Renders the page from JSON objects, each read as the product reads it from the store."""
    kinds = {part.name: part.result for part in PARTS}
    stored = {name: read_stored(kinds[name], part, f"{name}.json") for name, part in (parts or {}).items()}
    return render(read_stored(Summary, summary, "summary.json") if summary else None, stored)


def grown_search(search: Json) -> Json:
    """A grid search's summary with the points it refused and the family that follows from it."""
    refused = [
        {
            "alpha": a,
            "beta": b,
            "gamma": g,
            "multiply_adds": round(359_792 * a * b * b * g * g),
            "reason": f"costs {a * b * b * g * g:.2f} times B0, not 2.0 ± 0.1",
        }
        for a in (1.0, 1.2, 1.4)
        for b in (1.0, 1.1, 1.2)
        for g in (1.0, 1.15, 1.3)
        if abs(a * b * b * g * g - 2) > 0.1
    ]
    family = []
    for phi in range(1, 8):
        derived = {
            "width": 1.1**phi,
            "depth": 1.2**phi,
            "resolution": 1.15**phi,
            "resolution_px": round(24 * 1.15**phi),
            "params": round(126_822 * 1.45**phi),
            "multiply_adds": round(359_792 * 1.92**phi),
        }
        hand = {
            "name": f"efficientnet_b{phi}",
            "width": 1 + 0.14 * phi,
            "depth": 1 + 0.3 * phi,
            "resolution": 1 + 0.25 * phi,
            "resolution_px": 24 + 6 * phi,
            "params": round(126_822 * 1.4**phi),
            "multiply_adds": round(359_792 * 1.7**phi),
        }
        family.append({"phi": phi, "derived": derived, "hand_set": hand})
    return search | {"counted_tolerance": 0.3, "refused": refused, "family": family}
