"""The related work's networks against exact counts of other libraries, and pytorchcv's own with the same weights.

Counts: torchvision 0.28.0, timm 1.0.31, pytorchcv 0.0.74 under the same names, by torch's FLOP counter on meta tensors.
"""

import copy
import hashlib
import sys
from importlib import import_module

import pytest
import torch
from matrix import with_slow_rest
from torch import Tensor, nn

from conf import schema
from infra import store
from infra.errors import ArtifactError, ConfigError
from models.networks import export, weights
from models.networks.baseline_classifiers import Baseline
from models.networks.baselines import BASELINES
from models.networks.build import build_model, compute_cost, feature_params, network_names

pytest.importorskip("pytorchcv", reason="the related work's networks: pip install --no-deps pytorchcv==0.0.74")

# fmt: off
#                        px   parameters   multiply-adds
FACTS = [
    ("resnet18",           224, 11_689_512,  1_814_073_344),
    ("resnet34",           224, 21_797_672,  3_663_761_408),
    ("resnet50",           224, 25_557_032,  4_089_184_256),
    ("resnet101",          224, 44_549_160,  7_801_405_440),
    ("resnet152",          224, 60_192_808,  11_513_626_624),
    ("resnet200",          224, 64_673_832,  15_007_481_856),
    ("wide_resnet50_2",    224, 68_883_240,  11_398_021_120),
    ("wide_resnet101_2",   224, 126_886_696, 22_753_050_624),
    ("wrn28_10_cifar10",   32,  36_479_194,  5_243_328_768),
    ("wrn28_10_cifar100",  32,  36_536_884,  5_243_386_368),
    ("resnext50_32x4d",    224, 25_028_904,  4_230_479_872),
    ("resnext101_32x8d",   224, 88_791_336,  16_414_015_488),
    ("resnext101_64x4d",   224, 83_455_272,  15_460_270_080),
    ("resnext101_64x4d",   320, 83_455_272,  31_549_440_000),  # the 32B of Table 2
    ("seresnet50",         224, 28_088_024,  4_091_699_200),
    ("seresnet101",        224, 49_326_872,  7_806_148_608),
    ("legacy_seresnet152", 224, 66_821_848,  11_288_993_792),
    ("legacy_senet154",    224, 115_088_984, 20_688_363_520),
    ("legacy_senet154",    320, 115_088_984, 42_212_171_776),  # the 42B of Table 2
    ("squeezenet1_0",      224, 1_248_424,   818_924_576),
    ("squeezenet1_1",      224, 1_235_496,   349_151_936),
    ("mobilenetv1_100",    224, 4_231_976,   568_740_352),
    ("mobilenet_w3d4",     224, 2_585_560,   325_400_448),
    ("mobilenet_wd2",      224, 1_331_592,   149_497_088),
    ("mobilenet_wd4",      224, 470_072,     41_030_272),
    ("mobilenet_v2",       224, 3_504_872,   300_774_272),
    ("mobilenetv2_140",    224, 6_108_776,   582_195_824),
    ("shufflenet_g1_w1",   224, 1_531_936,   143_078_976),
    ("shufflenet_g2_w1",   224, 1_733_848,   140_836_512),
    ("shufflenet_g3_w1",   224, 1_865_728,   137_460_672),
    ("shufflenet_g4_w1",   224, 1_968_344,   134_339_776),
    ("shufflenet_g8_w1",   224, 2_434_768,   138_365_952),
    ("shufflenet_g3_wd2",  224, 718_324,     37_589_856),
    ("shufflenet_v2_x0_5", 224, 1_366_792,   40_476_448),
    ("shufflenet_v2_x1_0", 224, 2_278_604,   144_907_992),
    ("shufflenet_v2_x1_5", 224, 3_503_624,   295_759_392),
    ("shufflenet_v2_x2_0", 224, 7_393_996,   583_253_464),
]
CLASSES = {"wrn28_10_cifar10": 10, "wrn28_10_cifar100": 100}
# fmt: on
# Each of them at a size that a CPU trains in no time.
SMALL = {name: schema.Model(name, 0.25, 0.2, 32 / rival.resolution) for name, rival in BASELINES.items()}
NAMES = tuple(BASELINES)
# One of each kind; the others differ from it in depth or width alone.
KINDS = (
    *("resnet18", "resnet50", "wide_resnet50_2", "wrn28_10_cifar10", "resnext50_32x4d", "seresnet50"),
    *("legacy_seresnet152", "legacy_senet154", "squeezenet1_0", "squeezenet1_1", "mobilenetv1_100", "mobilenet_v2"),
    *("shufflenet_g1_w1", "shufflenet_g3_w1", "shufflenet_v2_x1_0"),
)


