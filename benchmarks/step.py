"""A training step and an evaluation step beside the same network of pytorchcv and of timm, in a plain good loop.

Ours is the engine itself (``models/training/step.py``): forward, backward, message, masked TF-RMSProp, average. The
rival's loop is what a good engineer writes: the same normalisation, channels_last, autocast and compile setting,
``torch.optim.RMSprop(foreach=True)`` and an average by ``torch._foreach_lerp_``. Both have the same batches of uint8
images in memory, take turns, and the medians of whole steps count. On a CUDA machine the networks are larger and the
batches those of a real run. On a CPU there are also the small networks of ``profile=laptop``, as one rank of such a
job trains them: 32 images a step, one thread. Rivals come with ``make rivals``; an absent one is reported as such.
"""

from __future__ import annotations

import importlib
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks import harness
from conf import compose, schema
from infra import machine
from infra.launch.command import job_environment
from models.data.loading.loader import Batch
from models.networks.build import build_model, compute_cost, resolve_architecture
from models.networks.efficientnet.preprocessing import Normalize
from models.training.checkpoints import state as states
from models.training.checkpoints.state import TrainState
from models.training.distributed import Ranks
from models.training.step import Stepper
from models.training.supervision.faults import Faults
from models.training.supervision.watchdog import Watchdog

RIVALS = Path(__file__).parents[1] / ".venv-rivals"
Step = Callable[[], None]
BANDWIDTH_TB_S = {"H100": 3.35, "H200": 4.8, "A100": 2.0}  # of the data sheets


@dataclass(frozen=True)
class Case:
    """One network at one size."""

    name: str  # b0 .. b7
    side: int  # pixels
    batch: int
    laptop: schema.Config | None = None  # the configuration of a laptop's job, with its multipliers and threads

    @property
    def label(self) -> str:
        """Name in the report."""
        return f"laptop_{self.name}" if self.laptop else self.name

    @property
    def model(self) -> schema.Model:
        """The network."""
        name = f"efficientnet_{self.name}"
        return replace(self.laptop.model, name=name) if self.laptop else schema.Model(name=name)

    @property
    def classes(self) -> int:
        """Width of the classifier."""
        return 10 if self.laptop else 1000


CPU_CASES = (Case("b0", 224, 16), Case("b3", 300, 8), Case("b7", 160, 8))
LAPTOP_NETWORKS = ("b0", "b4", "b7")
CUDA_CASES = (Case("b0", 224, 256), Case("b4", 380, 128))


def main() -> None:
    """Runs the benchmark."""
    options = harness.arguments(__doc__ or "", n=7)
    wanted = job_environment(schema.Launch(), machine.cores(), "")
    if "MALLOC_TRIM_THRESHOLD_" not in os.environ:  # both sides run as our jobs do; malloc reads it once, at the start
        os.execve(sys.executable, [sys.executable, "-m", "benchmarks.step", *sys.argv[1:]], os.environ | wanted)  # noqa: S606
    report = harness.Report(options.n)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    report.notes.append(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, on "
        + (torch.cuda.get_device_name() if device.type == "cuda" else "the CPU")
    )
    rivals = _rivals(report)
    for case in CUDA_CASES if device.type == "cuda" else CPU_CASES:
        _compare(case, device, False, rivals, report, options.n)
    if device.type == "cpu":
        _compare_laptop(device, rivals, report, options.n)
    if device.type == "cuda":  # B0 alone: compiling takes a minute a side
        _compare(CUDA_CASES[0], device, True, rivals, report, options.n)
    harness.show(report, options.json)


def _compare_laptop(
    device: torch.device, rivals: dict[str, Callable[[Case], nn.Module]], report: harness.Report, n: int
) -> None:
    """Measures the networks of ``profile=laptop`` as one rank of a job trains them."""
    config = compose.compose(["profile=laptop"])
    batch = config.recipe.global_batch // config.recipe.batch_slices
    torch.set_num_threads(config.launch.threads_per_proc or 1)
    report.notes.append(f"laptop: {batch} images a step, {torch.get_num_threads()} thread, {5 * n} steps of each side")
    at_this_size = {name: build for name, build in rivals.items() if name == "pytorchcv"}  # timm rounds otherwise
    for name in LAPTOP_NETWORKS:
        side = resolve_architecture(Case(name, 0, batch, config).model).resolution
        _compare(Case(name, side, batch, config), device, False, at_this_size, report, 5 * n)


