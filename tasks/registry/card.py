"""Model cards: what a registered model is, how accurate, made from what, and how to use it, in Markdown."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from conf import schema
from conf.data_set import SQUASH, EvalTransform
from conf.text import escaped, format_duration
from models.results import TrainResult
from models.statistics import interval_95, weakest_classes
from tasks.registry.answers import CONFUSION_SVG, MISTAKES_SVG, SAMPLES_SVG, CardAnswers

if TYPE_CHECKING:
    from infra.tracking.registry import Version
    from models.data.shards.manifest import Manifest

_NAMED_AS = {"of ImageNet": ", assumed to be those of ImageNet", "unknown": " without names"}  # by the tag class_names
WORST_CLASSES = 5
SHOWN_VERSIONS = 40  # of a registered model: MLflow keeps 5,000 characters of a description
RECIPE_ROWS = (
    *("epochs", "global_batch", "optimizer", "lr_per_256", "schedule", "warmup_epochs", "weight_decay"),
    *("label_smoothing", "ema_decay", "dropout", "precision", "seed"),
)
NOT_MEASURED = "not measured"  # accuracy of imported weights
LICENSE_UNKNOWN = "not stated"
_MARKDOWN = re.compile(r"([\\`*{}\[\]<>|#~]|(?<![^\W_])_|_(?![^\W_]))")  # an underscore within a word is no mark


@dataclass(frozen=True)
class Trained:
    """What the card of a trained version is made from.

    Attributes:
        ref: ``NAME/VERSION``.
        result: Result of the job.
        job: Request of the job.
        manifest: The data set.
        manifest_uri: URI of its manifest.
        manifest_sha256: Digest of its manifest.
        commit: Commit of the code that trained; empty if unknown.
        machine: Name and value of what is known about the machine that supervised the job.
        answers: What the network answered on val.
        license: SPDX expression; empty where a part of what the weights were made from has none that is known.
    """

    ref: str
    result: TrainResult
    job: schema.Job
    manifest: Manifest
    manifest_uri: str
    manifest_sha256: str
    commit: str
    machine: Mapping[str, str]
    answers: CardAnswers = field(default_factory=CardAnswers)
    license: str = ""


def trained_card(trained: Trained) -> str:
    """Renders the card of a version that was trained here."""
    result, data = trained.result, trained.manifest
    half = interval_95(result.top1, result.n_val)
    opening = (
        f"{result.top1:.2f} % top-1 on {result.n_val:,} val images of {plain(data.name)} (95 % interval "
        f"{max(0.0, result.top1 - half):.2f} to {min(100.0, result.top1 + half):.2f}): {plain(result.model)}, trained "
        "on it."
    )
    sections = [
        ("Accuracy", _accuracy(result)),
        ("Weakest classes", _weakest_classes(result, data.classes, trained.answers)),
        ("Confusions", _confusions(trained.answers, data.classes)),
        ("Predictions", _predictions(trained.answers)),
        ("Use", _use(trained.ref)),
        ("Network", _network(result)),
        ("Input", _input(result.resolution, trained.job.augment.evaluation)),
        ("Data", _data(data, trained.job)),
        ("Recipe", _recipe(trained.job)),
        ("Cost", _cost(result, trained.machine)),
        ("Limits", _limits(data, trained)),
        ("Lineage", _lineage(trained)),
    ]
    return _document(trained.ref, opening, sections)


def imported_card(
    ref: str, classes: int, transform: EvalTransform, source: Mapping[str, str], license_name: str
) -> str:
    """Renders the card of published weights, whose accuracy was not measured here."""
    opening = (
        f"{plain(source['network'])} with public weights of {plain(source['origin'])}, {classes:,} classes"
        f"{_NAMED_AS.get(source['class_names'], '')}.\n\n"
        f"Its accuracy was not measured here: `effnet evaluate model_ref={ref} data=imagenet data.path=FOLDER` does."
    )
    params, multiply_adds = (f"{int(source[key]):,}" for key in ("params", "multiply_adds"))
    network = {"parameters": params, "multiply-adds": multiply_adds, "padding": source["padding"]}
    lineage = {"file": source["source"], "sha256 of the file": source["source_sha256"]}
    lineage |= {"weights of the file": source["weights"], "license": license_name}
    sections = [
        ("Network", _table(("", ""), network.items())),
        ("Input", _input(int(source["resolution"]), transform)),
        ("Lineage", _table(("", ""), lineage.items())),
        ("Use", _use(ref)),
    ]
    return _document(ref, opening, sections)


def family_card(name: str, versions: Sequence[Version], champion: int | None) -> str:
    """Renders the description of a registered model: what it is, its champion, and its versions, the newest first.

    Args:
        name: Name of the registered model.
        versions: Its versions, oldest first.
        champion: The version that is champion; None if there is none.
    """
    newest = versions[-1].tags
    on = f", trained on {plain(newest['dataset'])}" if "dataset" in newest else ""
    title = f"{plain(newest['variant'])}{on}: {int(newest['params']):,} parameters, {newest['resolution']} px."
    rows = [
        (
            f"{version.version}, champion" if version.version == champion else str(version.version),
            plain(version.tags.get("dataset", "not trained here")),
            _format_top1(version),
            f"{int(version.tags['val_n']):,}" if "val_n" in version.tags else "-",
        )
        for version in list(reversed(versions))[:SHOWN_VERSIONS]
    ]
    table = _table(("version", "data", "top-1 (± 95 %)", "val images"), rows)
    best = "No version is champion."
    if champion is not None:
        accuracy = next((_format_top1(version) for version in versions if version.version == champion), NOT_MEASURED)
        best = f"Champion, the version to use: version {champion}, top-1 {accuracy} (`models:/{name}@champion`)."
    return f"{title}\n\n{best}\n\n{table}\n"


def _format_top1(version: Version) -> str:
    if {"top1", "ci95"} <= version.tags.keys():
        return f"{float(version.tags['top1']):.2f} ± {float(version.tags['ci95']):.2f} %"
    return NOT_MEASURED


def lineage_json(trained: Trained) -> str:
    """Returns everything that a version was made from, down to the digests of the shards."""
    lineage = {
        "weights_sha256": trained.result.weights_sha256,
        "commit": trained.commit,
        "job": trained.result.job,
        "job_uri": trained.result.job_uri,
        "mlflow_run": trained.result.mlflow_run,
        "manifest_uri": trained.manifest_uri,
        "manifest_sha256": trained.manifest_sha256,
        "init_weights_sha256": trained.job.init_weights_sha256,
        "left_out": list(trained.job.leave_out),
        "shards": [{"name": shard.name, "blake3": shard.blake3} for shard in trained.manifest.shards],
    }
    return json.dumps(lineage, indent=1)


def plain(text: str) -> str:
    """Returns one line of text that Markdown shows as it is."""
    return _MARKDOWN.sub(r"\\\1", escaped(text))


def _document(ref: str, opening: str, sections: Iterable[tuple[str, str]]) -> str:
    """Joins a card; its opening is without Markdown, since MLflow's list of versions shows it as it is written."""
    parts = [f"# {ref}", opening, *(f"## {title}\n\n{body}" for title, body in sections if body)]
    return "\n\n".join(parts) + "\n"


