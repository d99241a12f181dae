"""The folder that becomes a registered model: written by MLflow, checked here before anything is uploaded.

::

    MLmodel  requirements.txt  conda.yaml  python_env.yaml
    data/model.pt2                     torch.export of the network; any process runs it, nobody can train it
    extra_files/weights.safetensors    the same weights, for evaluation, CAMs and fine-tuning
    extra_files/config.json            how to build the network they belong to
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
FILES_FOLDER = "extra_files"  # MLflow's word
MAX_EXAMPLE_BYTES = 256 * 1024  # MLflow writes the example as JSON, twice, ten times its size
TOLERANCE = 1e-4  # of logits, absolute and relative; another batch size may choose another convolution


def build(folder: Path, files: Path, module: Any, example: NDArray[np.float32], logits: NDArray[np.float32]) -> Model:
    """Writes the folder and runs what it wrote.

    Args:
        folder: does not exist yet.
        files: holds ``weights.safetensors`` and ``config.json``.
        module: an ``nn.Module`` in evaluation mode, on the CPU.
        example: images ``[2, 3, R, R]``; one alone would fix the batch size at 1.
        logits: ``[2, classes]``, what ``module`` answers to them.

    Returns:
        MLflow's description, to be saved again once the model has an id.

    Raises:
        ArtifactError: the written program does not answer as ``module`` does, or only for 2 images.
    """
    library()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow warns about its own type hints, torch.export about itself
        import mlflow.pyfunc

        try:
            model = _export(folder, files, module, example, logits)
            _check(mlflow.pyfunc.load_model(str(folder)), example, logits)
        except mlflow.MlflowException as error:  # further out it would look like a failure of the server
            raise ArtifactError(f"the network cannot be packed: {error}") from error
    return model


def save(folder: Path, model: Model) -> None:
    """Writes the description over the older one."""
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
    # Without it MLflow asks for the GPU where there is one, and then refuses the program, which is for the
    # CPU: an exported program cannot be moved.
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
    """``2.13.0+cpu`` is no version that an index has."""
    return version(package).partition("+")[0]


def _check(served: Any, example: NDArray[np.float32], logits: NDArray[np.float32]) -> None:
    """Three images, not two: a program whose batch size was frozen by the export fails here."""
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
