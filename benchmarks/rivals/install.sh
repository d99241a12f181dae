#!/bin/sh
# The rivals' own environment, .venv-rivals: their pins must not touch ours. Run from the root: make rivals.
# A rival that does not install is no error: the benchmark then says that it is absent, and why.
set -u
PYTHON=${PYTHON:-python3}
BIN=.venv-rivals/bin
pip() { "$BIN/pip" install --quiet --disable-pip-version-check "$@"; }

"$PYTHON" -m venv .venv-rivals || exit 1

# torch first, and the version that ours has: whatever came before it could pull in another, with CUDA.
# Where PyPI's torch would bring gigabytes of CUDA: PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
pip torch==2.13.0 || exit 1
# torchvision is left out on purpose: it cannot be imported beside a CPU-only torch.
pip webdataset==1.0.2 pillow==13.0.0 numpy==2.4.6 || exit 1

# Only its files of networks are used; its list of requirements asks for more than they need.
pip --no-deps pytorchcv==0.0.74 || echo "rivals: no pytorchcv (see above)" >&2

# DALI: "nvidia-dali" on PyPI is an empty package; the real ones end in the CUDA version. It runs without a GPU,
# but dies without a message at its first JPEG unless nvimgcodec came with all its codecs.
pip nvidia-dali-cuda120==2.4.0 "nvidia-nvimgcodec-cu12[all]==0.9.0.20" || echo "rivals: no DALI (see above)" >&2

# FFCV has no wheels. It wants pkg-config and the headers of OpenCV and TurboJPEG; on Debian and Ubuntu:
if ! pkg-config --exists opencv4 libturbojpeg 2>/dev/null && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        g++ pkg-config libopencv-dev libturbojpeg0-dev >/dev/null
fi
if pkg-config --exists opencv4 libturbojpeg; then
    # Its setup.py imports numpy, hence no build isolation; its list of requirements asks for torchvision and
    # opencv-python, hence none of them: what it needs when it runs stands here.
    pip setuptools wheel numba==0.68.1 opencv-python-headless assertpy tqdm \
        && pip --no-build-isolation --no-deps ffcv==1.0.2 \
        || echo "rivals: no FFCV (see above)" >&2
else
    echo "rivals: no FFCV: it needs g++, pkg-config, libopencv-dev and libturbojpeg0-dev (apt-get install ...)" >&2
fi
