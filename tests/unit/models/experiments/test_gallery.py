"""From trained weights to the report's section and the files for MLflow, without services."""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from made_set import MadeSet, write_set
from matrix import with_slow_rest
from PIL import Image

from conf import schema
from conf.compose import compose
from infra.errors import ArtifactError, ConfigError
from models.data.loading import selection
from models.experiments import activation_maps
from models.experiments.gallery import GalleryImages, compare_methods, draw, save, sheet, summarize
from models.networks import export
from models.networks.build import build_model
from models.networks.efficientnet.preprocessing import Normalize
from models.results import GalleryModel, GalleryNetwork, ShardResult
from tasks.experiments.explain import build_candidates, train_config
from tasks.jobs import train_job

TINY = schema.Model(width=0.1, depth=0.1, resolution=0.3)
NO_CROP = schema.Augment(eval_crop_pad=0)
Drawn = tuple[tuple[GalleryNetwork, ...], tuple[GalleryImages, ...]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> MadeSet:
    return write_set(f"file://{tmp_path_factory.mktemp('set')}", {"train": [16], "minival": [8], "val": [14]})


def weights_of(model: schema.Model, classes: int, folder: Path) -> tuple[str, str]:
    torch.manual_seed(0)
    network = build_model(model, classes)
    with torch.no_grad():
        network(torch.randn(8, 3, 70, 70))
    path = folder / f"{model.name}-{classes}.safetensors"
    return f"file://{path}", export.save_weights(network.state_dict(), path)


@pytest.fixture(scope="module")
def both(made: MadeSet, tmp_path_factory: pytest.TempPathFactory) -> Drawn:
    """Two networks and their maps of the same two images."""
    folder = tmp_path_factory.mktemp("weights")
    images = selection.read(made.manifest, made.uri, "val", [3, 0])
    trained, drawn = [], []
    for name, dimension, model in (
        ("b0", "baseline", TINY),
        ("squeeze net/1", "baseline", schema.Model("squeezenet1_1", width=0.25, resolution=0.5)),
    ):
        uri, sha256 = weights_of(model, 10, folder)
        trained.append(GalleryNetwork(name, dimension, model, uri, sha256, 90.0, 14, "http://mlflow/run", reused=False))
        drawn.append(draw(model, uri, sha256, images, 10, NO_CROP))
    return tuple(trained), tuple(drawn)


def mapped(dimension: str, multiply_adds: int, top1: float) -> GalleryModel:
    return GalleryModel(
        name=dimension,
        dimension=dimension,
        network="efficientnet_b0",
        method="cam",
        params=1,
        multiply_adds=multiply_adds,
        resolution=24,
        top1=top1,
        n_val=200,
    )


def test_the_compound_network_is_compared_with_every_single_dimension_on_the_same_images() -> None:
    models = [mapped("baseline", 50, 70.0), mapped("depth", 110, 80.0), mapped("compound", 100, 90.0)]
    answers = {"depth": np.arange(200) < 160, "compound": np.arange(200) < 180}
    (compared,) = compare_methods(models, answers)
    assert (compared.dimension, compared.cost_ratio) == ("depth", 1.1)
    assert compared.lead is not None
    assert (compared.lead.value, compared.lead.n) == (pytest.approx(10.0), 200)
    (unknown,) = compare_methods(models, {"depth": answers["depth"]})
    assert unknown.lead is None, "a job without stored answers"
    assert compare_methods(models[:2], answers) == ()


@pytest.mark.slow
def test_a_drawn_map_is_the_networks_own_on_the_image_it_was_given(both: Drawn) -> None:
    (trained, _), (drawn, _) = both
    network = build_model(TINY, 10)
    network.load_state_dict(export.load_file(Path(trained.weights_uri.removeprefix("file://"))))
    images = Normalize(torch.device("cpu"))(torch.from_numpy(drawn.inputs))
    explanation = activation_maps.explain(network, images, [7, 4])  # the labels of the 28th and the 25th made image
    heat = activation_maps.upsample(explanation.maps, 67)
    assert (drawn.method, drawn.inputs.shape) == ("cam", (2, 67, 67, 3))
    assert np.array_equal(drawn.overlays[1], activation_maps.overlay(drawn.inputs[1], heat[1]))
    assert drawn.predictions == explanation.probabilities.argmax(1).tolist()


@pytest.mark.slow
def test_the_part_names_every_network_and_shows_every_map(made: MadeSet, both: Drawn) -> None:
    trained, drawn = map(list, both)
    names = made.manifest.classes
    trained[1] = replace(trained[1], assumed="class names unknown")
    part = summarize([3, 0], ["class 7", "class 4"], trained, drawn, names)
    assert [model.assumed for model in part.models] == ["", "class names unknown"]
    assert [(each.id, each.label) for each in part.images] == [(3, "class 7"), (0, "class 4")]
    assert [each.method for each in part.models] == ["cam", "grad-cam"]
    first = part.models[0]
    assert (first.name, first.dimension, first.top1, first.resolution) == ("b0", "baseline", 90.0, 67)
    assert (first.params, first.multiply_adds) == (drawn[0].params, drawn[0].multiply_adds)
    assert first.params == sum(p.numel() for p in build_model(TINY, 10).parameters())
    assert [(each.image, each.model) for each in part.maps] == [
        (3, "b0"),
        (0, "b0"),
        (3, "squeeze net/1"),
        (0, "squeeze net/1"),
    ]
    for each in part.maps:
        assert each.prediction in names
        assert 0.1 <= each.probability <= 1
        picture = Image.open(io.BytesIO(base64.b64decode(each.png)))
        assert (picture.format, picture.size) == ("PNG", (160, 160))


@pytest.mark.slow
def test_pictures_shrink_until_the_part_fits_into_a_page(made: MadeSet, both: Drawn) -> None:
    trained, drawn = map(list, both)
    part = summarize([3, 0], ["", ""], trained, drawn, made.manifest.classes, limit=60_000)
    pictures = [each.png for each in (*part.images, *part.maps)]
    assert sum(map(len, pictures)) <= 60_000
    sides = {Image.open(io.BytesIO(base64.b64decode(picture))).size for picture in pictures}
    assert len(sides) == 1
    assert 20 < sides.pop()[0] < 160


@pytest.mark.slow
def test_files_have_names_that_any_disk_takes_and_the_networks_own_size(both: Drawn, tmp_path: Path) -> None:
    trained, drawn = map(list, both)
    folder = tmp_path / "maps"
    folder.mkdir()
    paths = save(folder, [3, 0], trained, drawn)
    assert [path.name for path in paths] == [
        "gallery.png",
        "3-b0.png",
        "0-b0.png",
        "3-squeeze-net-1.png",
        "0-squeeze-net-1.png",
    ]
    with Image.open(folder / "0-b0.png") as picture:
        assert np.array_equal(np.asarray(picture), drawn[0].overlays[1])


def test_a_sheet_has_a_row_an_image_and_a_column_a_network() -> None:
    colours = np.arange(6, dtype=np.uint8).reshape(3, 2) * 40
    columns = [np.broadcast_to(pair[:, None, None, None], (2, 5, 5, 3)).copy() for pair in colours]
    picture = sheet(columns, 10)
    assert picture.shape == (2 * 10 + 4, 3 * 10 + 2 * 4, 3)
    assert [[int(picture[5 + 14 * y, 5 + 14 * x, 0]) for x in range(3)] for y in range(2)] == colours.T.tolist()
    assert (picture[11, :] == 255).all()


def test_weights_for_other_classes_are_refused_with_both_counts(made: MadeSet, tmp_path: Path) -> None:
    uri, sha256 = weights_of(TINY, 7, tmp_path)
    images = selection.read(made.manifest, made.uri, "val", [0])
    with pytest.raises(ArtifactError, match="are for 7 classes, 10 were requested"):
        draw(TINY, uri, sha256, images, 10, NO_CROP)


def test_table_7_is_what_is_drawn_by_default() -> None:
    config = compose(["profile=paper"])
    entries = build_candidates(config.explain)
    assert [(each.name, each.dimension) for each in entries] == [
        ("b0", "baseline"),
        ("b0 d=4", "depth"),
        ("b0 w=2", "width"),
        ("b0 r=2", "resolution"),
        ("b0 d=1.4 w=1.2 r=1.3", "compound"),
    ]
    last = entries[-1].model
    assert (last.depth, last.width, last.resolution) == (1.4, 1.2, 1.3)


def test_at_laptop_size_the_scaled_networks_cost_about_twice_the_baseline_as_each_other() -> None:
    from models.networks.build import compute_cost

    base, *scaled = [compute_cost(each.model, 10)[1] for each in build_candidates(compose(["profile=laptop"]).explain)]
    assert all(1.9 < cost / base < 2.5 for cost in scaled)


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ("[{network:resnet51}]", "no network named 'resnet51'; did you mean 'resnet50'"),
        ("[{},{network:efficientnet_b0}]", "explain.models names 'b0' twice"),
    ],
)
def test_networks_that_cannot_be_drawn_are_refused_before_anything_starts(models: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_candidates(compose([f"explain.models={models}"]).explain)


@pytest.mark.parametrize(
    "override",
    [
        "explain.models=[]",
        "explain.models=[{depth:0}]",
        "explain.models=[{registered:a@b,width:2.0}]",
        "explain.count=0",
        "explain.images=[1,1]",
    ],
)
def test_nonsense_is_refused_by_the_configuration(override: str) -> None:
    with pytest.raises(ValueError, match="explain"):
        compose([override])


@pytest.mark.parametrize("profile", with_slow_rest(["laptop", "paper"]))
def test_the_training_of_the_baseline_is_the_job_of_any_other_flow(profile: str) -> None:
    overrides = [f"profile={profile}", "data=digits", "launch.nproc_per_node=1"]
    config = compose(overrides)
    composed = train_config(config, build_candidates(config.explain)[0].model)
    assert composed.recipe == config.explain.recipe
    shards = ShardResult("digits", "file:///m", "0" * 64, 10, 100_000, 100, 100, 1, reused=True)
    job = train_job(composed, composed.data, composed.recipe, shards, None)
    if profile == "paper":  # the family's own B0
        assert job.key == train_job(config, config.data, config.recipe, shards, None).key
    assert job.job.model == config.explain.model
