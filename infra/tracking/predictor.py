"""Code of a registered package, which runs without effnet: images in, classes, probabilities and logits out.

``package.py`` copies this file into the package, and MLflow loads it with ``mlflow.pyfunc.load_model``. It imports
nothing of effnet: NumPy, Pillow, pandas and MLflow only. The transform is the evaluation's, with Pillow's decoder.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

COLUMN = "image"
MAX_PIXELS = 64 * 1024 * 1024
BATCH = 32  # images of a forward pass


class Predictor:
    """A registered network with the input transform of its ``config.json``.

    Args:
        network: MLflow's wrapper of the exported network, from normalized images ``[N, 3, R, R]`` to logits
            ``[N, classes]``.
        config: Contents of ``config.json``.
    """

    def __init__(self, network: Any, config: Mapping[str, Any]) -> None:
        self.network = network
        self.class_names: list[str] = list(config["class_names"])
        self.side, self.crop_pad = int(config["input"]["resolution"]), int(config["input"]["crop_pad"])
        self.is_squashed = config["input"].get("crop_mode") == "squash"
        self.resample = Image.Resampling[str(config["input"].get("interpolation", "bicubic")).upper()]
        self.mean, self.std = (np.array(config["input"][key], np.float32) for key in ("mean", "std"))

    def predict(self, model_input: Any, params: Mapping[str, Any] | None = None) -> Any:  # noqa: ARG002 - MLflow's protocol
        """Classifies the images of the column ``image``.

        Args:
            model_input: DataFrame. An image is a JPEG or PNG file as bytes or in base64, pixels ``[H, W, 3]`` of 0 to
                255 as integers, or a normalized image ``[3, R, R]`` as floats.
            params: Not used.

        Returns:
            DataFrame with the most probable class, its probability, and the logits of all classes.

        Raises:
            ValueError: An image cannot be used; the message names its row.
        """
        import pandas as pd

        rows = list(model_input[COLUMN])
        images = np.stack([self._prepare(row, value) for row, value in enumerate(rows)])
        logits = np.concatenate([self.network.predict(images[i : i + BATCH]) for i in range(0, len(images), BATCH)])
        exponentials = np.exp(logits - logits.max(1, keepdims=True))
        best = logits.argmax(1)
        return pd.DataFrame(
            {
                "class": [self.class_names[label] for label in best],
                "probability": (exponentials.max(1) / exponentials.sum(1)).astype(np.float32),
                "logits": [row.tolist() for row in logits],
            },
            index=model_input.index,
        )

    def _prepare(self, row: int, value: Any) -> NDArray[np.float32]:
        """Returns the normalized image ``[3, R, R]``."""
        try:
            if isinstance(value, (str, bytes, bytearray)):
                return self.transform(read_image(value))
            array = np.asarray(value)
        except ValueError as error:
            raise ValueError(f"image {row}: {error}") from error
        if array.ndim == 3 and array.shape[2] == 3 and array.dtype.kind in "ui":
            if array.size and array.min() >= 0 and array.max() <= 255:
                return self.transform(array.astype(np.uint8))
            raise ValueError(f"image {row}: pixels are 0 to 255, in an image of at least one pixel")
        if array.shape == (3, self.side, self.side) and array.dtype.kind == "f":
            return array.astype(np.float32)
        raise ValueError(
            f"image {row} is {array.dtype} {list(array.shape)}: send a JPEG or PNG file as bytes or in base64, integer "
            f"pixels [H, W, 3], or a normalized image [3, {self.side}, {self.side}] as floats"
        )

    def transform(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Crops the central box, resizes it to a square and normalizes it: ``[H, W, 3]`` to ``[3, R, R]``."""
        height, width = pixels.shape[:2]
        sizes = (width, height) if self.is_squashed else (min(width, height),) * 2
        w, h = (max(int(self.side / (self.side + self.crop_pad) * size), 1) for size in sizes)
        left, top = (width - w + 1) // 2, (height - h + 1) // 2
        crop = Image.fromarray(pixels[top : top + h, left : left + w])
        # Always horizontally first, as in the evaluation.
        wide = crop.resize((self.side, h), self.resample)
        square = np.asarray(wide.resize((self.side, self.side), self.resample))
        normalized = (square.astype(np.float32) / 255 - self.mean) / self.std
        return np.ascontiguousarray(normalized.transpose(2, 0, 1), np.float32)


def read_image(value: str | bytes | bytearray) -> NDArray[np.uint8]:
    """Decodes a JPEG or PNG file, or its base64, to RGB pixels ``[H, W, 3]`` as stored, without EXIF orientation.

    Raises:
        ValueError: It is no such file, is damaged, or has more than 64 megapixels.
    """
    try:
        data = base64.b64decode(value, validate=True) if isinstance(value, str) else bytes(value)
        image: Image.Image = Image.open(io.BytesIO(data), formats=("JPEG", "PNG"))
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(f"{image.width} x {image.height} pixels are more than {MAX_PIXELS}")
        if image.mode == "I;16":  # Pillow would clip 16-bit gray to white
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        image.info.pop("transparency", None)  # the colors under alpha are kept
        return np.asarray(image.convert("RGB"))
    except Exception as error:  # Pillow's parsers raise a dozen kinds on damaged files
        raise ValueError(f"neither a JPEG or PNG file nor its base64: {error}") from error


def _load_pyfunc(path: str, model_config: Mapping[str, Any] | None = None) -> Predictor:
    """Loads the package; called by MLflow with the folder of the exported network."""
    import mlflow.pytorch

    config = json.loads((Path(path).parent / "extra_files" / "config.json").read_text(encoding="utf-8"))
    return Predictor(mlflow.pytorch._load_pyfunc(path, model_config), config)
