"""Three photographs that installed packages carry: two of scikit-learn, one of matplotlib.

Licenses: ``china.jpg`` and ``flower.jpg``, Creative Commons (scikit-learn's datasets/images/README.txt names the
photographers); ``grace_hopper.jpg`` is a photograph of the U.S. Navy. Nothing of them is redistributed.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from infra.errors import NotFoundError

PHOTOGRAPHS = {
    "china": ("sklearn", "datasets/images/china.jpg"),
    "flower": ("sklearn", "datasets/images/flower.jpg"),
    "grace_hopper": ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
}


def read(name: str) -> bytes:
    """Returns the JPEG of one of ``PHOTOGRAPHS``; its package is located, not imported.

    Raises:
        NotFoundError: The package is not installed, or was installed without its data files.
    """
    package, file = PHOTOGRAPHS[name]
    spec = find_spec(package)
    path = Path(next(iter(spec.submodule_search_locations or ()), "")) / file if spec else None
    if path is None or not path.is_file():
        raise NotFoundError(f"the photograph {file} of {package} is not installed; run `make setup`")
    return path.read_bytes()
