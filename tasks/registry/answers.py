"""What a trained network answers on val, for its model card: confusions, and files with pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from conf import schema
from models.results import TrainResult
from models.statistics import weakest_classes
from tasks.report.charts.answers import Tile, draw_confusion, draw_tiles

if TYPE_CHECKING:
    from models.data.shards.manifest import Manifest
    from models.experiments.mistakes import Answer, Confusion

MATRIX_CLASSES = 20  # a matrix of more is not drawn: the most frequent confusions are a table on the card
CONFUSIONS, WEAKEST, MISTAKES, SAMPLES = 8, 4, 4, 8  # confusions, classes, images of a class, images
CONFUSION_SVG, MISTAKES_SVG, SAMPLES_SVG = "confusion.svg", "mistakes.svg", "predictions.svg"


@dataclass(frozen=True)
class CardAnswers:
    """The most frequent confusions, and SVG files by name; empty for a job whose answers are not stored."""

    confusions: tuple[Confusion, ...] = ()
    files: dict[str, str] = field(default_factory=dict)


def collect_answers(result: TrainResult, job: schema.Job, manifest: Manifest, manifest_uri: str) -> CardAnswers:
    """Reads what the selected weights answered to each val image, and draws the weakest classes and some predictions.

    Args:
        result: Result of the job.
        job: Request of the job.
        manifest: Its data set, without the shards that the job excluded.
        manifest_uri: URI of the manifest.

    Raises:
        ArtifactError: The weights are damaged.
        DataError: An image is damaged.
        TransientError: The store does not answer.
    """
    from models.data.loading import selection
    from models.data.shards.manifest import Samples
    from models.experiments import mistakes
    from models.training import per_image

    answers = per_image.read_answers(result.job_uri, vars(result))
    labels = Samples(manifest, ["val"]).rows["label"]
    if answers is None or len(answers) != len(labels):
        return CardAnswers()
    names = manifest.classes
    matrix = mistakes.confusion_matrix(labels, answers["label"], len(names))
    weakest = weakest_classes(result.class_correct, result.class_total, WEAKEST)
    mistaken = mistakes.surest_mistakes(labels, answers, weakest, MISTAKES)
    sampled = selection.distinct_classes(manifest, "val", SAMPLES)
    images = selection.read(manifest, manifest_uri, "val", [*sampled, *mistaken])
    weights = (result.weights_uri, result.weights_sha256)
    drawn = mistakes.draw_answers(job.model, *weights, images, len(names), job.augment)
    files = {SAMPLES_SVG: draw_tiles(_tiles(drawn[: len(sampled)], names))}
    if mistaken:
        files[MISTAKES_SVG] = draw_tiles(_tiles(drawn[len(sampled) :], names))
    if len(names) <= MATRIX_CLASSES:
        files[CONFUSION_SVG] = draw_confusion(matrix.tolist(), names)
    return CardAnswers(tuple(mistakes.most_confused(matrix, CONFUSIONS)), files)


def _tiles(answers: Sequence[Answer], names: Sequence[str]) -> list[Tile]:
    return [
        Tile(
            (answer.image, answer.map),
            f"{100 * answer.probability:.0f} % {names[answer.predicted]}",
            "right" if answer.predicted == answer.label else f"is {names[answer.label]}",
            answer.predicted == answer.label,
        )
        for answer in answers
    ]
