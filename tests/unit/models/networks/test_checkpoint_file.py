"""Reading of checkpoints: which tensors are taken, what is skipped, and files that are refused."""

import argparse
import datetime
import functools
import importlib
import io
import os
import random
import re
import subprocess
import tarfile
import zipfile
from collections import defaultdict, deque
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from infra.errors import ArtifactError, ConfigError, EffnetError
from models.networks import checkpoint_file


def test_a_model_of_keras_is_named(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "b0.keras", "w") as archive:
        for name in ("metadata.json", "config.json", "model.weights.h5"):
            archive.writestr(name, "{}")
    with pytest.raises(ArtifactError, match="is a model of Keras; save the state dict of a PyTorch network"):
        checkpoint_file.read((tmp_path / "b0.keras").read_bytes(), "b0.keras")


@pytest.mark.parametrize(
    ("name", "data", "what"),
    [
        ("b0.h5", b"\x89HDF\r\n\x1a\n", "is an HDF5 file, as Keras writes; .*; timm has Google's weights for PyTorch"),
        ("b0.engine", b"ftrt\0\0\0", "is an engine of TensorRT, which holds no weights that can be read: import those"),
        ("b0.plan", b"\0\1\2\3", "is an engine of TensorRT"),
        ("b0.pth", b"ftrt\0\0\0", "is an engine of TensorRT"),
        ("b0.onnx", b"\0\1\2\3", "is a file of ONNX; save the state dict of a PyTorch network"),
        ("b0.pdparams", b"\x80\4\x95\0", "is a file of PaddlePaddle; save the state dict"),
        ("b0.pkl", b"\x80\4\x95\0", "is a pickle, which could run code, and is not read"),
        (
            "m.safetensors.index.json",
            b'{"weight_map": {"a": "b"}}',
            "is the index of several files, .*: join them, as by",
        ),
        ("b0.pth", b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer; `git lfs pull` fetches the"),
    ],
)
def test_a_file_of_another_tool_is_named_with_what_can_be_done(name: str, data: bytes, what: str) -> None:
    """Nothing is said of damage, or of formats, where it is known what the file is."""
    with pytest.raises(EffnetError, match=f"^{re.escape(name)} {what}"):
        checkpoint_file.read(data, name)


def saved(folder: Path, name: str, held: Any) -> bytes:
    torch.save(held, folder / name)
    return (folder / name).read_bytes()


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_both_kinds_of_file_give_the_same_tensors(tmp_path: Path, name: str) -> None:
    tensors = {"a": torch.arange(3.0), "b": torch.zeros((), dtype=torch.int64)}
    data = safetensors.torch.save(tensors) if name.endswith("safetensors") else saved(tmp_path, name, tensors)
    content = checkpoint_file.read(data, name)
    assert content.keys() == tensors.keys()
    assert all(torch.equal(content[key], tensor) for key, tensor in tensors.items())


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors", "w.PTH", "blob", "w.tar.gz"])
@pytest.mark.parametrize("kind", ["safetensors", "zip", "legacy"])
def test_the_format_is_that_of_the_bytes(kind: str, name: str, tmp_path: Path) -> None:
    tensors = {"a": torch.arange(3.0)}
    if kind == "safetensors":
        data = safetensors.torch.save(tensors)
    else:
        torch.save(tensors, tmp_path / "x", _use_new_zipfile_serialization=kind == "zip")
        data = (tmp_path / "x").read_bytes()
    assert torch.equal(checkpoint_file.read(data, name)["a"], tensors["a"])


@pytest.mark.parametrize("name", ["w.pth", "w.onnx"])
@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid", "a Git LFS pointer; `git lfs pull` fetches"),
        (b"\r\n<!DOCTYPE html>", "a web page"),
        (b'{"error":"Repository not found"}', "JSON text"),
        (bytes(257) + b"ustar\0" + bytes(249), "a tar archive; unpack it"),  # .pth.tar is no tar, as timm names it
        (b"\x89HDF\r\n", "an HDF5 file, as Keras writes"),
        (b"\x08\x0a\x12\x07pytorch", "probably an ONNX"),
        (b"\xef\xbb\xbf<!DOCTYPE html>", "a web page"),
        (b"Access to model x is restricted.\nLog in", "a text, which begins with 'Access to model x is restricted.'"),
        (b"\x1c\x00\x00\x00TFL3", "a TensorFlow Lite file"),
        (b"\xfd7zXZ\x00\x00", "compressed by xz; unpack it"),
        (b"BZh91AY", "compressed by bzip2; unpack it"),
        (b"\x28\xb5\x2f\xfd\x04", "compressed by zstd; unpack it"),
        (b"\x93NUMPY\x01", "an array of NumPy"),
    ],
)
def test_what_is_no_checkpoint_is_named(data: bytes, what: str, name: str) -> None:
    with pytest.raises(EffnetError, match=f"^{re.escape(name)} is {what}"):
        checkpoint_file.read(data, name)


