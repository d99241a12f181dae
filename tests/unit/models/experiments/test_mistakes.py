"""What is counted as a confusion, which mistakes are shown, and what the network answers to them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from made_set import write_set
from PIL import Image

from conf import schema
from conf.data_set import EvalTransform
from infra.errors import ArtifactError
from models.data.loading import selection
from models.experiments import mistakes
from models.experiments.mistakes import Confusion
from models.networks import export
from models.networks.build import build_model
from models.networks.efficientnet.preprocessing import Normalize
from models.training.per_image import ANSWER

LABELS = np.array([0, 0, 0, 1, 1, 2], np.int32)
PREDICTED = np.array([0, 1, 1, 1, 0, 2], np.int32)
TINY = schema.Model(width=0.1, depth=0.1, resolution=0.3)


def test_a_confusion_matrix_has_the_true_class_by_row() -> None:
    matrix = mistakes.confusion_matrix(LABELS, PREDICTED, 4)
    assert matrix.tolist() == [[1, 2, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]


def test_the_most_frequent_confusion_is_first_and_a_right_answer_is_none() -> None:
    matrix = mistakes.confusion_matrix(LABELS, PREDICTED, 4)
    assert mistakes.most_confused(matrix, 9) == [Confusion(0, 1, 2, 3), Confusion(1, 0, 1, 2)]
    assert mistakes.most_confused(matrix, 1) == [Confusion(0, 1, 2, 3)]


def test_the_mistakes_of_a_class_are_ordered_by_their_probability() -> None:
    answers = np.zeros(6, ANSWER)
    answers["label"], answers["probability"] = PREDICTED, [0.9, 0.3, 0.8, 0.9, 0.5, 1.0]
    assert mistakes.surest_mistakes(LABELS, answers, [1, 0, 2], 5) == [4, 2, 1]
    assert mistakes.surest_mistakes(LABELS, answers, [0], 1) == [2]


def test_a_drawn_answer_is_that_of_the_network_on_the_evaluation_crop(tmp_path: Path) -> None:
    made = write_set(f"file://{tmp_path}/set", {"train": [16], "minival": [8], "val": [14]})
    torch.manual_seed(0)
    network = build_model(TINY, 10)
    with torch.no_grad():
        network(torch.randn(8, 3, 70, 70))
        network.classifier.weight.mul_(100)  # type: ignore[union-attr, operator]
    sha256 = export.save_weights(network.eval().state_dict(), tmp_path / "weights")
    chosen = selection.read(made.manifest, made.uri, "val", [3, 11])
    inputs = chosen.squares(network.resolution, EvalTransform(8, "bilinear"))
    augment = schema.Augment(eval_crop_pad=8, eval_interpolation="bilinear")
    with torch.inference_mode():
        probabilities = network(Normalize(torch.device("cpu"))(torch.from_numpy(inputs))).softmax(1)

    uri = f"file://{tmp_path}/weights"
    drawn = mistakes.draw_answers(TINY, uri, sha256, chosen, 10, augment)
    assert [answer.label for answer in drawn] == chosen.labels
    assert [answer.predicted for answer in drawn] == probabilities.argmax(1).tolist()
    assert [answer.probability for answer in drawn] == pytest.approx(probabilities.amax(1).tolist(), rel=1e-4)
    for answer in drawn:
        image, heat = (np.asarray(Image.open(io.BytesIO(data))) for data in (answer.image, answer.map))
        assert image.shape == heat.shape == (mistakes.PICTURE_PX, mistakes.PICTURE_PX, 3)
        assert not np.array_equal(image, heat)
    with pytest.raises(ArtifactError):
        mistakes.draw_answers(TINY, uri, "0" * 64, chosen, 10, augment)
