"""What modules of the layer models import, and when; in one new process, since an import of torch takes a second."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from checkout import ROOT

CODE = """
import json, sys
import numpy as np
from models.statistics import compare_folds, compare_paired

imported = {}
one, other = np.eye(3, 8) > 0, np.eye(3, 8, 2) > 0
compare_paired(one, other), compare_paired(one[:1], other[:1]), compare_folds([one] * 3, [other] * 3, 0.5)
imported["a comparison"] = sorted(sys.modules)

import torch
from models.training.optim import AdamW, Optimizer, SGD, TFRMSProp

for rule in (AdamW(), SGD(), TFRMSProp()):
    Optimizer(rule, {"all": (torch.ones(3), torch.ones(3), 0.0)}, 0.1).step()
imported["a step"] = sorted(sys.modules)

from conf import schema
from models.networks.build import build_model

imported["the networks"] = sorted(sys.modules)
names = "resnet18", "squeezenet1_1", "efficientnet_b0"
built = [build_model(schema.Model(name), 10, device="meta") for name in names]
imported["a network"] = sorted(sys.modules)

from models.networks.complexity import count_model

for network in built:
    count_model(network, 64)
imported["a count"] = sorted(sys.modules)
print(json.dumps(imported))
"""


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def imported() -> dict[str, list[str]]:
    """All modules that are imported after each of these, one after the other."""
    done = subprocess.run([sys.executable, "-c", CODE], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    modules: dict[str, list[str]] = json.loads(done.stdout)
    return modules


def test_a_comparison_does_not_wait_for_the_import_of_all_of_scipy_s_statistics(imported: dict[str, list[str]]) -> None:
    assert "scipy.special" in imported["a comparison"]
    assert "scipy.stats" not in imported["a comparison"]


def test_an_optimizer_is_made_without_importing_torch_s_compiler(imported: dict[str, list[str]]) -> None:
    """It takes longer than all else that a process has to import."""
    assert "torch._dynamo" not in imported["a step"]


def test_a_network_is_counted_without_importing_torch_s_compiler(imported: dict[str, list[str]]) -> None:
    assert not {"torch._dynamo", "sympy"} & set(imported["a count"])


def test_pytorchcv_is_imported_file_by_file_and_only_when_needed(imported: dict[str, list[str]]) -> None:
    pytest.importorskip("pytorchcv", reason="the related work's networks: pip install --no-deps pytorchcv==0.0.74")
    assert not [name for name in imported["the networks"] if name.startswith("pytorchcv")]
    assert "pytorchcv.models.resnet" in imported["a network"]
    for name in ("torchvision", "pytorchcv.model_provider", "pytorchcv.models.senet"):
        assert name not in imported["a network"]