def _rivals(report: harness.Report) -> dict[str, Callable[[Case], nn.Module]]:
    """What can be imported here, by name; the rest is noted as absent."""
    sys.path += [str(p) for p in RIVALS.glob("lib/python*/site-packages")]  # behind ours, whose torch both use
    found: dict[str, Callable[[Case], nn.Module]] = {}
    for name, module, build in (("pytorchcv", "pytorchcv.models.efficientnet", _pytorchcv), ("timm", "timm", _timm)):
        try:
            importlib.import_module(module)
            found[name] = build
        except (ImportError, RuntimeError, AttributeError) as error:
            report.notes.append(f"{name} is absent: {str(error).splitlines()[0]}")
    return found


def _pytorchcv(case: Case) -> nn.Module:
    module = importlib.import_module("pytorchcv.models.efficientnet")
    if not case.laptop:
        return cast(nn.Module, getattr(module, f"efficientnet_{case.name}")())
    arch = resolve_architecture(case.model)
    network = module.EfficientNet(
        channels=[[stage.channels] * stage.repeats for stage in arch.stages],
        init_block_channels=arch.stem,
        final_block_channels=arch.head,
        kernel_sizes=[[stage.kernel] * stage.repeats for stage in arch.stages],
        strides_per_stage=[stage.stride for stage in arch.stages],
        expansion_factors=[[stage.expand_ratio] * stage.repeats for stage in arch.stages],
        dropout_rate=arch.dropout,
        in_size=(case.side, case.side),
        num_classes=case.classes,
    )
    parameters = sum(p.numel() for p in network.parameters())
    expected = compute_cost(case.model, case.classes)[0]
    assert parameters == expected, f"pytorchcv's {case.label} has {parameters} parameters, ours has {expected}"
    return cast(nn.Module, network)


def _timm(case: Case) -> nn.Module:
    return cast(
        nn.Module, importlib.import_module("timm").create_model(f"efficientnet_{case.name}", drop_path_rate=0.2)
    )


def _compare(
    case: Case, device: torch.device, compiled: bool, rivals: dict[str, Any], report: harness.Report, n: int
) -> None:
    """Measures one case: a side after the other is set up, then all take turns."""
    label = case.label + ("_compiled" if compiled else "")
    modes = (("", _ours, _theirs), ("_eval", _our_evaluation, _evaluation))
    for mode, ours, theirs in modes[:1] if compiled else modes:
        batches = batch_of(case, device)
        sides: dict[str, Step] = {}
        torch.cuda.reset_peak_memory_stats() if device.type == "cuda" else None
        sides["ours"], network = ours(case, device, compiled, batches)
        first_s = _timed(sides["ours"], device)
        if mode == "" and compiled:
            report.add(f"{label} first step, compiling", [first_s], "s")
        for name, build in rivals.items():
            torch.manual_seed(0)
            sides[name] = theirs(build(case), device, compiled, batches)
        times: dict[str, list[float]] = {name: [] for name in sides}
        for turn in range(n + 2):
            for name, step in sides.items():
                seconds = _timed(step, device, repeat=10 if device.type == "cuda" else 1)
                if turn >= 2:
                    times[name].append(seconds)
        medians = {
            name: report.add(f"{label}{mode} {name}", [case.batch / t for t in found], "images/s")
            for name, found in times.items()
        }
        sys.stderr.write(f"{label}{mode}: {medians}\n")  # a long run tells how far it has come
        for name in rivals:
            report.ratios[f"{label}{mode}/{name}"] = medians["ours"] / medians[name]
        if device.type == "cuda" and mode == "":
            _bandwidth(label, network, case, device, statistics.median(times["ours"]), report)
        del sides, network
        torch.compiler.reset()
        torch.cuda.empty_cache() if device.type == "cuda" else None


def _timed(step: Step, device: torch.device, repeat: int = 1) -> float:
    began = time.perf_counter()
    for _ in range(repeat):
        step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - began) / repeat


def batch_of(case: Case, device: torch.device) -> Batch:
    """Random images in memory."""
    generator = torch.Generator().manual_seed(0)
    shape = (case.batch, case.side, case.side, 3)
    images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8).to(device)
    labels = torch.randint(0, case.classes, (case.batch,), generator=generator).to(device)
    return Batch(images, labels, np.arange(case.batch))


