"""Conversion of public weights: recorded names and logits of timm and torchvision, and refused networks."""

import functools
import io
import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import made_published
import pytest
import torch
from checkout import ROOT
from efficientnet_lite_pytorch import EfficientNet as Lukemelas
from matrix import with_slow_rest
from torch import Tensor

from conf import schema
from conf.data_set import SQUASH, EvalTransform
from infra.errors import ArtifactError, ConfigError, EffnetError
from models.networks import checkpoint_file, pretrained, published_inputs
from models.networks.build import build_model, resolve_architecture
from models.networks.efficientnet.variants import VARIANTS
from models.networks.key_maps import KEY_MAPS, LUKEMELAS, TIMM, TORCHVISION
from models.networks.wrappers import strip_wrappers

REFERENCE: dict[str, Any] = json.loads(made_published.REFERENCE.read_text())

ASK = schema.Published()


@functools.cache
def make_b0(key_map: str) -> dict[str, Tensor]:
    return made_published.tensors(REFERENCE["names"][key_map])


def kept(key_map: str) -> dict[str, Tensor]:
    """Made-up weights under the names of somebody's B0, which no test writes into."""
    return dict(make_b0(key_map))


@functools.cache
def lukemelas() -> dict[str, Tensor]:
    network = Lukemelas.from_name("efficientnet-b0", num_classes=10)
    return made_published.tensors(made_published.shapes(network.state_dict()))


def logits(converted: pretrained.PretrainedWeights, images: Tensor) -> Tensor:
    network = build_model(converted.model, converted.classes, device="meta").eval()  # without drawing initial weights
    network.load_state_dict(converted.state_dict, assign=True)
    with torch.no_grad():
        answer: Tensor = network(images)
    return answer


@pytest.mark.parametrize("origin", with_slow_rest(["timm", "timm_tf", "torchvision"]))
def test_b0_answers_as_in_the_network_that_the_weights_are_of(origin: str) -> None:
    tensors = kept(origin.removesuffix("_tf"))
    request = schema.Published(origin=origin, preprocessing="imagenet")
    converted = pretrained.convert(tensors, request, "model.safetensors")
    answer = logits(converted, made_published.images())[:, : made_published.SHOWN]
    torch.testing.assert_close(answer, torch.tensor(REFERENCE["answers"][origin]), rtol=0, atol=1e-4)


def test_padding_and_epsilon_are_no_trifles() -> None:
    timm, ported = (torch.tensor(REFERENCE["answers"][origin]) for origin in ("timm", "timm_tf"))
    assert float((timm - ported).abs().max()) > 1e-2


