"""What EfficientNet-Lite with Google's weights sees in real photographs, against another implementation of it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from checkout import REAL_DATA
from efficientnet_lite_pytorch import EfficientNet as Theirs
from matrix import with_slow_rest

from conf import schema
from conf.data_set import EvalTransform
from conf.experiments import PACKAGED
from infra.errors import DataError, NotFoundError
from models.data.loading import selection
from models.data.sources.catalog import DATA_SETS
from models.data.sources.files import archive
from models.data.sources.published import imagenet
from models.experiments import photographs
from models.networks import checkpoint_file, export, packaged, pretrained
from models.networks.build import build_model
from models.networks.efficientnet.preprocessing import Normalize

PHOTOGRAPHS = {name: packaged.photograph(name) for name in packaged.PHOTOGRAPHS}
# Predictions of the package's network (efficientnet_lite_pytorch 0.1.0) on the same pixels.
FIRST = {
    "efficientnet_lite0": ["palace", "daisy", "academic gown"],
    "efficientnet_lite1": ["palace", "honeycomb", "comic book"],
    "efficientnet_lite2": ["palace", "honeycomb", "suit"],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", with_slow_rest(PACKAGED))
def test_logits_and_classes_are_those_of_another_implementation(name: str, tmp_path: Path) -> None:
    file = packaged.weights_path(name)
    public = checkpoint_file.read(file.read_bytes(), file.name)
    converted = pretrained.convert(public, schema.Published(), file.name)
    assert converted.model.name == name
    ours = build_model(converted.model, 1000).eval()
    ours.load_state_dict(converted.state_dict)
    theirs = Theirs.from_name(name.replace("_", "-")).eval()
    theirs.load_state_dict(public)
    pixels = torch.from_numpy(selection.decode_squares(PHOTOGRAPHS, ours.resolution, EvalTransform()))
    with torch.inference_mode():
        expected = theirs((pixels.permute(0, 3, 1, 2).float() - 127) / 128)
        answers = ours(Normalize(torch.device("cpu"))(pixels))
    torch.testing.assert_close(answers, expected, rtol=0, atol=1e-4)

    weights = tmp_path / "weights.safetensors"
    export.save_weights(converted.state_dict, weights)
    sha256 = hashlib.sha256(weights.read_bytes()).hexdigest()
    seen = photographs.classify_photographs(
        converted.model, f"file://{weights}", sha256, PHOTOGRAPHS, 1000, EvalTransform()
    )
    best = expected.softmax(1).topk(3)
    assert seen.labels == best.indices.tolist()
    np.testing.assert_allclose(seen.probabilities, best.values.numpy(), atol=1e-4)
    assert [packaged.imagenet_names()[labels[0]] for labels in seen.labels] == FIRST[name]
    assert seen.overlays.shape == (3, ours.resolution, ours.resolution, 3)
    assert (seen.overlays != seen.inputs).any(axis=(1, 2, 3)).all()


def test_the_packages_are_those_of_the_settings_and_each_has_its_published_accuracy() -> None:
    assert tuple(packaged.WEIGHTS) == tuple(packaged.LITE_TOP1) == PACKAGED


def test_the_names_are_a_thousand_in_the_order_of_their_wordnet_ids() -> None:
    names = packaged.imagenet_names()
    assert len(names) == 1000
    # Source: the labels that public ImageNet networks are quoted with, e.g. 207, 281 and 817.
    assert [names[label] for label in (0, 207, 281, 817, 999)] == [
        "tench", "golden retriever", "tabby", "sports car", "toilet tissue"]  # fmt: skip
    lines = (Path(packaged.__file__).parent / "imagenet_classes.tsv").read_text().splitlines()
    wnids = [line.partition("\t")[0] for line in lines]
    assert wnids == sorted(set(wnids))


def test_the_names_are_the_devkit_s_where_it_is_at_hand() -> None:
    if not (REAL_DATA / "imagenet").is_dir():
        pytest.skip("no real devkit: ../shared/data is absent")
    devkit = imagenet.read_devkit(
        archive.open_files(str(REAL_DATA / "imagenet"), [imagenet.DEVKIT_ARCHIVE]), DATA_SETS["imagenet"]
    )
    lines = (Path(packaged.__file__).parent / "imagenet_classes.tsv").read_text().splitlines()
    assert [line.partition("\t")[0] for line in lines] == list(devkit.wnids)


def test_a_damaged_photograph_is_named() -> None:
    with pytest.raises(DataError, match="photograph broken: "):
        selection.decode_squares(
            {"china": PHOTOGRAPHS["china"], "broken": PHOTOGRAPHS["china"][:500]}, 64, EvalTransform()
        )


def test_a_package_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(packaged.WEIGHTS, "efficientnet_lite0", ("effnet_absent_package", "models/x.pth"))
    with pytest.raises(NotFoundError, match="effnet_absent_package is not installed; run `make setup`"):
        packaged.weights_path("efficientnet_lite0")