def _table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Renders a table; MLflow leaves no room between its columns, so that two numbers would read as one."""
    head, *lines = [f"| {' &emsp;| '.join(row)} |" for row in (titles, *rows)]
    return "\n".join([head, f"|{' --- |' * len(titles)}", *lines])


def _accuracy(result: TrainResult) -> str:
    scores = [("val", "top-1", result.top1, result.n_val), ("val", "top-5", result.top5, result.n_val)]
    if result.n_minival:
        scores.append(("minival, on which the weights were selected", "top-1", result.minival_top1, result.n_minival))
    rows = [
        (split, metric, f"{value:.2f} ± {interval_95(value, n):.2f}", f"{n:,}") for split, metric, value, n in scores
    ]
    if result.calibration_error is not None:
        rows.append(("val", "calibration error (ECE, 15 bins)", f"{result.calibration_error:.2f}", f"{result.n_val:,}"))
    table = _table(("split", "metric", "% (± 95 %)", "images"), rows)
    return f"{table}\n\nThe curves of the training are in `curves.svg` beside the weights, and in the run's metrics."


def _weakest_classes(result: TrainResult, names: Sequence[str], answers: CardAnswers) -> str:
    correct, total = result.class_correct, result.class_total
    rows = [
        (plain(names[i]), f"{100 * correct[i] / total[i]:.1f} %", f"{correct[i]} of {total[i]}")
        for i in weakest_classes(correct, total, WORST_CLASSES)
    ]
    if not rows:
        return ""
    table = _table(("class", "top-1", "val images"), rows)
    if MISTAKES_SVG not in answers.files:
        return table
    return f"{table}\n\nTheir mistakes with the highest probability:\n\n{_picture(MISTAKES_SVG)}"


def _confusions(answers: CardAnswers, names: Sequence[str]) -> str:
    rows = [
        (plain(names[one.label]), plain(names[one.predicted]), f"{one.images} of {one.total}")
        for one in answers.confusions
    ]
    parts = [_table(("class", "classified as", "val images"), rows)] if rows else []
    parts += [_picture(CONFUSION_SVG)] if CONFUSION_SVG in answers.files else []
    return "\n\n".join(parts)


def _predictions(answers: CardAnswers) -> str:
    if SAMPLES_SVG not in answers.files:
        return ""
    return (
        "The first val images of some classes, whatever the answer. Beside each input is the activation map of the "
        f"predicted class:\n\n{_picture(SAMPLES_SVG)}"
    )


def _picture(file: str) -> str:
    return f"![{file}]({file})"


def _network(result: TrainResult) -> str:
    rows = {
        "parameters": f"{result.params:,}",
        "multiply-adds of an image": f"{result.multiply_adds:,}",
        "classes": f"{result.classes:,}",
    }
    return _table(("", ""), rows.items())


def _input(resolution: int, transform: EvalTransform) -> str:
    share = resolution / (resolution + transform.crop_pad)
    box, of = ("box", "width and of the height") if transform.crop_mode == SQUASH else ("square", "short side")
    return (
        f"RGB images `[N, 3, {resolution}, {resolution}]`, float32. The central {box} of {100 * share:.1f} % of the "
        f"{of}, resized to {resolution} x {resolution} by antialiased {transform.interpolation} "
        "interpolation; pixels divided by 255, then normalized by `mean` and `std` of `extra_files/config.json`, which "
        "also lists the classes in the order of the logits."
    )


def _data(data: Manifest, job: schema.Job) -> str:
    counts = {split: f"{data.samples(split):,}" for split in ("train", "minival", "val")}
    rows = {"name": plain(data.name), "classes": f"{len(data.classes):,}", "trained on": job.split, **counts}
    if data.quarantine:
        rows["excluded, because they do not decode"] = f"{len(data.quarantine):,}"
    if job.leave_out:
        rows["shards left out"] = ", ".join(map(plain, job.leave_out))
    return _table(("", "images"), rows.items())


def _recipe(job: schema.Job) -> str:
    settings = {key: getattr(job.recipe, key) for key in RECIPE_ROWS}
    rows = [(f"`{key}`", plain(str(value))) for key, value in settings.items() if value is not None]
    return _table(("setting", "value"), rows) + "\n\nAll settings are parameters of the run."


def _cost(result: TrainResult, machine: Mapping[str, str]) -> str:
    rows = {
        "training": format_duration(60 * result.minutes),
        "processes": str(result.world_size),
        "process hours": f"{result.minutes / 60 * result.world_size:.3g}",
        "images per second": f"{result.images_per_s:.0f}",
        **{key: plain(value) for key, value in machine.items()},
    }
    return _table(("", ""), rows.items())


def _limits(data: Manifest, trained: Trained) -> str:
    result = trained.result
    error = result.calibration_error
    off = "" if error is None else f": they differ from the accuracy by {error:.1f} points on average"
    return (
        f"It names one of {result.classes:,} classes for any image, also for one that shows none of them. Its accuracy "
        f"holds for images like those of {plain(data.name)}; probabilities are not calibrated{off}. The images, and "
        "weights that the training started from, keep their licenses"
        f"{'' if trained.license else ', which are not stated here'}."
    )


def _lineage(trained: Trained) -> str:
    rows = {
        "weights": f"sha256 `{trained.result.weights_sha256}`",
        "manifest": f"`{trained.manifest_uri}`",
        "sha256 of the manifest": f"`{trained.manifest_sha256}`",
        "shards": f"{len(trained.manifest.shards)}, with their digests in `lineage.json`",
        "job": f"`{trained.result.job_uri}`",
        "license": trained.license or LICENSE_UNKNOWN,
    }
    if trained.commit:
        rows["commit"] = f"`{trained.commit}`"
    if trained.job.init_weights_sha256:
        rows["started from weights"] = f"sha256 `{trained.job.init_weights_sha256}`"
    return _table(("", ""), rows.items())


def _use(ref: str) -> str:
    return (
        f"    effnet evaluate model_ref={ref}\n\n"
        "or in Python, on image files; `image` also takes base64, integer pixels `[H, W, 3]`, and normalized images as "
        "floats:\n\n"
        '    images = pandas.DataFrame({"image": [Path("cat.jpg").read_bytes()]})\n'
        f'    mlflow.pyfunc.load_model("models:/{ref}").predict(images)  # class, probability, logits\n\n'
        "`mlflow.pytorch.load_model` gives the network alone, from normalized images to logits."
    )