@pytest.mark.parametrize("member", with_slow_rest(["b0", "lite1", "b1", "b3"]))
def test_lukemelas_networks_answer_as_their_own_code_does(member: str) -> None:
    theirs = Lukemelas.from_name(f"efficientnet-{member}", image_size=72).eval()
    tensors = made_published.tensors(made_published.shapes(theirs.state_dict()))
    theirs.load_state_dict(tensors)
    request = schema.Published(preprocessing="imagenet")
    images = torch.randn(2, 3, 72, 72, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = theirs(images)
    torch.testing.assert_close(
        logits(pretrained.convert(tensors, request, f"{member}.pth"), images), expected, rtol=0, atol=1e-4
    )


def test_every_tensor_arrives_unchanged_at_one_place() -> None:
    tensors = kept("torchvision")
    state = pretrained.convert(tensors, ASK, "efficientnet_b0.pth").state_dict
    assert len(state) == len(tensors)
    assert {t.data_ptr() for t in state.values() if t.dim()} == {t.data_ptr() for t in tensors.values() if t.dim()}
    assert state["blocks.15.se.expand.bias"] is not None
    assert torch.equal(state["blocks.15.se.expand.bias"], tensors["features.7.0.block.2.fc2.bias"])


@pytest.mark.parametrize(
    ("key_map", "name"),
    with_slow_rest([(d, n) for d in (TIMM, TORCHVISION) for n in REFERENCE["digests"][d.name]], plain=6),
)
def test_every_name_and_shape_of_every_variant_is_theirs(key_map: Any, name: str) -> None:
    ours = pretrained._expected_tensors(key_map, schema.Model(name=name), 1000).values()
    assert made_published.digest((key, list(shape)) for key, shape in ours) == REFERENCE["digests"][key_map.name][name]


@pytest.mark.parametrize(
    "member", with_slow_rest([*(f"b{phi}" for phi in range(9)), *(f"lite{size}" for size in range(5))], plain=2)
)
def test_every_name_and_shape_of_lukemelas_is_theirs(member: str) -> None:
    with torch.device("meta"):
        theirs = Lukemelas.from_name(f"efficientnet-{member}").state_dict()
    model = schema.Model(name=f"efficientnet_{member}")
    expected = dict(pretrained._expected_tensors(LUKEMELAS, model, 1000).values())
    assert {key: t.shape for key, t in theirs.items()} == expected


def test_the_shapes_of_a_network_are_taken_from_one_that_is_built_once(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[schema.Model] = []

    def build_and_count(model: schema.Model, classes: int, device: str) -> torch.nn.Module:
        built.append(model)
        return build_model(model, classes, device=device)

    monkeypatch.setattr(pretrained, "_SHAPES", {})
    monkeypatch.setattr(pretrained, "build_model", build_and_count)
    for _ in range(2):
        pretrained.convert(kept("torchvision"), ASK, "efficientnet_b0.pth")
    assert len(built) == len({repr(model) for model in built})


@pytest.mark.parametrize("name", with_slow_rest(VARIANTS, plain=4))
def test_a_variant_is_recognized_by_its_tensors_alone(name: str) -> None:
    tensors = {
        key: torch.empty(shape, device="meta")
        for key, shape in pretrained._expected_tensors(LUKEMELAS, schema.Model(name=name), 10).values()
    }
    assert pretrained._find_variant(tensors, LUKEMELAS, None, "x.pth") == name


def test_no_dialect_takes_another_s_names_for_its_own() -> None:
    arch = resolve_architecture(schema.Model())
    stems = [key_map.modules(arch)["stem.0"] for key_map in KEY_MAPS]
    for key_map, stem in zip(KEY_MAPS, stems, strict=True):
        assert [other for other in stems if other in key_map.modules(arch).values()] == [stem]


@pytest.mark.parametrize(
    ("file", "origin", "padding", "epsilon", "preprocessing"),
    with_slow_rest(
        [
            ("tf_efficientnet_b0_aa-827b6e33.pth", "timm_tf", "same", 1e-3, "imagenet"),
            ("/cache/tf_efficientnet_b0.ns_jft_in1k.safetensors", "timm_tf", "same", 1e-3, "imagenet"),
            ("tf_efficientnet_b0_ap-f262efe1.pth", "timm_tf", "same", 1e-3, "advprop"),
            ("my-tf_efficientnet_b0-ap.pth", "timm_tf", "same", 1e-3, "advprop"),
            ("tf_efficientnet_b0_advprop.pth", "timm_tf", "same", 1e-3, "advprop"),
            ("tf_efficientnet_b0_apples.pth", "timm_tf", "same", 1e-3, "imagenet"),
            ("s3://bucket/tf_efficientnet_b0.ap_in1k.safetensors", "timm_tf", "same", 1e-3, "advprop"),
            ("TF_EfficientNet_B0_AP.pth", "timm_tf", "same", 1e-3, "advprop"),
            ("tf-efficientnet-b0.pth", "timm_tf", "same", 1e-3, "imagenet"),
            ("advprop_tf_efficientnet_b0.pth", "timm_tf", "same", 1e-3, "advprop"),
            ("tf_efficientnet_b0_best_ap.pth", "timm_tf", "same", 1e-3, "imagenet"),  # an average precision
            ("efficientnet_b0_ra-3dd342df.pth", "timm", "symmetric", 1e-5, "imagenet"),
            ("efficientnet_b0.ra4_e3600_r224_in1k.safetensors", "timm", "symmetric", 1e-5, "advprop"),
        ],
        plain=6,
    ),
)
def test_timm_s_file_names_say_how_the_network_computes(
    file: str, origin: str, padding: str, epsilon: float, preprocessing: str
) -> None:
    converted = pretrained.convert(kept("timm"), ASK, file)
    assert converted.origin == origin
    model = converted.model
    assert (model.padding, model.bn_epsilon, model.preprocessing) == (padding, epsilon, preprocessing)


@pytest.mark.parametrize(
    ("name", "origin", "padding", "epsilon", "preprocessing"),
    [
        ("efficientnet_b4", "torchvision", "symmetric", 1e-5, "imagenet"),
        ("efficientnet_b5", "torchvision", "symmetric", 1e-3, "imagenet"),
        ("efficientnet_lite0", "timm", "symmetric", 1e-5, "imagenet"),
        ("efficientnet_lite0", "timm_tf", "same", 1e-3, "lite"),
        ("efficientnet_lite0", "lukemelas", "same", 1e-3, "lite"),
    ],
)
def test_the_numerics_are_those_of_the_origin(
    name: str, origin: str, padding: str, epsilon: float, preprocessing: str
) -> None:
    model = pretrained._configure_model(name, origin, ASK, 224, "x.pth")
    assert (model.padding, model.bn_epsilon, model.preprocessing) == (padding, epsilon, preprocessing)


@pytest.mark.parametrize("folder", with_slow_rest(["tf_efficientnet_b0_ap", "adv-efficientnet-b0.ra4_e3600"]))
def test_the_names_of_folders_say_nothing_of_the_weights(folder: str) -> None:
    model = pretrained.convert(kept("timm"), ASK, f"/data/{folder}/efficientnet_b0_ra-3dd342df.pth").model
    assert (model.padding, model.bn_epsilon, model.preprocessing) == ("symmetric", 1e-5, "imagenet")
    with pytest.raises(
        ConfigError, match=r"^model\.safetensors does not show whether .*published\.origin=timm or timm_tf"
    ):
        pretrained.convert(kept("timm"), ASK, f"/data/{folder}/model.safetensors")
    request = schema.Published(classes=10)
    model = pretrained.convert(lukemelas(), request, f"/data/{folder}/efficientnet-b0-355c32eb.pth").model
    assert model.preprocessing == "imagenet"
    model = pretrained.convert(lukemelas(), request, "/data/plain/adv-efficientnet-b0-b64d5a18.pth").model
    assert model.preprocessing == "advprop"


@pytest.mark.parametrize("file", ["efficientnet-b0-advprop.pth", "adv_efficientnet-b0.pth", "Adv-EfficientNet-B0.pth"])
def test_a_file_that_is_named_after_advprop_in_another_way_expects_its_pixels(file: str) -> None:
    model = pretrained.convert(lukemelas(), schema.Published(classes=10), file).model
    assert model.preprocessing == "advprop"


@pytest.mark.parametrize("origin", ["timm", "timm_tf"])
def test_a_renamed_file_is_no_guess_at_the_pixels_either(origin: str) -> None:
    with pytest.raises(
        ConfigError, match=r"w\.pth does not show which input normalization .*set published\.preprocessing=imagenet"
    ):
        pretrained.convert(kept("timm"), schema.Published(origin=origin), "w.pth")
    request = schema.Published(origin=origin, preprocessing="imagenet")
    assert pretrained.convert(kept("timm"), request, "w.pth").model.preprocessing == "imagenet"
    with pytest.raises(ConfigError, match="does not show which input normalization"):
        pretrained.convert(lukemelas(), schema.Published(classes=10), "w.pth")


def test_a_person_s_word_counts_more_than_the_file_name() -> None:
    request = schema.Published(origin="timm", preprocessing="lite", resolution=288)
    model = pretrained.convert(kept("timm"), request, "tf_efficientnet_b0_ap-f262efe1.pth").model
    assert (model.padding, model.bn_epsilon, model.preprocessing) == ("symmetric", 1e-5, "lite")
    assert resolve_architecture(model).resolution == 288


@pytest.mark.parametrize(("preprocessing", "mean", "deviation"), [("advprop", 127.5, 127.5), ("lite", 127.0, 128.0)])
def test_a_network_that_expects_other_pixels_gets_them_from_the_paper_s(
    preprocessing: str, mean: float, deviation: float
) -> None:
    pixels = torch.randint(0, 256, (2, 3, 64, 64), generator=torch.Generator().manual_seed(0)).float()
    means, deviations = (torch.tensor(v).view(1, 3, 1, 1) for v in ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)))
    answers = []
    for expects, images in (("imagenet", (pixels - mean) / deviation), (preprocessing, (pixels - means) / deviations)):
        torch.manual_seed(0)
        network = build_model(schema.Model(width=0.25, depth=0.2, preprocessing=expects), 10).eval()
        answers.append(network.features(images))
    torch.testing.assert_close(answers[0], answers[1], rtol=1e-4, atol=1e-4)


