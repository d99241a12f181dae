import functools
import json
import os
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import onnxruntime
import pytest
import torch
from checkout import ROOT
from PIL import Image
from torch import nn

from conf import schema
from conf.data_set import EvalTransform
from flows.__main__ import main
from infra.errors import ArtifactError, ConfigError, TransientError
from infra.tracking import cards, package, registration, registry, runs
from infra.tracking import client as mlflow_client
from models.networks import export
from models.networks.build import build_model
from models.networks.description import config_json

pytestmark = pytest.mark.services
TINY = schema.Model(width=0.25, depth=0.25)
RESOLUTION = 32
EFFICIENTNET = 7  # the seed that makes the real thing


def start(key: str, **given: Any) -> str:
    return runs.start_run("tests", key, key, **{"params": {}, "tags": {}, **given})


def client() -> Any:
    return mlflow_client.library().MlflowClient(tracking_uri=os.environ["MLFLOW_TRACKING_URI"])


@functools.cache
def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    made = build_model(TINY, 4) if seed == EFFICIENTNET else Small()
    with torch.no_grad():
        made(torch.randn(16, 3, RESOLUTION, RESOLUTION))  # BN statistics away from 0 and 1
        made.classifier.weight.mul_(100)  # logits of size 1, so that a tolerance of 1e-5 says something
    return made


class Small(nn.Sequential):
    """Packed in a fifth of the time."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.pool, self.flat, self.classifier = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 4)


def register(
    name: str, folder: Path, *, seed: int = 0, classes: str = "abcd", alias: str = "", **given: Any
) -> registry.Version:
    """Registers the network of a seed; ``classes`` only changes the description."""
    module, images = export.serving_module(network(seed)), export.example(RESOLUTION)
    export.save_weights(network(seed).state_dict(), folder / registry.WEIGHTS)
    config = config_json(
        TINY, resolution=RESOLUTION, class_names=[*classes], mean=[0.5], std=[0.2], transform=EvalTransform(0)
    )
    (folder / registry.CONFIG).write_text(config)
    given = {"tags": {}, **given}
    answers = export.logits(module, images)
    version = registration.register(
        start(f"{name} {seed}"), name, load=lambda: registration.Loaded(module, images, answers), files=folder, **given
    )
    if not alias:
        return version
    registry.promote(name, version.version, alias)
    return replace(registry.resolve_version(f"{name}/{version.version}"), reused=version.reused)


def clean_process(script: str, *argv: str) -> subprocess.CompletedProcess[str]:
    """A Python that cannot import us: -I, no PYTHONPATH, and without the finder of an editable install."""
    guard = f"""
import os, sys, importlib.util
sys.path[:] = [p for p in sys.path if os.path.realpath(p or '.') != {str(ROOT)!r}]
sys.meta_path[:] = [f for f in sys.meta_path if 'editable' not in repr(f).lower()]
assert not any(importlib.util.find_spec(name) for name in ('models', 'infra', 'conf', 'tasks', 'flows'))
"""
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    env |= {"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}
    command = [sys.executable, "-I", "-c", guard + script, *argv]
    return subprocess.run(command, env=env, cwd="/", text=True, capture_output=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def served(mlflow_uri, tmp_path_factory: pytest.TempPathFactory) -> registry.Version:
    return register("served", tmp_path_factory.mktemp("served"), seed=EFFICIENTNET, alias="champion")


def test_a_model_of_others_with_the_same_name_stays_as_it_is(mlflow_uri, tmp_path: Path) -> None:
    client().create_registered_model("of-others", description="theirs")
    client().create_model_version("of-others", "s3://elsewhere/model")
    client().set_registered_model_alias("of-others", "champion", "1")
    before = dict(client().get_registered_model("of-others"))
    with pytest.raises(
        ConfigError, match=r"MLflow has a model of-others that is not effnet's .* rename it there, or use"
    ):
        register("of-others", tmp_path, alias="champion")
    assert dict(client().get_registered_model("of-others")) == before
    assert len(registry.versions("of-others")) == 1


@pytest.mark.slow
def test_a_process_without_our_code_answers_as_the_trained_network_does(served, tmp_path):
    images = np.random.default_rng(1).standard_normal((5, 3, RESOLUTION, RESOLUTION), dtype=np.float32)
    np.save(tmp_path / "images.npy", images)
    pixels = np.random.default_rng(2).integers(0, 256, (2, RESOLUTION, RESOLUTION, 3), dtype=np.uint8)
    np.save(tmp_path / "pixels.npy", pixels)
    for i, picture in enumerate(pixels):  # of the network's size, so that nothing is cropped or resized
        Image.fromarray(picture).save(tmp_path / f"{i}.png")
    script = """
