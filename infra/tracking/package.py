"""Builds the folder of a registered model with MLflow and verifies it before the upload.

::

    MLmodel  requirements.txt  conda.yaml  python_env.yaml
    data/model.pt2                     torch.export of the network; runs in any process, cannot be trained
    code/effnet_predictor_DIGEST.py    predictor.py: the transform from image files and pixels to its input
    extra_files/weights.safetensors    the same weights, for evaluation, CAMs and fine-tuning
    extra_files/config.json            how to build the network of these weights

``mlflow.pyfunc`` takes images and gives classes; ``mlflow.pytorch`` takes normalized tensors and gives logits.
"""

from __future__ import annotations

import base64
import hashlib
import io
import shutil
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.errors import ArtifactError, first_line
from infra.tracking import predictor
from infra.tracking.client import library
from infra.tracking.registry import CONFIG, WEIGHTS

if TYPE_CHECKING:
    import numpy as np
    from mlflow.models import Model
    from numpy.typing import NDArray

EXAMPLE_PX = 32  # side of the example image, which is stored as base64 of a PNG
TOLERANCE = 1e-4  # of logits, absolute and relative; another batch size may choose another convolution


def build(folder: Path, files: Path, module: Any, example: NDArray[np.float32], logits: NDArray[np.float32]) -> Model:
    """Writes the folder, then loads and runs the written model.

    Args:
        folder: The target folder, which must not exist.
        files: The folder with ``weights.safetensors`` and ``config.json``.
        module: An ``nn.Module`` in evaluation mode, on the CPU.
        example: Images ``[2, 3, R, R]``; a single image would fix the batch size at 1.
        logits: Output of ``module`` for them, ``[2, classes]``.

    Returns:
        MLflow's description, to be saved again when the model has an id.

    Raises:
        ArtifactError: The output of the written program differs from ``module``, or it only accepts 2 images.
    """
    library()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow warns about its own type hints, torch.export about itself
        import mlflow.pyfunc

        try:
            model = _export(folder, files, module, example, logits)
            _check(mlflow.pyfunc.load_model(str(folder)), example, logits)
        except mlflow.MlflowException as error:  # callers would mistake it for a failure of the server
            raise ArtifactError(f"the network cannot be packed: {error}") from error
    shutil.rmtree(folder / "code" / "__pycache__", ignore_errors=True)  # of the trial
    return model


def save(folder: Path, model: Model) -> None:
    """Overwrites the description in the folder."""
    model.model_size_bytes = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    model.save(str(folder / "MLmodel"))


def _export(folder: Path, files: Path, module: Any, example: NDArray[np.float32], logits: NDArray[np.float32]) -> Model:
    import mlflow.pytorch
    from mlflow.models import Model
    from mlflow.models.utils import _save_example

    model = Model()
    mlflow.pytorch.save_model(
        module,
        str(folder),
        mlflow_model=model,
        signature=_tensors(example, logits),
        input_example=example,
        extra_files=[str(files / WEIGHTS), str(files / CONFIG)],
        pip_requirements=[f"{name}=={_release(name)}" for name in ("mlflow", "numpy", "pandas", "pillow", "torch")],
        serialization_format="pt2",
    )
    # Without it MLflow selects a GPU if one is present and then refuses the program, which was exported for
    # the CPU and cannot be moved.
    served = {"config": {"device": "cpu"}, "loader_module": _copy_predictor(folder), "code": "code"}
    model.flavors["python_function"].update(served)
    # In place of the tensors, from which MLflow exported the network.
    model.signature = _signature()
    _save_example(model, _example(), str(folder))
    save(folder, model)
    return model


def _copy_predictor(folder: Path) -> str:
    """Copies the predictor into the package; returns the name of the module.

    The digest is part of the name: a process that loads packages of two releases would else run the first one's code.
    """
    source = Path(predictor.__file__)
    name = f"effnet_predictor_{hashlib.sha256(source.read_bytes()).hexdigest()[:8]}"
    (folder / "code").mkdir()
    shutil.copyfile(source, folder / "code" / f"{name}.py")
    return name


def _tensors(example: NDArray[np.float32], logits: NDArray[np.float32]) -> Any:
    """The signature of the network alone; its -1 makes the batch size of the export dynamic."""
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    inputs, outputs = (TensorSpec(a.dtype, (-1, *a.shape[1:])) for a in (example, logits))
    return ModelSignature(inputs=Schema([inputs]), outputs=Schema([outputs]))


def _signature() -> Any:
    """The signature of the package."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema
    from mlflow.types.schema import AnyType, Array

    # An image is bytes, base64 or an array; no single type of MLflow's is all of these.
    columns = {"class": DataType.string, "probability": DataType.float, "logits": Array(DataType.float)}
    outputs = Schema([ColSpec(kind, name) for name, kind in columns.items()])
    return ModelSignature(inputs=Schema([ColSpec(AnyType(), predictor.COLUMN)]), outputs=outputs)


def _example() -> Any:
    """A DataFrame with one image as base64, as MLflow's server receives it."""
    import numpy as np
    import pandas as pd
    from PIL import Image

    ramp = np.linspace(0, 255, EXAMPLE_PX, dtype=np.uint8)
    pixels = np.stack([*np.meshgrid(ramp, ramp), np.full((EXAMPLE_PX, EXAMPLE_PX), 128, np.uint8)], axis=2)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return pd.DataFrame({predictor.COLUMN: [base64.b64encode(file.getvalue()).decode()]})


def _release(package: str) -> str:
    """Returns the version without its local part: package indexes have no ``2.13.0+cpu``."""
    return version(package).partition("+")[0]


def _check(served: Any, example: NDArray[np.float32], logits: NDArray[np.float32]) -> None:
    """Runs three images, not two: fails if the export froze the batch size. Then one as a file."""
    import numpy as np
    import pandas as pd

    images, expected = (np.concatenate([a, a[:1]]) for a in (example, logits))
    try:
        answers = served.predict(pd.DataFrame({predictor.COLUMN: list(images)}))
        answer = np.array(answers["logits"].tolist(), np.float32)
        served.predict(_example())
    except (RuntimeError, AssertionError) as error:  # torch.export's guards
        message = (
            f"the exported network runs with {len(example)} images and not with {len(images)}: {first_line(error)}"
        )
        raise ArtifactError(message) from error
    if answer.shape != expected.shape or not np.allclose(answer, expected, TOLERANCE, TOLERANCE):
        worst = float(np.abs(answer - expected).max()) if answer.shape == expected.shape else answer.shape
        raise ArtifactError(f"the exported network answers differently: off by {worst}, allowed {TOLERANCE}")
