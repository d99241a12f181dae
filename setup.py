"""Builds the C code of the image decoder if a compiler is available, which pyproject.toml cannot express.

The result is a plain shared library for ctypes and needs neither Python's headers nor libjpeg's. Without a compiler
the installation continues without it (``optional``), and decoding is slower (``effnet doctor`` reports it).
"""

from pathlib import Path

from setuptools import Extension, setup

NATIVE = Path("models/data/loading/native")

setup(
    ext_modules=[
        Extension(
            "models.data.loading.native._effnet",
            sources=sorted(str(path) for path in NATIVE.glob("*.c")),
            depends=sorted(str(path) for path in NATIVE.glob("*.h")),
            extra_compile_args=["-O3", "-ffp-contract=off"],  # identical rounding on every processor
            libraries=["m"],
            optional=True,
        )
    ]
)