def small(name: str, dropout: float | None = None) -> Baseline:
    torch.manual_seed(0)
    made = build_model(SMALL[name], 10, dropout=dropout)
    assert isinstance(made, Baseline)
    return made


def images(count: int, side: int = 32) -> Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("name", "px", "params", "multiply_adds"), with_slow_rest(sorted(FACTS, key=lambda fact: fact[2]), plain=8)
)
def test_parameters_and_multiply_adds_are_exactly_those_of_other_libraries(
    name: str, px: int, params: int, multiply_adds: int
) -> None:
    model = schema.Model(name=name, resolution=px / BASELINES[name].resolution)
    assert compute_cost(model, CLASSES.get(name, 1000)) == (params, multiply_adds, px)


@pytest.mark.parametrize(
    "model", [SMALL["resnet50"], SMALL["squeezenet1_1"], schema.Model(blocks=["r1_k3_s22_e1_i32_o16_se0.25"])]
)
def test_what_is_no_classifier_is_the_same_for_any_number_of_classes(model: schema.Model) -> None:
    one, two, seven = (compute_cost(model, classes)[0] for classes in (1, 2, 7))
    assert feature_params(model) == one - (two - one) == seven - 7 * (two - one)


def test_every_network_is_counted_and_has_a_name_that_build_knows() -> None:
    assert {name for name, *_ in FACTS} == set(NAMES)
    assert set(NAMES) < set(network_names())


@pytest.mark.parametrize(
    ("name", "file", "theirs", "px"),
    with_slow_rest(
        [
            ("resnet18", "resnet", "resnet18", 224),
            pytest.param("resnet50", "resnet", "resnet50b", 224, marks=pytest.mark.slow),
            pytest.param("seresnet50", "seresnet", "seresnet50b", 224, marks=pytest.mark.slow),
            pytest.param("squeezenet1_0", "squeezenet", "squeezenet_v1_0", 224, marks=pytest.mark.slow),
            ("squeezenet1_1", "squeezenet", "squeezenet_v1_1", 224),
            pytest.param("mobilenet_wd2", "mobilenet", "mobilenet_wd2", 224, marks=pytest.mark.slow),
            ("mobilenet_v2", "mobilenetv2", "mobilenetv2b_w1", 224),
            pytest.param("shufflenet_g3_wd2", "shufflenet", "shufflenet_g3_wd2", 224, marks=pytest.mark.slow),
            ("shufflenet_v2_x1_0", "shufflenetv2", "shufflenetv2_w1", 224),
            pytest.param("wrn28_10_cifar10", "wrn_cifar", "wrn28_10_cifar10", 32, marks=pytest.mark.slow),
        ]
    ),
)
@torch.inference_mode()
def test_logits_are_those_of_pytorchcv_with_the_same_weights(name: str, file: str, theirs: str, px: int) -> None:
    torch.manual_seed(0)
    rival = getattr(import_module(f"pytorchcv.models.{file}"), theirs)().eval()
    for module in rival.modules():
        if isinstance(module, nn.BatchNorm2d):  # away from 0 and 1
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.8, 1.2)
    ours = build_model(schema.Model(name), CLASSES.get(name, 1000)).eval()
    tensors, state = list(rival.state_dict().values()), ours.state_dict()
    if len(state) == len(tensors) + 1:  # MobileNetV2's classifier has no bias there
        tensors.append(torch.zeros_like(state["classifier.bias"]))
    ours.load_state_dict({key: tensor.view_as(state[key]) for key, tensor in zip(state, tensors, strict=True)})
    x = images(1, px).double()
    torch.testing.assert_close(ours.double()(x), rival.double()(x))