class _NoWatchdog:
    """Nobody waits for anybody here."""

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """See ``Watchdog``."""
        yield


def _network(case: Case, device: torch.device) -> Any:
    torch.manual_seed(0)
    network = build_model(case.model, case.classes)
    return network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def _ours(case: Case, device: torch.device, compiled: bool, batch: Batch) -> tuple[Step, nn.Module]:
    step, state = our_step(case, device, compiled, batch)
    return step, state.network


def our_step(case: Case, device: torch.device, compiled: bool, batch: Batch) -> tuple[Step, TrainState]:
    """The engine on one network: a function that makes a step, and what it changes."""
    recipe = schema.Recipe(global_batch=case.batch, batch_slices=1, warmup_epochs=0.0)
    job = schema.Job(kind="train", model=case.model, recipe=recipe)
    network = _network(case, device)
    state = states.initial_state(network, recipe)
    if compiled:
        network.compile()
    ranks = Ranks(0, 1, device)
    stepper = Stepper(job, ranks, state, 1000, cast(Watchdog, _NoWatchdog()), Faults("file:///nowhere", 0))

    def step() -> None:
        stepper.step(batch, False)
        stepper.outcomes()

    return step, state


def _theirs(model: nn.Module, device: torch.device, compiled: bool, batch: Batch) -> Step:
    """A plain loop over another network."""
    model = model.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimizer = torch.optim.RMSprop(
        model.parameters(), lr=1e-3, alpha=0.9, eps=1e-3, momentum=0.9, weight_decay=1e-5, foreach=True
    )
    values = [t for t in model.state_dict().values() if t.is_floating_point()]
    average = [t.clone() for t in values]
    criterion, normalise = nn.CrossEntropyLoss(label_smoothing=0.1), Normalize(device)
    if compiled:
        model.compile()

    def step() -> None:
        images = normalise(batch.images)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            loss = criterion(model(images), batch.labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(average, values, 1e-4)

    return step


def _our_evaluation(case: Case, device: torch.device, compiled: bool, batch: Batch) -> tuple[Step, nn.Module]:
    network = _network(case, device)
    return _evaluation(network, device, compiled, batch), network


def _evaluation(model: nn.Module, device: torch.device, compiled: bool, batch: Batch) -> Step:
    model = model.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    normalise = Normalize(device)
    if compiled:
        model.compile()

    def step() -> None:
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            model(normalise(batch.images))

    return step


def _bandwidth(
    label: str, network: nn.Module, case: Case, device: torch.device, seconds: float, report: harness.Report
) -> None:
    """An estimate of the bytes that a step must move at least, by the time that it took."""
    moved = _least_bytes(network, case)
    report.add(f"{label} ours, bandwidth (estimate)", [moved / seconds / 1e12], "TB/s")
    name = torch.cuda.get_device_name()
    for known, peak in BANDWIDTH_TB_S.items():
        if known in name:
            report.add(f"{label} ours, share of {peak} TB/s", [moved / seconds / 1e12 / peak], "")
    report.add(f"{label} peak memory of all sides", [torch.cuda.max_memory_allocated(device) / 1e9], "GB")


def _least_bytes(network: nn.Module, case: Case) -> float:
    """What a training step moves if every value is moved as seldom as can be without fusing layers.

    Each output of a convolution, batch norm, activation or linear layer, in bf16: written once and read once
    forward, read once and its gradient written and read backward (5 times 2 bytes); each parameter 48 bytes for
    gradient, optimizer and average.
    """
    outputs: list[int] = []

    def note(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
        outputs.append(output[0].numel())

    kinds = (nn.Conv2d, nn.BatchNorm2d, nn.SiLU, nn.Linear)
    fresh = build_model(case.model, case.classes, device="meta").eval()
    handles = [m.register_forward_hook(note) for m in fresh.modules() if isinstance(m, kinds)]
    fresh(torch.empty(1, 3, case.side, case.side, device="meta"))
    for handle in handles:
        handle.remove()
    return case.batch * sum(outputs) * 5 * 2 + sum(p.numel() for p in network.parameters()) * 48


if __name__ == "__main__":
    main()