def without(key: str) -> Callable[[dict[str, Tensor]], None]:
    return lambda tensors: tensors.__delitem__(key)


def with_one(key: str, value: Tensor) -> Callable[[dict[str, Tensor]], None]:
    return lambda tensors: tensors.update({key: value})


def rename(module: str, to: str) -> Callable[[dict[str, Tensor]], None]:
    leaves = ("weight", "bias")
    return lambda tensors: tensors.update({f"{to}.{leaf}": tensors.pop(f"{module}.{leaf}") for leaf in leaves})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            without("_fc.bias"),
            "x.pth fits no variant of EfficientNet; compared with efficientnet_b0: _fc.bias is missing",
        ),
        (without("_blocks.3._bn1.running_var"), "efficientnet_b0: _blocks.3._bn1.running_var is missing"),
        (with_one("_bn9.weight", torch.zeros(2)), "efficientnet_b0: _bn9.weight is unexpected"),
        (
            with_one("_conv_head.weight", torch.zeros(8, 320, 1, 1)),
            "efficientnet_b0: _conv_head.weight is [8, 320, 1, 1], not [1280, 320, 1, 1]",
        ),
        (with_one("_bn1.bias", torch.full((1280,), float("nan"))), "_bn1.bias holds non-finite numbers"),
        (with_one("_bn1.bias", torch.full((1280,), float("inf"))), "_bn1.bias holds non-finite numbers"),
        (with_one("_fc.weight", torch.zeros(10, 1280)), "_fc.weight holds 0 everywhere, as of a network whose weights"),
        (with_one("_conv_head.weight", torch.full((1280, 320, 1, 1), 0.1)), "_conv_head.weight holds 0.1 everywhere"),
        (with_one("_bn1.running_var", torch.full((1280,), -1.0)), "_bn1.running_var holds negative variances"),
        (with_one("_bn1.bias", torch.ones(1280, dtype=torch.int8)), "_bn1.bias holds int8 numbers, whose scale is not"),
        (without("_fc.weight"), "x.pth has no classifier (_fc.weight), only the layers before it: save the state"),
        (
            lambda tensors: tensors.update(
                {"_fc.3.weight": torch.zeros(9, 9), "_fc.0.weight": tensors.pop("_fc.weight")}
            ),
            "x.pth: its classifier has the layers _fc.3, _fc.0, and not a single one",
        ),
        (
            with_one("_fc.3.weight", torch.ones(9, 10)),
            "x.pth: its classifier has the layers _fc, _fc.3, and not a single",
        ),
    ],
)
def test_a_tensor_that_is_not_as_it_must_be_is_named(change: Callable[[dict[str, Tensor]], None], message: str) -> None:
    tensors = dict(lukemelas())
    change(tensors)
    with pytest.raises(ArtifactError, match=re.escape(message)):
        pretrained.convert(tensors, schema.Published(classes=10, preprocessing="imagenet"), "x.pth")