def test_a_file_without_content_or_of_another_tool_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"x\.pth is empty$"):
        checkpoint_file.read(b"", "x.pth")
    with pytest.raises(ArtifactError, match=r"^x\.safetensors is a Git LFS pointer"):
        checkpoint_file.read(b"version https://git-lfs.github.com/spec/v1\noid", "x.safetensors")
    with pytest.raises(ArtifactError, match=r"^x\.safetensors is JSON text"):
        checkpoint_file.read(b'{"error":"Repository not found"}', "x.safetensors")
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("readme.txt", b"")
        archive.writestr("w/b0.pth", b"")
    with pytest.raises(ArtifactError, match=r"is a zip archive of w/b0\.pth; unpack it$"):
        checkpoint_file.read((tmp_path / "x.zip").read_bytes(), "x.zip")
    np.savez(tmp_path / "x.npz", a=np.zeros(2))
    with pytest.raises(ArtifactError, match=r"is a zip archive of a\.npy$"):
        checkpoint_file.read((tmp_path / "x.npz").read_bytes(), "x.pth")
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as archive:  # as torch.jit.save writes it
        for name in ("x/data.pkl", "x/code/__torch__.py", "x/constants.pkl"):
            archive.writestr(name, b"")
    with pytest.raises(ArtifactError, match="is a TorchScript program; save the state dict"):
        checkpoint_file.read((tmp_path / "x.pt").read_bytes(), "x.pt")


class Settings(dict[str, Any]):
    """As Lightning's ``AttributeDict``."""


def test_mappings_of_other_classes_are_read_or_skipped(tmp_path: Path) -> None:
    tensors = {"a": torch.arange(3.0)}
    lightning = {"state_dict": tensors, "hyper_parameters": Settings(lr=0.1), "counts": defaultdict(list, {"x": [1]})}
    for held in (lightning, Settings(tensors)):
        assert torch.equal(checkpoint_file.read(saved(tmp_path, "x.ckpt", held), "x.ckpt")["a"], tensors["a"])


