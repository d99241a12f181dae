"""A public checkpoint through the registry: what is registered, found again, fetched, and refused without a trace."""

import hashlib
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from efficientnet_lite_pytorch import EfficientNet as Lukemelas
from torch import nn

from conf import schema
from infra import store
from infra.errors import ArtifactError, ConfigError, NotFoundError
from infra.tracking import client as mlflow_client
from infra.tracking import registry
from models.networks import export
from tasks.registry import pretrained
from tasks.registry.register import _fetch

pytestmark = pytest.mark.services
SIDE = 64


def config(path: str, **asked: Any) -> schema.Config:
    fields = {"path": path, "resolution": SIDE, "classes": 10, **asked}
    return schema.Config(profile="tests", experiment="imports", published=schema.Published(**fields))


def registered(name: str) -> list[Any]:
    client = mlflow_client.library().MlflowClient(tracking_uri=os.environ["MLFLOW_TRACKING_URI"])
    found: list[Any] = client.search_model_versions(f"name = '{name}'")
    return found


@pytest.fixture(scope="module")
def theirs() -> nn.Module:
    torch.manual_seed(0)
    network = Lukemelas.from_name("efficientnet-b0", num_classes=10, image_size=SIDE)
    with torch.no_grad():
        network._fc.weight.mul_(100)  # logits of size 1
    return network.eval()


@pytest.fixture(scope="module")
def checkpoint(theirs: nn.Module, object_store: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("public") / "efficientnet-b0-12345678.pth"
    torch.save(theirs.state_dict(), path)
    uri = f"{object_store}/public/{path.name}"
    store.ensure_root(object_store)
    store.upload(path, uri)
    return uri


def test_an_imported_model_is_registered_with_its_source_and_answers_as_the_original(
    mlflow_uri: str, checkpoint: str, theirs: nn.Module, object_store: str, tmp_path: Path
) -> None:
    first = pretrained._import(config(checkpoint))
    assert (first.name, first.version, first.reused) == ("efficientnet-b0-lukemelas", 1, False)
    assert first.aliases == ("challenger", "champion")
    tags = registry.resolve_version("efficientnet-b0-lukemelas@champion").tags
    source = hashlib.sha256(store.read(checkpoint)).hexdigest()
    assert (tags["source"], tags["source_sha256"], tags["origin"]) == (checkpoint, source, "lukemelas")
    assert (tags["crop_pad"], tags["crop_mode"]) == ("32", "center")
    guessed = "preprocessing imagenet, crop_pad 32, interpolation bicubic, crop_mode center, class names unknown"
    assert (tags["guessed"], tags["class_names"]) == (guessed, "unknown")
    assert (tags["variant"], tags["license"]) == ("efficientnet_b0", "Apache-2.0")
    described = mlflow_client.library().MlflowClient().get_registered_model("efficientnet-b0-lukemelas")
    assert "efficientnet_b0: " in described.description
    assert "| not trained here &emsp;| not measured &emsp;|" in described.description
    assert "was not measured here" in described.latest_versions[0].description
    assert (tags["padding"], tags["bn_epsilon"], tags["preprocessing"]) == ("same", "0.001", "imagenet")

    weights, described = registry.fetch_weights("efficientnet-b0-lukemelas@champion", tmp_path)
    assert described["classes"] == 10
    assert described["input"]["resolution"] == SIDE
    images = export.example(SIDE)
    with torch.no_grad():
        expected = theirs(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(export.logits(export.load_network(weights, described), images), expected, atol=1e-4)

    # What evaluation, transfer and the nightly job begin with.
    model, (uri, sha256), exact = _fetch("efficientnet-b0-lukemelas@champion", object_store)
    assert (model.padding, model.bn_epsilon, exact) == ("same", 1e-3, "efficientnet-b0-lukemelas/1")
    assert hashlib.sha256(store.read(uri)).hexdigest() == sha256

    again = pretrained._import(config(checkpoint))
    assert again == replace(first, reused=True, verdict="judged before: promoted: there was no champion")
    assert len(registered(first.name)) == 1


@pytest.mark.slow
def test_names_of_classes_are_imported_in_the_order_of_the_weights(
    mlflow_uri: str, checkpoint: str, tmp_path: Path
) -> None:
    file, names = tmp_path / "names.txt", [f"class {number}" for number in range(9, -1, -1)]
    unnamed = pretrained._import(config(checkpoint, name="named"))
    file.write_text("\n".join(names[1:]))
    with pytest.raises(ConfigError, match=r"names\.txt has 9 names, the weights have 10 classes"):
        pretrained._import(config(checkpoint, name="named", class_file=str(file)))
    file.write_text("\n".join(names))
    version = pretrained._import(config(checkpoint, name="named", class_file=str(file)))
    assert (unnamed.version, version.version) == (1, 2)
    described = registry.resolve_version("named/2")
    assert registry.describe(described)["class_names"] == names
    assert described.tags["class_names"] == "published.class_file"
    assert "class names" not in described.tags["guessed"]


def test_average_and_raw_weights_of_a_file_are_versions_that_say_which_they_are(
    mlflow_uri: str, theirs: nn.Module, tmp_path: Path
) -> None:
    raw = {name: tensor + 1 if name == "_fc.bias" else tensor for name, tensor in theirs.state_dict().items()}
    torch.save({"model": raw, "model_ema": theirs.state_dict()}, tmp_path / "both.pth")
    for kind in (None, "model"):
        settings = {"name": "both-kinds", "weights": kind, "preprocessing": "imagenet"}
        pretrained._import(config(str(tmp_path / "both.pth"), **settings))
    average, other = (registry.resolve_version(f"both-kinds/{number}") for number in (1, 2))
    assert (average.tags["weights"], other.tags["weights"]) == ("moving average if there is one", "model")
    assert average.run_id != other.run_id


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        ({"classes": 1000}, ConfigError, "has 10 classes, not 1000"),
        ({"network": "efficientnet_b1"}, ConfigError, "holds efficientnet_b0, not efficientnet_b1"),
        ({"sha256": "12345678"}, ArtifactError, "published.sha256 says 12345678"),
    ],
)
def test_what_is_refused_leaves_nothing_in_the_registry(
    mlflow_uri: str, checkpoint: str, asked: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        pretrained._import(config(checkpoint, name="refused", **asked))
    client = mlflow_client.library().MlflowClient(tracking_uri=mlflow_uri)
    experiment = client.get_experiment_by_name("imports")
    runs = client.search_runs([experiment.experiment_id]) if experiment else []
    assert [run for run in runs if "refused" in run.info.run_name] == []
    assert registered("refused") == []


def test_a_file_that_is_not_there_and_none_at_all(mlflow_uri: str, checkpoint: str) -> None:
    with pytest.raises(NotFoundError):
        pretrained._import(config(checkpoint + ".pth"))
    with pytest.raises(ConfigError, match=r"which file\? e\.g\. published\.path="):
        pretrained._import(replace(config(checkpoint), published=schema.Published()))