@pytest.mark.parametrize("name", ["head", "_fc.1", "classifier"])
def test_a_classifier_that_a_user_has_replaced_is_found_by_its_shape(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    tensors, request = dict(lukemelas()), schema.Published(classes=10, preprocessing="imagenet")
    plain = pretrained.convert(tensors, request, "x.pth")
    rename("_fc", name)(tensors)
    with caplog.at_level("INFO", "effnet"):
        converted = pretrained.convert(tensors, request, "x.pth")
    assert all(torch.equal(converted.state_dict[key], tensor) for key, tensor in plain.state_dict.items())
    assert f"x.pth: the classifier is {name}, which is renamed to _fc" in caplog.messages


def test_counters_of_batch_norm_may_be_missing_and_half_precision_becomes_single() -> None:
    tensors = {k: t.half() for k, t in lukemelas().items() if not k.endswith("num_batches_tracked")}
    converted = pretrained.convert(tensors, schema.Published(classes=10), "efficientnet-b0.pth")
    assert {t.dtype for t in converted.state_dict.values()} == {torch.float32, torch.int64}
    assert logits(converted, made_published.images()).isfinite().all()


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "module._orig_mod.", "model.backbone."])
def test_prefixes_that_wrappers_add_to_every_name_are_removed_and_logged(
    prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    wrapped = {f"{prefix}{key}": tensor for key, tensor in lukemelas().items()}
    request = schema.Published(classes=10, preprocessing="imagenet")
    with caplog.at_level("INFO", "effnet"):
        converted = pretrained.convert(wrapped, request, "/a/x.pth")
    plain = pretrained.convert(lukemelas(), request, "/a/x.pth")
    assert all(torch.equal(converted.state_dict[key], tensor) for key, tensor in plain.state_dict.items())
    assert f"x.pth: every name begins with {prefix}, which" in caplog.text


@pytest.mark.parametrize(("weights", "other"), [(None, "model takes model."), ("model", "ema takes ema_model.")])
def test_of_two_networks_under_prefixes_the_line_says_how_the_other_is_taken(
    weights: str | None, other: str, caplog: pytest.LogCaptureFixture
) -> None:
    both = {f"{prefix}{key}": tensor for prefix in ("model.", "ema_model.") for key, tensor in lukemelas().items()}
    with caplog.at_level("INFO", "effnet"):
        pretrained.convert(both, schema.Published(classes=10, preprocessing="imagenet", weights=weights), "x.pth")
    assert f"; published.weights={other}\n" in caplog.text


@pytest.mark.parametrize("name", ["head", "fc", "head.fc"])
def test_a_classifier_beside_a_wrapped_network_is_read(name: str, caplog: pytest.LogCaptureFixture) -> None:
    plain, request = lukemelas(), schema.Published(classes=10, preprocessing="imagenet")
    wrapped = {f"backbone.{key}": tensor for key, tensor in plain.items() if not key.startswith("_fc")}
    wrapped |= {f"{name}.{leaf}": plain[f"_fc.{leaf}"] for leaf in ("weight", "bias")}
    with caplog.at_level("INFO", "effnet"):
        converted = pretrained.convert(wrapped | {"loss.weight": torch.ones(10)}, request, "x.pth")
    assert torch.equal(converted.state_dict["classifier.weight"], plain["_fc.weight"])
    assert "x.pth: the network is under backbone., and its classifier beside it" in caplog.text


@pytest.mark.parametrize(
    "layers",
    [
        {"head.0.weight": (64, 1280), "head.2.weight": (10, 64)},
        {"head.0.weight": (1280,), "head.0.running_mean": (1280,), "head.1.weight": (10, 1280)},
    ],
)
def test_a_classifier_of_several_layers_beside_a_wrapped_network_is_refused(layers: dict[str, tuple[int, ...]]) -> None:
    wrapped = {f"backbone.{key}": tensor for key, tensor in lukemelas().items() if not key.startswith("_fc")}
    wrapped |= {key: torch.ones(shape) for key, shape in layers.items()}
    with pytest.raises(ArtifactError, match=r"has no classifier, and beside it are head\.0, head\.[12]: only a single"):
        pretrained.convert(wrapped, schema.Published(classes=10), "x.pth")


def test_a_network_with_one_logit_is_refused_with_what_makes_two_of_it() -> None:
    tensors = dict(lukemelas()) | {"_fc.weight": torch.ones(1, 1280), "_fc.bias": torch.ones(1)}
    with pytest.raises(ConfigError, match=r"has a single logit, .*torch\.cat\(\[torch\.zeros_like\(w\), w\]\)"):
        pretrained.convert(tensors, schema.Published(classes=1), "efficientnet-b0.pth")


@pytest.mark.parametrize("kind", ["weights", "checkpoint", "best epoch"])
def test_files_of_our_own_jobs_are_named_with_the_command_that_registers_them(kind: str) -> None:
    tensors = {
        "weights": build_model(schema.Model(), 10, device="meta").state_dict(),
        "checkpoint": dict.fromkeys(("average", "optimizer.decayed.momentum", "weights"), torch.ones(3)),
        "best epoch": {"best": torch.ones(3)},
    }[kind]
    with pytest.raises(ArtifactError, match="is of a job of effnet: `effnet register JOB` registers its weights"):
        pretrained.convert(tensors, schema.Published(classes=10), "weights.safetensors")


def test_weights_of_transformers_are_named_with_those_that_are_read() -> None:
    tensors = {"efficientnet.embeddings.convolution.weight": torch.ones(32, 3, 3, 3), "classifier.bias": torch.ones(9)}
    with pytest.raises(
        ArtifactError, match="names of the EfficientNet of Transformers, which are not read: timm has Google's"
    ):
        pretrained.convert(tensors, ASK, "model.safetensors")


def test_a_classifier_without_a_bias_is_named_as_that() -> None:
    tensors = {key: tensor for key, tensor in lukemelas().items() if key != "_fc.bias"}
    with pytest.raises(ArtifactError, match=r"compared with efficientnet_b0: _fc\.bias is missing$"):
        pretrained.convert(tensors, schema.Published(classes=10), "efficientnet-b0.pth")


def test_what_a_renamed_file_does_not_show_is_named_at_once() -> None:
    with pytest.raises(ConfigError, match=r"published\.origin=timm or timm_tf, and published\.preprocessing=imagenet"):
        pretrained.convert(kept("timm"), ASK, "model_best.pth.tar")
    with pytest.raises(ConfigError, match=r"published\.origin=timm or timm_tf$"):
        pretrained.convert(kept("timm"), schema.Published(preprocessing="imagenet"), "model_best.pth.tar")


def test_tensors_beside_a_wrapped_network_are_skipped_and_named(caplog: pytest.LogCaptureFixture) -> None:
    wrapped = {f"model.{key}": tensor for key, tensor in lukemelas().items()} | {"loss.weight": torch.zeros(1)}
    with caplog.at_level("INFO", "effnet"):
        converted = pretrained.convert(wrapped, schema.Published(classes=10, preprocessing="imagenet"), "x.ckpt")
    assert converted.state_dict.keys() == build_model(converted.model, 10, device="meta").state_dict().keys()
    assert "the network is under model.; 1 other tensors are skipped, as loss.weight" in caplog.text


@pytest.mark.parametrize("prefix", ["", "module."])
def test_what_thop_has_counted_in_a_network_is_skipped_and_named(prefix: str, caplog: pytest.LogCaptureFixture) -> None:
    """thop.profile registers these two in every module; ``torch.save(net.state_dict())`` keeps them."""
    tensors = {prefix + key: tensor for key, tensor in kept("timm").items()}
    modules = {"", *(key.rpartition(".")[0] for key in tensors)}
    names = [f"{one}.{count}".lstrip(".") for one in modules for count in ("total_ops", "total_params")]
    counts = {name: torch.zeros(1) for name in names}
    with caplog.at_level("INFO", "effnet"):
        state = pretrained.convert(tensors | counts, ASK, "efficientnet_b0.pth").state_dict
    assert state.keys() == pretrained.convert(tensors, ASK, "efficientnet_b0.pth").state_dict.keys()
    assert f"efficientnet_b0.pth: {len(counts)} counts of thop are skipped" in caplog.text


def test_batch_norms_that_only_training_uses_are_skipped_and_named(caplog: pytest.LogCaptureFixture) -> None:
    """As timm's --split-bn saves them; its clean_checkpoint.py removes them from released weights."""
    split = kept("timm") | {f"blocks.0.0.bn1.aux_bn.0.{leaf}": torch.ones(32) for leaf in ("weight", "running_var")}
    with caplog.at_level("INFO", "effnet"):
        state = pretrained.convert(split, ASK, "efficientnet_b0.pth").state_dict
    assert state.keys() == pretrained.convert(kept("timm"), ASK, "efficientnet_b0.pth").state_dict.keys()
    assert "efficientnet_b0.pth: 2 batch norms of splits are skipped, as blocks.0.0.bn1.aux_bn.0.weight" in caplog.text


def test_of_two_wrapped_networks_the_average_or_the_raw_one_is_taken() -> None:
    average = {key: tensor + 1 for key, tensor in lukemelas().items()}
    both = {f"model.{key}": tensor for key, tensor in lukemelas().items()}
    both |= {f"ema_model.module.{key}": tensor for key, tensor in average.items()}
    for weights, expected in ((None, average), ("ema", average), ("model", lukemelas())):
        taken = strip_wrappers(both, "x.ckpt", weights)
        assert taken.keys() == expected.keys()
        assert torch.equal(taken["_fc.bias"], expected["_fc.bias"])
    file = io.BytesIO()
    torch.save({"state_dict": both}, file)
    for weights, expected in (("ema", average), ("model", lukemelas())):
        taken = strip_wrappers(checkpoint_file.read(file.getvalue(), "x.ckpt", weights), "x.ckpt", weights)
        assert torch.equal(taken["_fc.bias"], expected["_fc.bias"])
    single = strip_wrappers({f"semantic.{key}": t for key, t in average.items()}, "x.ckpt", "model")
    assert single.keys() == average.keys()
    twins = {f"{one}.{key}": tensor for one in ("student", "teacher") for key, tensor in average.items()}
    with pytest.raises(ArtifactError, match=r"holds several networks, under student\., teacher\.: save one of them"):
        strip_wrappers(twins, "x.ckpt")


def test_the_tensors_count_more_than_a_name_of_another_variant(caplog: pytest.LogCaptureFixture) -> None:
    converted = pretrained.convert(kept("timm"), ASK, "efficientnet_b1-533bc792.pth")
    assert (converted.model.name, converted.model.resolution) == ("efficientnet_b0", 1.0)
    assert converted.transform == EvalTransform()
    assert "by its name it is efficientnet_b1, by its tensors efficientnet_b0, which counts" in caplog.text


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (schema.Published(preprocessing="imagenet"), "x.pth has 10 classes, not 1000: set published.classes=10"),
        (
            schema.Published(network="efficientnet_b3"),
            "x.pth holds efficientnet_b0, not efficientnet_b3: set published.",
        ),
        (schema.Published(network="efficientnet_bo"), "did you mean 'efficientnet_b"),
        (schema.Published(origin="timm"), "x.pth has the tensor names of lukemelas, but published.origin is timm"),
    ],
)
def test_what_was_not_asked_for_is_a_mistake_in_what_was_asked(asked: schema.Published, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        pretrained.convert(lukemelas(), asked, "x.pth")


def test_timm_s_two_kinds_must_be_told_apart() -> None:
    with pytest.raises(ConfigError, match=r"set published\.origin=timm or timm_tf"):
        pretrained.convert(kept("timm"), ASK, "model.safetensors")


def test_another_network_is_none_of_ours() -> None:
    with pytest.raises(ArtifactError, match=r"is not a known EfficientNet.*its first tensors are layer1\.weight"):
        pretrained.convert({"layer1.weight": torch.zeros(1)}, ASK, "x.pth")


@pytest.mark.parametrize(
    ("key_map", "change", "message"),
    [
        ("timm", {"blocks.0.0.conv.weight": torch.ones(24, 24, 3, 3)}, "has fused blocks, as EfficientNetV2"),
        ("timm", {"blocks.1.0.conv_exp.weight": torch.ones(96, 24, 3, 3)}, "has fused blocks, as EfficientNetV2"),
        ("torchvision", {"features.1.0.block.0.0.weight": torch.ones(24, 24, 3, 3)}, "has fused blocks, as Efficient"),
        ("timm", {"blocks.5.0.routing_fn.weight": torch.ones(4, 112)}, "has conditional convolutions"),
        ("timm", {"conv_stem.weight": torch.ones(32, 1, 3, 3)}, "is of a network for images of 1 channels, and those"),
    ],
)
def test_relatives_of_the_networks_are_named(key_map: str, change: dict[str, Tensor], message: str) -> None:
    with pytest.raises(ArtifactError, match=re.escape(f"x.pth {message}")):
        pretrained.convert(kept(key_map) | change, ASK, "x.pth")


def test_a_network_without_batch_norm_is_named() -> None:
    rest = {key: tensor for key, tensor in kept("timm").items() if "running_" not in key}
    with pytest.raises(ArtifactError, match=r"x\.pth has no batch norm, as timm's efficientnet_b0_gn"):
        pretrained.convert(rest, ASK, "x.pth")


def test_a_class_of_the_background_is_a_hint() -> None:
    tensors = kept("timm") | {"classifier.weight": torch.ones(1001, 1280), "classifier.bias": torch.ones(1001)}
    with pytest.raises(ConfigError, match=r"1001 classes, not 1000: .*as TensorFlow's the first is the background$"):
        pretrained.convert(tensors, ASK, "tf_efficientnet_b0_aa.pth")


def test_numbers_of_eight_bits_are_refused_also_where_they_have_a_point() -> None:
    tensors = kept("timm")
    tensors["conv_head.weight"] = tensors["conv_head.weight"].to(torch.float8_e4m3fn)
    with pytest.raises(
        ArtifactError, match=r"conv_head\.weight holds float8_e4m3fn numbers, whose scale is not stored"
    ):
        pretrained.convert(tensors, ASK, "efficientnet_b0.pth")


@pytest.mark.parametrize(
    ("names", "what"),
    [
        (
            ("backbone.layers.0.conv.weight", "backbone.layers.1.0.depthwise_conv.conv.weight", "head.fc.weight"),
            "of the EfficientNet of OpenMMLab (MMPretrain, MMClassification), which are not read: timm has Google's",
        ),
        (
            ("module.stem.conv.weight", "module.layers.0.block0.depsep.conv.weight", "module.classifier.fc.weight"),
            "of the EfficientNet of NVIDIA (DeepLearningExamples), which are not read: timm has weights of its own",
        ),
        (("stem.conv.weight", "s1.b1.dwise.weight", "head.fc.weight"), "of the EfficientNet of pycls, which are not"),
        (
            ("model.encoder.layer1.0.conv1.weight", "model.encoder.fc.weight"),
            "of a ResNet, and no EfficientNet: effnet",
        ),
        (("cls_token", "blocks.0.attn.qkv.weight", "head.weight"), "of a vision transformer, and no EfficientNet"),
        (("features.0.0.weight", "features.1.conv.0.0.weight", "classifier.1.weight"), "of a MobileNet, and no Eff"),
        (("conv_stem.weight", "conv_head.weight", "conv_head.bias", "classifier.weight"), "of a MobileNet, and no Eff"),
        (("features.0.0.weight", "features.1.0.layer_scale", "classifier.2.weight"), "of a ConvNeXt, and no Effi"),
    ],
)
def test_networks_of_other_projects_and_kinds_are_named(names: tuple[str, ...], what: str) -> None:
    tensors = {
        name: torch.randn(4, 3, 3, 3) if "conv" in name or "features" in name else torch.randn(4, 8) for name in names
    }
    with pytest.raises(ArtifactError, match=re.escape(f"x.pth has the tensor names {what}")):
        pretrained.convert(tensors, ASK, "x.pth")


# Transcribed from timm's default_cfgs (its sizes for tests) and torchvision's transforms: side, and resized short side.
# Interpolation and pixels are those of IRREGULAR, or else bicubic and ImageNet's mean and deviation.
BILINEAR, HALVES = "bilinear", "advprop"  # mean and deviation of 0.5

IRREGULAR = {
    "tf_efficientnet_lite3": BILINEAR,
    "tf_efficientnet_lite4": BILINEAR,
    "efficientnet_b1-c27df63c": BILINEAR,
    "efficientnet_b0.ra4_e3600": HALVES,
    "efficientnet_b1.ra4_e3600": HALVES,
    "tf_efficientnet_b2_ap": HALVES,
    "tf_efficientnet_b8_ap": HALVES,
}

PUBLISHED = [
    ("efficientnet_b0_ra-3dd342df.pth", "b0", "timm", 224, 256),
    ("efficientnet_b0.ra4_e3600_r224_in1k.safetensors", "b0", "timm", 256, 256),
    ("efficientnet_b1.ra4_e3600_r240_in1k.safetensors", "b1", "timm", 288, 288),
    ("efficientnet_b1-533bc792.pth", "b1", "timm", 256, 256),
    ("efficientnet_b2_ra-bcdf34b7.pth", "b2", "timm", 288, 288),
    ("efficientnet_b3.ra2_in1k.safetensors", "b3", "timm", 320, 320),
    ("efficientnet_b4_ra2_320-7eb33cd5.pth", "b4", "timm", 384, 384),
    ("efficientnet_b5.sw_in12k.safetensors", "b5", "timm", 416, int(416 / 0.95)),
    ("tf_efficientnet_b0_aa-827b6e33.pth", "b0", "timm_tf", 224, int(224 / 0.875)),
    ("tf_efficientnet_b1_ns-99dd0c41.pth", "b1", "timm_tf", 240, int(240 / 0.882)),
    ("tf_efficientnet_b2_ap-2f8e7636.pth", "b2", "timm_tf", 260, int(260 / 0.890)),
    ("tf_efficientnet_b3-e3bd6955.pth", "b3", "timm_tf", 300, int(300 / 0.904)),
    ("tf_efficientnet_b4.aa_in1k.safetensors", "b4", "timm_tf", 380, int(380 / 0.922)),
    ("tf_efficientnet_b5_ra-9a3e5369.pth", "b5", "timm_tf", 456, int(456 / 0.934)),
    ("tf_efficientnet_b6_aa-80ba17e4.pth", "b6", "timm_tf", 528, int(528 / 0.942)),
    ("tf_efficientnet_b7_aa-076e3472.pth", "b7", "timm_tf", 600, int(600 / 0.949)),
    ("tf_efficientnet_b8_ap-00e169fa.pth", "b8", "timm_tf", 672, int(672 / 0.954)),
    ("tf_efficientnet_l2_ns_475-bebbd00a.pth", "l2", "timm_tf", 475, int(475 / 0.936)),
    ("tf_efficientnet_l2_ns-df73bb44.pth", "l2", "timm_tf", 800, int(800 / 0.96)),
    ("tf_efficientnet_lite0-0aa007d2.pth", "lite0", "timm_tf", 224, int(224 / 0.875)),
    ("tf_efficientnet_lite2-dcccb7df.pth", "lite2", "timm_tf", 260, int(260 / 0.890)),
    ("tf_efficientnet_lite3-b733e338.pth", "lite3", "timm_tf", 300, int(300 / 0.904)),
    ("tf_efficientnet_lite4-741542c3.pth", "lite4", "timm_tf", 380, int(380 / 0.920)),
    ("efficientnet_b0_rwightman-7f5810bc.pth", "b0", "torchvision", 224, 256),
    ("efficientnet_b1_rwightman-bac287d4.pth", "b1", "torchvision", 240, 256),
    ("efficientnet_b1-c27df63c.pth", "b1", "torchvision", 240, 255),
    ("efficientnet_b2_rwightman-c35c1473.pth", "b2", "torchvision", 288, 288),
    ("efficientnet_b3_rwightman-b3899882.pth", "b3", "torchvision", 300, 320),
    ("efficientnet_b4_rwightman-23ab8bcd.pth", "b4", "torchvision", 380, 384),
    ("efficientnet_b5_lukemelas-1a07897c.pth", "b5", "torchvision", 456, 456),
    ("efficientnet_b6_lukemelas-24a108a5.pth", "b6", "torchvision", 528, 528),
    ("efficientnet_b7_lukemelas-c5b4e57e.pth", "b7", "torchvision", 600, 600),
    ("efficientnet-b4-6ed6700e.pth", "b4", "lukemelas", 380, 412),
    ("anything.pth", "b2", "torchvision", 288, 288),
    ("anything.pth", "b7", "torchvision", 600, 600),
    ("anything.pth", "b1", "timm_tf", 240, 272),
]


@pytest.mark.parametrize(("file", "member", "origin", "side", "resized"), PUBLISHED)
def test_side_and_crop_are_those_of_the_publisher(file: str, member: str, origin: str, side: int, resized: int) -> None:
    settings = published_inputs.find(file, f"efficientnet_{member}", origin)
    assert (settings.side, settings.side + settings.crop_pad) == (side, resized)
    irregular = {what for beginning, what in IRREGULAR.items() if file.startswith(beginning)}
    assert settings.interpolation == (BILINEAR if BILINEAR in irregular else "bicubic")
    if file != "anything.pth":
        usual = "lite" if "lite" in member else "imagenet"  # lite: mean 127, deviation 128
        expected = HALVES if HALVES in irregular else usual
        assert pretrained._resolve_preprocessing(f"efficientnet_{member}", origin, file) == expected


def test_the_documented_table_is_that_of_the_code() -> None:
    text = (ROOT / "docs" / "weights.md").read_text()
    rows = re.findall(
        r"^\| (\w+) \| `([^`]+)`[^|]*\| (\d+) \| (\d+)(, squashed)? \| (\w+) \| (\w+) \|$", text, re.MULTILINE
    )
    assert len(rows) == 28
    for origin, file, side, resized, squashed, interpolation, preprocessing in rows:
        match = re.search(r"efficientnet[_-](b\d|l2|lite\d)", file)
        assert match is not None
        variant = f"efficientnet_{match[1]}"
        settings = published_inputs.find(file, variant, origin)
        expected = (int(side), int(resized), interpolation, SQUASH if squashed else "center")
        resized_px = settings.side + settings.crop_pad
        assert (settings.side, resized_px, settings.interpolation, settings.crop_mode) == expected, file
        assert pretrained._resolve_preprocessing(variant, origin, file) == preprocessing, file
    names = [row[1] for row in rows]
    for table in published_inputs._TABLES.values():  # every entry has a row
        assert all(any(re.match(pattern, name) for name in names) for pattern in table)


def test_what_the_name_of_the_file_states_is_a_guess_unless_it_is_set(caplog: pytest.LogCaptureFixture) -> None:
    guessed = pretrained.convert(kept("timm"), ASK, "epoch=3-tf_efficientnet_b0_ap.pth")
    usual = ("resolution 224", "crop_pad 32", "interpolation bicubic", "crop_mode center")
    assert guessed.guesses == ("origin timm_tf", "preprocessing advprop", *usual)
    request = schema.Published(
        origin="timm",
        preprocessing="imagenet",
        resolution=256,
        crop_pad=0,
        interpolation="bilinear",
        crop_mode="squash",
    )
    stated = pretrained.convert(kept("timm"), request, "tf_efficientnet_b0_ap.pth")
    assert (stated.guesses, stated.model.resolution) == ((), 256 / 224)
    assert stated.transform == EvalTransform(0, "bilinear", SQUASH)


@pytest.mark.slow
def test_weights_that_timm_evaluates_on_squashed_images_are_evaluated_so() -> None:
    shapes = pretrained._expected_tensors(TIMM, schema.Model(name="efficientnet_b5"), 1000).values()
    tensors = {key: torch.linspace(0, 1, math.prod(shape)).reshape(shape) for key, shape in shapes}
    converted = pretrained.convert(tensors, ASK, "efficientnet_b5.sw_in12k_ft_in1k.pth")
    assert (converted.transform, converted.model.resolution) == (EvalTransform(0, crop_mode=SQUASH), 448 / 456)
    assert converted.guesses[-1] == "crop_mode squash"
    stated = pretrained.convert(tensors, schema.Published(crop_mode="center"), "efficientnet_b5.sw_in12k_ft_in1k.pth")
    assert stated.transform == EvalTransform(0)


def test_a_refusal_is_one_line_that_is_no_longer_than_a_person_reads() -> None:
    wrong: Mapping[str, Tensor] = {f"{name}.weight": torch.zeros(1) for name in ("conv_stem", "bn1", "head")}
    with pytest.raises(EffnetError) as caught:
        pretrained.convert(wrong, ASK, "tf_efficientnet_b0.pth")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300
