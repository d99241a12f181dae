"""Builds the folder of a registered model with MLflow and verifies it before the upload.

::

    MLmodel  requirements.txt  conda.yaml  python_env.yaml
    data/model.pt2                     torch.export of the network; runs in any process, cannot be trained
    extra_files/weights.safetensors    the same weights, for evaluation, CAMs and fine-tuning
    extra_files/config.json            how to build the network of these weights
"""

from __future__ import annotations

import warnings
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.errors import ArtifactError, first_line
from infra.tracking.client import library

if TYPE_CHECKING:
    import numpy as np
    from mlflow.models import Model
    from numpy.typing import NDArray

WEIGHTS, CONFIG = "weights.safetensors", "config.json"
FILES_FOLDER = "extra_files"  # MLflow's name
MAX_EXAMPLE_BYTES = 256 * 1024  # MLflow writes the example as JSON, twice, ten times its size
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
    return model


def save(folder: Path, model: Model) -> None:
    """Overwrites the description in the folder."""
    model.model_size_bytes = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    model.save(str(folder / "MLmodel"))


def _export(folder: Path, files: Path, module: Any, example: NDArray[np.float32], logits: NDArray[np.float32]) -> Model:
    import mlflow.pytorch
    from mlflow.models import Model

    model = Model()
    mlflow.pytorch.save_model(
        module,
        str(folder),
        mlflow_model=model,
        signature=_signature(example, logits),
        input_example=example,
        extra_files=[str(files / WEIGHTS), str(files / CONFIG)],
        pip_requirements=[f"{name}=={_release(name)}" for name in ("mlflow", "numpy", "torch")],
        serialization_format="pt2",
    )
    # Without it MLflow selects a GPU if one is present and then refuses the program, which was exported for
    # the CPU and cannot be moved.
    model.flavors["python_function"]["config"] = {"device": "cpu"}
    if example.nbytes > MAX_EXAMPLE_BYTES:
        model.saved_input_example_info = None
        for name in ("input_example.json", "serving_input_example.json"):
            (folder / name).unlink()
    save(folder, model)
    return model


def _signature(example: NDArray[np.float32], logits: NDArray[np.float32]) -> Any:
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    inputs, outputs = (TensorSpec(a.dtype, (-1, *a.shape[1:])) for a in (example, logits))
    return ModelSignature(inputs=Schema([inputs]), outputs=Schema([outputs]))


def _release(package: str) -> str:
    """Returns the version without its local part: package indexes have no ``2.13.0+cpu``."""
    return version(package).partition("+")[0]


def _check(served: Any, example: NDArray[np.float32], logits: NDArray[np.float32]) -> None:
    """Runs three images, not two: fails if the export froze the batch size."""
    import numpy as np

    images, expected = (np.concatenate([a, a[:1]]) for a in (example, logits))
    try:
        answer = served.predict(images)
    except (RuntimeError, AssertionError) as error:  # torch.export's guards
        message = (
            f"the exported network runs with {len(example)} images and not with {len(images)}: {first_line(error)}"
        )
        raise ArtifactError(message) from error
    if answer.shape != expected.shape or not np.allclose(answer, expected, TOLERANCE, TOLERANCE):
        worst = float(np.abs(answer - expected).max()) if answer.shape == expected.shape else answer.shape
        raise ArtifactError(f"the exported network answers differently: off by {worst}, allowed {TOLERANCE}")