class Touch:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def test_a_pickle_that_runs_something_is_refused_and_not_run(tmp_path: Path) -> None:
    data = saved(tmp_path, "evil.pth", {"a": torch.zeros(1), "b": Touch(tmp_path / "marker")})
    with pytest.raises(
        ArtifactError, match=r"is refused: it names builtins\.getattr, by which a pickle could execute code"
    ):
        checkpoint_file.read(data, "evil.pth")
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize(
    ("held", "message"),
    [
        (
            {name: {"conv_stem.weight": torch.zeros(1)} for name in ("student", "teacher")},
            "x.pth holds several networks, student, teacher: save the state dict of one of them",
        ),
        ({"epoch": 3, "state_dict": {}}, "x.pth holds no tensors: save the state dict of the network"),
        (
            {"state_dict": {"conv_stem.weight": np.ones(2)}},
            "holds conv_stem.weight, of which none is a tensor: torch.from_numpy makes tensors of arrays of NumPy",
        ),
        (
            {"conv_stem.weight": torch.ones(1), "classifier._packed_params._packed_params": (1, None)},
            r"x.pth: classifier\._packed_params\._packed_params is of a quantized network",
        ),
        ({"epoch": 3, "arch": "b0"}, "x.pth holds epoch, arch, of which none is a tensor"),
        ([torch.zeros(1)], "x.pth holds a list, not the named tensors of a network"),
        (argparse.Namespace(a=1), "x.pth holds a whole model or another object, whose code is not run"),
    ],
)
def test_a_file_that_holds_other_things_is_refused(tmp_path: Path, held: Any, message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        checkpoint_file.read(saved(tmp_path, "x.pth", held), "x.pth")


@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize(
    "held",
    [
        torch.nn.Linear(2, 2),
        {"epoch": 3, "model": torch.nn.Linear(2, 2)},
        torch.nn.DataParallel(torch.nn.Linear(2, 2)),
        (torch.nn.Linear(2, 2).state_dict(), 3),
        {"model": functools.partial(torch.nn.Linear, 2)},
    ],
    ids=["model", "under a key", "parallel", "tuple", "function"],
)
def test_of_a_whole_model_the_line_says_how_to_save_its_tensors(held: Any, is_zip: bool) -> None:
    buffer = io.BytesIO()
    torch.save(held, buffer, _use_new_zipfile_serialization=is_zip)
    with pytest.raises(ArtifactError) as error:
        checkpoint_file.read(buffer.getvalue(), "x.pth")
    assert "torch.save(model.state_dict(), FILE), where the model can be loaded" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_a_program_of_torch_export_is_named() -> None:
    buffer = io.BytesIO()
    torch.export.save(torch.export.export(torch.nn.Linear(2, 2), (torch.zeros(1, 2),)), buffer)
    with pytest.raises(ArtifactError, match=r"is a program of torch\.export; save the state dict of the network"):
        checkpoint_file.read(buffer.getvalue(), "x.pt2")


def checkpoint(**more: Any) -> dict[str, Any]:
    """A checkpoint as timm writes it."""
    raw, average = {"a": torch.zeros(2)}, {"a": torch.ones(2)}
    return {"epoch": 3, "arch": "efficientnet_b0", "optimizer": {"state": {}}, "state_dict": raw, "ema": average} | more


@pytest.mark.parametrize("key", ["class_to_idx", "classes"])
def test_names_of_classes_in_a_checkpoint_are_named_with_the_setting(
    key: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    held = checkpoint(**{key: {"owl": 1, "cat": 0} if key == "class_to_idx" else ["cat", "owl"]})
    with caplog.at_level("INFO", "effnet"):
        checkpoint_file.read(saved(tmp_path, "x.pth", held), "x.pth")
    assert f"x.pth: {key} is not read; published.class_file=FILE gives the names of the classes" in caplog.text


@pytest.mark.parametrize(("weights", "value"), [(None, 1.0), ("ema", 1.0), ("model", 0.0)])
@pytest.mark.parametrize("averaged", ["state_dict_ema", "model_ema", "params_ema"])
def test_of_a_checkpoint_with_both_the_average_or_the_raw_weights_are_taken(
    averaged: str, weights: str | None, value: float, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    held = checkpoint()
    held[averaged] = {"module": held.pop("ema")}
    with caplog.at_level("INFO", "effnet"):
        content = checkpoint_file.read(saved(tmp_path, "checkpoint-3.pth.tar", held), "checkpoint-3.pth.tar", weights)
    assert {key: tensor.tolist() for key, tensor in content.items()} == {"a": [value, value]}
    taken, kind, other = ("state_dict", "ema", averaged) if weights == "model" else (averaged, "model", "state_dict")
    assert f"the weights are taken from {taken}; published.weights={kind} takes {other}" in caplog.text


@pytest.mark.parametrize(("weights", "value"), [(None, 1.0), ("ema", 1.0), ("model", 0.0)])
@pytest.mark.parametrize(
    "keys",
    [
        ("model", "ema_model"),
        ("state_dict", "model_ema_state_dict"),
        ("state_dict", "swa_state_dict"),
        ("weights", "ema_weights"),
        ("model_state", "ema"),
    ],
)
def test_an_average_is_recognized_by_its_name_under_any_key(
    keys: tuple[str, str], weights: str | None, value: float, tmp_path: Path
) -> None:
    held = {"epoch": 3, keys[0]: {"a": torch.zeros(2)}, keys[1]: {"a": torch.ones(2)}}
    held["optimizer"] = {"state": {0: {"momentum_buffer": torch.ones(2)}}, "param_groups": []}
    content = checkpoint_file.read(saved(tmp_path, "x.pth", held), "x.pth", weights)
    assert {key: tensor.tolist() for key, tensor in content.items()} == {"a": [value, value]}


@pytest.mark.parametrize(("weights", "value"), [(None, 1.0), ("ema", 1.0), ("model", 0.0)])
def test_lightning_saves_the_average_as_the_state_dict(weights: str | None, value: float, tmp_path: Path) -> None:
    held = {"state_dict": {"a": torch.ones(2)}, "current_model_state": {"a": torch.zeros(2)}}
    held["averaging_state"] = {"n_averaged": torch.tensor(3)}
    content = checkpoint_file.read(saved(tmp_path, "x.ckpt", held), "x.ckpt", weights)
    assert content["a"].tolist() == [value, value]


@pytest.mark.parametrize("empty", [{}, None, {"shadow_params": [torch.ones(2)], "decay": 0.9}])
def test_an_average_without_named_tensors_is_not_taken(
    empty: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    held = {"model": {"a": torch.zeros(2)}, "ema": empty}
    with caplog.at_level("INFO", "effnet"):
        assert checkpoint_file.read(saved(tmp_path, "x.pth", held), "x.pth").keys() == {"a"}
    assert ("ema has no tensors with names, and is not used" in caplog.text) == bool(empty)


def test_a_state_dict_under_several_keys_is_taken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As Composer saves it, beside the state of optimizers."""
    optimizers = {"SGD": {"state": {0: {"momentum_buffer": torch.ones(2)}}}}
    held = {"state": {"model": {"module.a": torch.ones(2)}, "optimizers": optimizers}, "rng": [1]}
    with caplog.at_level("INFO", "effnet"):
        assert checkpoint_file.read(saved(tmp_path, "x.pt", held), "x.pt").keys() == {"module.a"}
    assert "the weights are taken from state.model" in caplog.text


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("model-00001-of-00002.safetensors", "is one of several files with the tensors of a network: join them"),
        ("pytorch_model-00002-of-00002.bin", "is one of several files with the tensors of a network: join them"),
        ("__0_0.distcp", "is a part of a distributed checkpoint"),
        ("model.ckpt.data-00000-of-00001", "is a file of a TensorFlow checkpoint: timm has Google's weights"),
        ("model.ckpt-1234.index", "is a file of a TensorFlow checkpoint: timm has Google's weights"),
    ],
)
def test_a_part_of_a_network_is_named_with_what_makes_it_whole(name: str, message: str) -> None:
    with pytest.raises(ArtifactError, match=f"/w/{name} {message}"):
        checkpoint_file.read(safetensors.torch.save({"a": torch.ones(2)}), f"/w/{name}")
    only = checkpoint_file.read(safetensors.torch.save({"a": torch.ones(2)}), "model-00001-of-00001.safetensors")
    assert only.keys() == {"a"}


@pytest.mark.parametrize("first", [0x3C, 0x7B])
def test_the_length_of_a_safetensors_header_may_begin_as_a_web_page_does(first: int) -> None:
    data = safetensors.torch.save({"a": torch.arange(3.0)})
    length = int.from_bytes(data[:8], "little")
    header = data[8 : 8 + length].rstrip()
    header = header.ljust(next(n for n in range(len(header), len(header) + 256) if n % 256 == first))
    made = len(header).to_bytes(8, "little") + header + data[8 + length :]
    assert checkpoint_file.read(made, "x.safetensors")["a"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("name", ["PureWindowsPath", "_local.PosixPath", "_local.WindowsPath"])
def test_paths_of_other_systems_and_of_newer_pythons_are_skipped(name: str, tmp_path: Path) -> None:
    data = saved(tmp_path, "x.ckpt", {"state_dict": {"a": torch.ones(2)}, "root": PureWindowsPath("x")})
    with zipfile.ZipFile(io.BytesIO(data)) as read, zipfile.ZipFile(tmp_path / "y", "w") as written:
        for member in read.namelist():
            content = read.read(member).replace(b"cpathlib\nPureWindowsPath\n", f"cpathlib.{name}\n".encode())
            content = content.replace(b"cpathlib._local.", b"cpathlib._local\n").replace(b"cpathlib.P", b"cpathlib\nP")
            written.writestr(member, content)
    assert checkpoint_file.read((tmp_path / "y").read_bytes(), "x.ckpt").keys() == {"a"}


def test_a_state_dict_under_any_single_key_is_taken(tmp_path: Path) -> None:
    held = {"params": {"a": torch.ones(2)}, "optimizer": {"state": {0: {"step": torch.ones(1)}}}, "epoch": 3}
    assert checkpoint_file.read(saved(tmp_path, "x.pth", held), "x.pth").keys() == {"a"}


@pytest.mark.parametrize("weights", ["ema", "model"])
def test_weights_that_a_file_lacks_are_a_mistake(weights: str, tmp_path: Path) -> None:
    held = {"state_dict" if weights == "ema" else "state_dict_ema": {"a": torch.zeros(2)}}
    with pytest.raises(
        ConfigError, match=rf"has no weights of the kind published\.weights={weights}; it holds state_dict"
    ):
        checkpoint_file.read(saved(tmp_path, "x.pth", held), "x.pth", weights)


@pytest.mark.parametrize(
    "held",
    [
        np.float64(76.3),
        np.int64(3),
        np.ones(3),
        np.dtype("float32"),
        np.random.default_rng(0),
        np.random.get_state(),
        {1, 2},
        frozenset((1,)),
        deque([1, 2], maxlen=5),
        range(3),
        slice(1, 2),
    ],
    ids=lambda held: type(held).__name__,
)
@pytest.mark.parametrize("zipped", [True, False])  # as torch 1.6 and later write, and as those before
def test_plain_values_of_python_and_numpy_beside_the_tensors_are_skipped(held: object, zipped: bool) -> None:
    buffer = io.BytesIO()
    content = {"state_dict": {"w": torch.ones(2)}, "best": held}
    torch.save(content, buffer, _use_new_zipfile_serialization=zipped)
    read = checkpoint_file.read(buffer.getvalue(), "x.pth")
    assert {key: tensor.tolist() for key, tensor in read.items()} == {"w": [1.0, 1.0]}


def test_objects_that_are_no_tensors_are_skipped_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    held = checkpoint(args=argparse.Namespace(lr=0.1, name="x"), amp={1, 2}, when=datetime.date(2026, 1, 2))
    with caplog.at_level("INFO", "effnet"):
        content = checkpoint_file.read(saved(tmp_path, "c.pth.tar", held), "c.pth.tar")
    assert list(content) == ["a"]
    assert "objects of argparse.Namespace, datetime.date are skipped, only tensors are read" in caplog.text


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("protocol", [4, 5])
def test_a_later_pickle_protocol_is_named(protocol: int, zipped: bool) -> None:
    buffer = io.BytesIO()
    torch.save({"a": torch.ones(2)}, buffer, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ArtifactError, match="with a pickle_protocol above 3, which is not read"):
        checkpoint_file.read(buffer.getvalue(), "c.pth.tar")


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("function", [eval, os.system, subprocess.Popen, importlib.import_module, functools.partial])
def test_a_checkpoint_that_names_what_could_run_code_is_refused(function: Any, zipped: bool) -> None:
    buffer = io.BytesIO()
    held = checkpoint(args=argparse.Namespace(lr=0.1), hook=Call(function))
    torch.save(held, buffer, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ArtifactError, match=f"is refused: it names .*{function.__name__}, by which a pickle could"):
        checkpoint_file.read(buffer.getvalue(), "c.pth.tar")


class Call:
    def __init__(self, function: Any) -> None:
        self.function = function

    def __reduce__(self) -> tuple[Any, ...]:
        return (self.function, ("1 + 1",))


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_half_a_file_is_refused_in_one_line(tmp_path: Path, name: str, share: float) -> None:
    tensors = {"a": torch.arange(3000.0)}
    data = safetensors.torch.save(tensors) if name.endswith("safetensors") else saved(tmp_path, name, tensors)
    with pytest.raises(ArtifactError) as caught:
        checkpoint_file.read(data[: int(share * len(data))], name)
    assert "\n" not in str(caught.value)


def test_a_damaged_file_is_one_line_that_says_what_it_is(tmp_path: Path) -> None:
    """Bytes changed at random make torch's reader fail with nearly every error that Python has."""
    wholes = {
        "zip.pth": saved(tmp_path, "zip.pth", {"a": torch.arange(300.0)}),
        "w.safetensors": safetensors.torch.save({"a": torch.arange(300.0), "b": torch.zeros(2)}),
        "text.pth": b"hello, this is no checkpoint",
        "old.pth": old_tar(),
    }
    torch.save({"a": torch.arange(30.0)}, tmp_path / "legacy.pth", _use_new_zipfile_serialization=False)
    wholes["legacy.pth"] = (tmp_path / "legacy.pth").read_bytes()
    rng = random.Random(0)
    for name, whole in wholes.items():
        for _ in range(60):
            data = bytearray(whole)
            for _ in range(rng.randint(1, 8)):
                data[rng.randrange(min(len(data), 400))] = rng.randrange(256)
            said = refusal(bytes(data), name)
            assert said is None or re.fullmatch(
                r".*( is damaged or (not a|was not) | is refused: | is (an?|probably) | holds ).*", said
            )
    for name in ("text.pth", "old.pth"):
        with pytest.raises(
            ArtifactError, match=rf"^{name} is (damaged or was not written by torch\.save: \D|refused|a (text|tar))"
        ):
            checkpoint_file.read(wholes[name], name)


def refusal(data: bytes, name: str) -> str | None:
    try:
        checkpoint_file.read(data, name)
    except ArtifactError as error:
        return str(error)
    return None


def old_tar() -> bytes:
    """What torch wrote before 0.2: a tar with these members."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:") as tar:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            info = tarfile.TarInfo(name)
            info.size = 3
            tar.addfile(info, io.BytesIO(b"\x80\x02N"))
    return buffer.getvalue()


@pytest.mark.parametrize(
    "held",
    [
        {"a": torch.zeros(2, device="meta")},
        {"a": torch.eye(2).to_sparse()},
        {"a": torch.zeros(2, dtype=torch.complex64)},
        {1: torch.zeros(2)},
    ],
)
def test_tensors_without_their_numbers_or_their_names_are_refused(tmp_path: Path, held: Any) -> None:
    with pytest.raises(ArtifactError, match=r"x\.pth(: (a|1) are no plain tensors| is (refused|damaged))"):
        checkpoint_file.read(saved(tmp_path, "x.pth", held), "x.pth")


def test_another_kind_of_file_is_a_mistake() -> None:
    with pytest.raises(ConfigError, match=r"x\.nemo is neither \.safetensors, \.pth, .* nor \.ckpt; save the state"):
        checkpoint_file.read(b"", "x.nemo")
    with pytest.raises(ConfigError, match=r"model\.onnx is a file of ONNX"):
        checkpoint_file.read(b"", "model.onnx")
