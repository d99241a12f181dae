"""The one thing that pyproject.toml cannot say: the C code of the decoder is built when there is a compiler.

It is a plain shared library for ctypes: neither Python's headers nor libjpeg's are needed. Without a compiler the
installation goes on without it (``optional``), and decoding is slower (``effnet doctor`` tells).
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
            extra_compile_args=["-O3", "-ffp-contract=off"],  # the same roundings on every processor
            libraries=["m"],
            optional=True,
        )
    ]
)
