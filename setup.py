"""Builds the C code of the image decoder and of the layers if a compiler is available.

The results are plain shared libraries for ctypes and need neither Python's headers nor those of libjpeg or torch.
Without a compiler the installation continues without them (``optional``): decoding (``effnet doctor`` reports it) and
training on a CPU are slower.
"""

from pathlib import Path

from setuptools import Extension, setup


def library(name: str, *options: str) -> Extension:
    """Describes a library built from all C files of its package."""
    package = Path(*name.split(".")[:-1])
    return Extension(
        name,
        sources=sorted(str(path) for path in package.glob("*.c")),
        depends=sorted(str(path) for path in package.glob("*.h")),
        extra_compile_args=["-O3", *options],
        libraries=["m"],
        optional=True,
    )


setup(
    ext_modules=[
        library("models.data.loading.native._effnet", "-ffp-contract=off"),  # identical rounding on every processor
        library("models.networks.native._layers", "-ffp-contract=fast", "-fno-math-errno"),
    ]
)