import base64, numpy as np, pandas as pd, torch, mlflow.pyfunc, mlflow.pytorch
images = np.load(sys.argv[1] + '/images.npy')
files = [open(sys.argv[1] + f'/{i}.png', 'rb').read() for i in range(2)]
pixels = list(np.load(sys.argv[1] + '/pixels.npy'))
answer = mlflow.pytorch.load_model('models:/served/1')(torch.from_numpy(images))
np.save(sys.argv[1] + '/torch.npy', answer.detach())
torch.cuda.is_available = lambda: True  # on a machine with a GPU it must load too
served = mlflow.pyfunc.load_model('models:/served@champion')
shown = [*images, *files, *(base64.b64encode(data).decode() for data in files), *pixels]
answers = served.predict(pd.DataFrame({'image': shown}, index=range(100, 100 + len(shown))))
assert list(answers.index) == list(range(100, 100 + len(shown)))
np.save(sys.argv[1] + '/pyfunc.npy', np.array(answers['logits'].tolist()))
answers.drop(columns='logits').to_json(sys.argv[1] + '/answers.json', orient='columns')
print('base64' if served.input_example['image'][0].startswith('iVBORw0KGgo') else 'no file')
print(served.metadata.signature.inputs, served.metadata.signature.outputs)
"""
    ran = clean_process(script, str(tmp_path))
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("base64\n['image': Any (required)] ['class': string (required)")
    expected = export.logits(export.serving_module(network(EFFICIENTNET)), images)
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(np.load(tmp_path / "torch.npy"), expected, rtol=1e-5, atol=1e-5)
    normalized = ((pixels / np.float32(255) - 0.5) / 0.2).astype(np.float32).transpose(0, 3, 1, 2)
    from_files = export.logits(export.serving_module(network(EFFICIENTNET)), np.ascontiguousarray(normalized))
    logits = np.concatenate([expected, from_files, from_files, from_files])
    np.testing.assert_allclose(np.load(tmp_path / "pyfunc.npy"), logits, rtol=1e-4, atol=1e-4)
    answers = json.loads((tmp_path / "answers.json").read_text())
    shares = torch.from_numpy(logits).softmax(1)
    assert list(answers["class"].values()) == ["abcd"[label] for label in logits.argmax(1)]
    np.testing.assert_allclose([*answers["probability"].values()], shares.amax(1), rtol=1e-4)
    assert (served.version, served.aliases, served.reused) == (1, ("champion",), False)


def test_registering_the_same_weights_again_gives_the_same_version_and_says_nothing(mlflow_uri, tmp_path, capfd):
    first = register("twice", tmp_path, tags={"top1": "1.0"}, alias="candidate")
    again = register("twice", tmp_path, tags={"top1": "2.0"}, alias="champion")
    assert (again.version, again.reused, again.aliases) == (first.version, True, ("candidate", "champion"))
    assert again.tags["top1"] == "2.0"
    load = partial(pytest.fail, "what is registered is not loaded")
    assert registration.register(first.run_id, "twice", load=load, files=tmp_path, tags={}).reused
    assert len(client().search_model_versions("name = 'twice'")) == 1
    assert tuple(capfd.readouterr()) == ("", "")


def test_other_weights_are_the_next_version_and_the_alias_moves(mlflow_uri, tmp_path):
    register("next", tmp_path, seed=0, alias="champion")
    second = register("next", tmp_path, seed=1, alias="champion")
    assert (second.version, second.reused) == (2, False)
    assert registry.resolve_version("next/1").aliases == ()
    assert registry.champion("next") == registry.resolve_version("next@champion") == registry.resolve_version("next/2")


def test_a_registration_that_died_goes_on_where_it_was(mlflow_uri, tmp_path, monkeypatch):
    def dies(*_: Any, **__: Any) -> None:
        raise TransientError("the process ends here")

    library = mlflow_client.library()
    experiment = client().get_run(start("died 0")).info.experiment_id
    models = functools.partial(client().search_logged_models, [experiment], "name = 'died'")
    with monkeypatch.context() as patch:
        patch.setattr(library.MlflowClient, "finalize_logged_model", dies)
        with pytest.raises(TransientError):
            register("died", tmp_path)
    assert [m.status for m in models()] == ["PENDING"]
    monkeypatch.setattr(registration, "ABANDONED_S", 0.0)  # as if it had died an hour ago
    with monkeypatch.context() as patch:
        patch.setattr(library.MlflowClient, "create_model_version", dies)
        with pytest.raises(TransientError):
            register("died", tmp_path)
    assert [m.status for m in models()] == ["READY"]
    monkeypatch.setattr(package, "build", dies)  # the upload is complete: it must not be made again
    assert register("died", tmp_path).version == 1
    assert len(models()) == len(client().search_model_versions("name = 'died'")) == 1


def test_two_processes_that_both_made_the_version_agree_on_the_first(mlflow_uri, tmp_path, monkeypatch):
    first = register("both", tmp_path)
    find, calls = registration._find_version, []
    # The first look finds nothing, as if the other process had made its version just after it.
    monkeypatch.setattr(registration, "_find_version", lambda *a: calls.append(a) or ((calls[1:] and find(*a)) or None))
    assert register("both", tmp_path).version == first.version
    assert [v.version for v in client().search_model_versions("name = 'both'")] == ["1"]


def test_the_same_weights_with_another_description_are_a_new_version(mlflow_uri, tmp_path):
    first = register("described", tmp_path)
    corrected = register("described", tmp_path, classes="abce")
    assert (first.version, corrected.version, corrected.reused) == (1, 2, False)
    assert first.tags["weights_sha256"] == corrected.tags["weights_sha256"]
    assert register("described", tmp_path).version == 1
    assert register("described", tmp_path, classes="abce").version == 2


class Frozen(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.reshape(2, -1)[:, :4]


class Forgetful(nn.Linear):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images.mean((1, 2, 3)).unsqueeze(1)) + images.shape[0]


@pytest.mark.parametrize(
    ("module", "message"), [(Frozen(), "runs with 2 images and not with 3"), (Forgetful(1, 4), "off by")]
)
def test_a_program_that_answers_only_for_the_exported_batch_is_not_registered(tmp_path, module, message):
    images = export.example(8)
    write_files(tmp_path, 8)
    with pytest.raises(ArtifactError, match=message):
        package.build(tmp_path / "model", tmp_path, module.eval(), images, export.logits(module, images))


def write_files(folder: Path, side: int) -> None:
    (folder / registry.WEIGHTS).touch()
    config = config_json(
        TINY, resolution=side, class_names=[*"abcd"], mean=[0.5], std=[0.2], transform=EvalTransform(0)
    )
    (folder / registry.CONFIG).write_text(config)


def test_the_example_is_small_whatever_the_size_of_the_input(tmp_path):
    module, images = export.serving_module(network(0)), export.example(160)
    write_files(tmp_path, 160)
    package.build(tmp_path / "model", tmp_path, module, images, export.logits(module, images))
    sizes = {file.name: file.stat().st_size for file in (tmp_path / "model").glob("*.json")}
    assert sizes.keys() == {"input_example.json", "serving_input_example.json"}
    assert max(sizes.values()) < 20_000


def test_fetched_weights_rebuild_the_network_that_was_registered(served, tmp_path):
    weights, config = registry.fetch_weights("served@champion", tmp_path / "out")
    images = export.example(RESOLUTION)
    expected = export.logits(network(EFFICIENTNET).eval(), images)
    assert np.array_equal(export.logits(export.load_network(weights, config), images), expected)
    before = weights.stat().st_mtime_ns
    registry.fetch_weights("served/1", tmp_path / "out")
    assert weights.stat().st_mtime_ns == before


@pytest.mark.parametrize("file", [registry.WEIGHTS, registry.CONFIG])
def test_a_flipped_byte_in_the_store_is_found_before_use(mlflow_uri, tmp_path, file):
    name = f"flipped-{file.partition('.')[0]}"
    register(name, tmp_path)
    data = bytearray((tmp_path / file).read_bytes())
    data[-9] ^= 1
    (tmp_path / "evil").mkdir()
    (tmp_path / "evil" / file).write_bytes(bytes(data))
    model_id = client().get_model_version(name, "1").source.removeprefix("models:/")
    client().log_model_artifacts(model_id, str(tmp_path / "evil"), registry.FILES_FOLDER)
    with pytest.raises(ArtifactError, match=f"{name}/1/extra_files/{file} is damaged"):
        registry.fetch_weights(f"{name}/1", tmp_path / "out")
    assert not (tmp_path / "out" / file).exists()


def test_a_pickled_model_is_refused_by_every_door_and_never_run(mlflow_uri, tmp_path):
    evil, marker = tmp_path / "evil", tmp_path / "marker"
    script = """