@pytest.mark.parametrize("name", with_slow_rest(sorted(NAMES, key=lambda name: name not in KINDS), plain=3))
def test_recomputing_and_the_memory_order_change_nothing_and_every_parameter_learns(name: str) -> None:
    whole = small(name, dropout=0.0).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    gradients = []
    for recompute in (False, True):
        network = copy.deepcopy(whole).train()
        network.recompute = recompute
        network(images(4).to(memory_format=torch.channels_last)).square().sum().backward()
        assert all(p.grad is not None for p in network.parameters())
        floats = [b for b in network.buffers() if b.is_floating_point()]
        gradients.append([*(p.grad for p in network.parameters()), *floats])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
    with torch.inference_mode():
        x = images(2)
        plain = small(name).eval()(x)
        assert plain.shape == (2, 10)
        torch.testing.assert_close(whole.eval()(x.to(memory_format=torch.channels_last)), plain, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1", "mobilenet_v2"])
def test_the_features_are_what_the_classifier_pools(name: str) -> None:
    network = small(name).eval()
    with torch.inference_mode():
        features = network.features(images(2))
        assert features.ndim == 4
        scores = network.classifier(features.permute(0, 2, 3, 1))  # a linear layer before the mean is one behind it
        mean = (scores.relu() if name == "squeezenet1_1" else scores).mean((1, 2))
        torch.testing.assert_close(mean, network(images(2)))
    assert network.classifier.out_features == 10


@pytest.mark.parametrize("name", with_slow_rest(["resnet18", "squeezenet1_1", "shufflenet_g3_w1", "legacy_senet154"]))
def test_a_network_leaves_as_weights_and_description_and_as_a_program_for_any_batch(name: str, tmp_path) -> None:
    network = small(name)
    side = network.resolution
    described = {
        "format": 1,
        "model": {"name": name, "width": 0.25, "depth": 0.2, "resolution": 32 / 224, "survival_prob": 0.8},
        "classes": 10,
    }
    export.save_weights(network.state_dict(), tmp_path / "w.safetensors")
    again = export.load_network(tmp_path / "w.safetensors", described)
    module = export.serving_module(again)
    example = export.example(side)
    assert (export.logits(module, example) == export.logits(export.serving_module(network), example)).all()
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(module, (torch.from_numpy(example),), dynamic_shapes=({0: batch},))
    torch.testing.assert_close(program.module()(images(5, side)), module(images(5, side)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1"])
def test_fine_tuning_takes_all_but_the_classifier(name: str, tmp_path) -> None:
    trained = small(name)
    data = export.weights_bytes(trained.state_dict())
    uri = f"file://{tmp_path}/weights.safetensors"
    store.write(uri, data)
    torch.manual_seed(1)
    other = build_model(SMALL[name], 7)
    fresh = other.classifier.weight.clone()
    weights.load_features(other, uri, hashlib.sha256(data).hexdigest())
    assert torch.equal(other.classifier.weight, fresh)
    state = trained.state_dict()
    assert all(torch.equal(t, state[k]) for k, t in other.state_dict().items() if not k.startswith("classifier."))
    with pytest.raises(ArtifactError, match="do not fit"):
        weights.load_features(small("mobilenet_wd4"), uri, None)


def test_a_network_keeps_its_own_dropout_unless_the_recipe_has_one() -> None:
    assert small("squeezenet1_0").dropout.p == 0.5
    assert small("resnet18").dropout.p == 0.0
    assert small("resnet18", dropout=0.3).dropout.p == 0.3


def test_squeezenet_starts_with_small_logits() -> None:
    torch.manual_seed(0)
    logits = build_model(schema.Model("squeezenet1_1"), 10)(images(4, 64))
    assert logits.min() >= 0
    assert logits.max() < 5


def test_units_multiply_with_depth_and_channels_with_width_as_in_efficientnet() -> None:
    from models.networks.baselines import scale_layers

    assert scale_layers(BASELINES["resnet50"], depth=1.4).stages == [[256] * 5, [512] * 6, [1024] * 9, [2048] * 5]
    assert scale_layers(BASELINES["resnet50"], width=1.2).stages[0] == [320] * 3  # 4 x 80, multiple of 8 next to 76.8
    v2 = scale_layers(BASELINES["mobilenet_v2"], width=0.5)
    assert v2.stages[3] == [32] * 4 + [48] * 3
    assert (v2.stem, v2.head) == (16, 1280)


def test_a_missing_library_is_one_line_that_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [name for name in sys.modules if name.startswith("pytorchcv")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "pytorchcv", None)
    with pytest.raises(ConfigError, match=r"^[^\n]*pip install --no-deps pytorchcv==0\.0\.74$"):
        build_model(schema.Model("resnet18"), 1000)
    assert compute_cost(schema.Model(), 1000)[0] == 5_288_548  # our own do without it


def test_an_unknown_network_is_named_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'resnet50'"):
        build_model(schema.Model("resnet-50"), 1000)


@pytest.mark.slow
def test_too_small_an_image_is_refused_before_anything_is_built() -> None:
    with pytest.raises(
        ConfigError, match=r"20 px are too few for squeezenet1_0; use at least 21 px: .*resolution >= 0\.0938"
    ):
        build_model(schema.Model("squeezenet1_0", resolution=20 / 224), 10)
    build_model(schema.Model("squeezenet1_0", resolution=21 / 224), 10, device="meta").eval()(
        torch.empty(1, 3, 21, 21, device="meta")
    )