import pathlib, mlflow.pyfunc
class Touch(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None): return model_input
    def __reduce__(self): return (pathlib.Path.touch, (pathlib.Path(sys.argv[2]),))
mlflow.pyfunc.save_model(sys.argv[1], python_model=Touch(), pip_requirements=['mlflow'])
os.environ['MLFLOW_ALLOW_PICKLE_DESERIALIZATION'] = 'true'
mlflow.pyfunc.load_model(sys.argv[1])
"""
    saved = clean_process(script, str(evil), str(marker))
    assert marker.exists(), saved.stderr  # the payload is alive, where pickle is allowed
    marker.unlink()
    logged = client().create_logged_model(client().get_experiment_by_name("tests").experiment_id, "evil")
    client().log_model_artifacts(logged.model_id, str(evil))
    client().finalize_logged_model(logged.model_id, "READY")
    client().create_registered_model("evil")
    client().create_model_version("evil", f"models:/{logged.model_id}", model_id=logged.model_id)
    registry.promote("evil", 1, "champion")
    with pytest.raises(ArtifactError, match="was not registered by effnet"):
        registry.fetch_weights("evil@champion", tmp_path / "out")
    with pytest.raises(mlflow_client.library().MlflowException, match="PICKLE"):  # our own process, as it is set
        mlflow_client.library().pyfunc.load_model("models:/evil/1")
    assert not marker.exists()


def test_a_described_version_has_card_metrics_and_data_once_however_often_it_is_described(mlflow_uri, tmp_path):
    made = register("described-twice", tmp_path, tags={"variant": "b0"})
    data = cards.DataSet("digits", "d" * 64, "s3://effnet/data/digits/manifest.json")
    for text in ("# title\n\nfirst", "# title\n\nsecond", "# title\n\nsecond"):
        cards.log_dataset(made.run_id, data, "training")
        cards.describe_version(made.name, made.version, text, {"card.md": text}, {"val/top1": 91.5}, data)
        registry.describe_model(made.name, f"model of {text}", {"variant": "b0"})
    version = client().get_model_version(made.name, "1")
    assert version.description == "second", "lists of versions show the first line"
    [metric] = client().get_logged_model(version.source.removeprefix("models:/")).metrics
    assert (metric.key, metric.value, metric.dataset_name, metric.dataset_digest) == (
        "val/top1",
        91.5,
        "digits",
        "d" * 36,
    )
    assert len(client().get_metric_history(made.run_id, "val/top1")) == 1
    card = mlflow_client.library().artifacts.download_artifacts(
        f"models:/{made.name}/1/card.md", dst_path=str(tmp_path / "card")
    )
    assert Path(card).read_text() == "# title\n\nsecond"
    family = client().get_registered_model(made.name)
    assert (family.description, family.tags) == ("model of # title\n\nsecond", {"variant": "b0"})
    [read] = client().get_run(made.run_id).inputs.dataset_inputs
    assert (read.dataset.name, read.tags[0].value) == ("digits", "training")


@pytest.mark.slow
def test_a_registered_model_is_exported_by_its_alias_and_a_mistake_writes_nothing(
    served, services_dir, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("flows.cli.signals.handle", lambda: None)
    path, settings = tmp_path / "served.onnx", f"run_dir={services_dir}"
    assert (
        main(["export", "served@champion", "--onnx", str(path), "--pt2", str(tmp_path / "served.pt2"), settings]) == 0
    )
    assert f"{path}: served/1, ONNX opset 20" in capsys.readouterr().out
    images = np.random.default_rng(2).standard_normal((3, 3, RESOLUTION, RESOLUTION), dtype=np.float32)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    expected = export.logits(export.serving_module(network(EFFICIENTNET)), images)
    np.testing.assert_allclose(session.run(None, {"images": images})[0], expected, atol=1e-4)
    path.unlink()
    assert main(["export", "served@champion", "--onnx", str(path), settings, "--json"]) == 0
    (written,) = json.loads(capsys.readouterr().out)
    assert (written["path"], written["model"], written["format"]) == (str(path), "served/1", "onnx")
    assert (written["bytes"], written["top1"]) == (path.stat().st_size, None)
    path.unlink()
    for words, message in (
        (["--onnx", f"{tmp_path}/none/x.onnx"], "there is no folder"),
        ([], "no format: add --onnx"),
        (["--onnx", str(path), "--int8"], "served/1 was not trained by effnet, so there are no images of its data"),
    ):
        assert main(["export", "served@champion", *words, settings]) == 2
        assert message in capsys.readouterr().err
    assert main(["export", "served@best", "--onnx", str(path), settings]) == 2
    assert not path.exists()


def test_an_alias_is_never_missing_while_it_is_moved(mlflow_uri, tmp_path):
    for seed in (0, 1):
        register("moved", tmp_path, seed=seed, alias="champion")
    seen, stop = [], threading.Event()

    def read() -> None:
        while not stop.is_set():
            found = registry.champion("moved")
            seen.append(found and found.version)

    with ThreadPoolExecutor(1) as pool:
        reader = pool.submit(read)
        for move in range(6):
            registry.promote("moved", 1 + move % 2, "champion")
        stop.set()
        reader.result(10)
    assert len(seen) > 3
    assert set(seen) <= {1, 2}


def test_a_wrong_reference_names_what_there_is(mlflow_uri, tmp_path):
    register("misspelt-b0", tmp_path, alias="champion")
    with pytest.raises(ConfigError, match=r"no registered model '0'; there are .*misspelt-b0"):
        registry.resolve_version("0@champion")
    with pytest.raises(ConfigError, match=r"no registered model 'mispelt-b0'; did you mean 'misspelt-b0'\?"):
        registry.resolve_version("mispelt-b0@champion")
    with pytest.raises(ConfigError, match=r"misspelt-b0 has no alias 'champ'; aliases: champion = 1"):
        registry.resolve_version("misspelt-b0@champ")
    with pytest.raises(ConfigError, match="misspelt-b0 has no version 7"):
        registry.resolve_version("misspelt-b0/7")
    with pytest.raises(ConfigError, match="misspelt-b0 has no version 7"):
        registry.promote("misspelt-b0", 7, "champion")
    with pytest.raises(ConfigError, match="NAME@ALIAS or NAME/VERSION"):
        registry.resolve_version("misspelt-b0")
    assert registry.champion("mispelt-b0") is None


class CutConnection:
    """Passes bytes on to MLflow; once clients have sent ``limit`` bytes, cuts and refuses all connections."""

    def __init__(self, port: int) -> None:
        self.upstream, self.sent, self.limit = port, 0, 10**12
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def is_cut(self) -> bool:
        return self.sent >= self.limit

    def _accept(self) -> None:
        with suppress(OSError):  # closed at the end of the test
            while True:
                client, _ = self.listener.accept()
                if self.is_cut:
                    client.close()
                    continue
                server = socket.create_connection(("127.0.0.1", self.upstream))
                for pair in ((client, server, True), (server, client, False)):
                    threading.Thread(target=self._pass_on, args=pair, daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket, is_upload: bool) -> None:
        with suppress(OSError):
            while (data := source.recv(4096)) and not self.is_cut:
                self.sent += len(data) * is_upload
                sink.sendall(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


@pytest.mark.slow
def test_an_upload_that_is_cut_at_half_leaves_the_champion_and_the_repetition_makes_one_good_version(
    mlflow_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = CutConnection(urlsplit(mlflow_uri).port or 0)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{proxy.port}")
    register("cut", tmp_path, seed=0, alias="champion")
    whole = proxy.sent
    proxy.sent, proxy.limit = 0, whole // 2
    with pytest.raises(TransientError):
        register("cut", tmp_path, seed=1)
    assert proxy.is_cut
    assert whole > 30_000
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_uri)
    monkeypatch.setattr(registration, "ABANDONED_S", 0.0)  # as if it had been cut an hour ago
    assert registry.resolve_version("cut@champion").version == 1
    assert len(registry.versions("cut")) == 1

    second = register("cut", tmp_path, seed=1)
    assert (second.version, second.reused) == (2, False)
    assert register("cut", tmp_path, seed=1).version == 2
    assert [version.version for version in registry.versions("cut")] == [1, 2]
    weights, config = registry.fetch_weights("cut/2", tmp_path / "out")
    images = export.example(RESOLUTION)
    assert registry.sha256_of(weights) == second.tags["weights_sha256"]
    assert config["input"]["resolution"] == RESOLUTION
    loaded = mlflow_client.library().pytorch.load_model("models:/cut/2")
    expected = export.logits(export.serving_module(network(1)), images)
    np.testing.assert_allclose(loaded(torch.from_numpy(images)).detach().numpy(), expected, rtol=1e-4, atol=1e-4)
    experiment = client().get_run(second.run_id).info.experiment_id
    models = client().search_logged_models([experiment], "name = 'cut'")
    assert [model.status for model in models] == ["READY", "READY"], "what was cut is deleted"
    assert registry.resolve_version("cut@champion").version == 1
