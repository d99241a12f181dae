"""The configuration: what composes, what is refused and in which words."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from matrix import with_slow_rest

from conf import compose, overrides, schema
from conf.compose import OverrideError

FOLDER = ["data.path=images"]


DATA = f"choices: {', '.join(compose.options('data'))}"
MODELS = f"choices: {', '.join(compose.options('model'))}; any other network: model.name=NAME"


def refused(*overrides: str) -> str:
    with pytest.raises(OverrideError) as caught:
        compose.compose(list(overrides))
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_without_overrides_it_is_the_laptop_s_reproduction_on_embedded_services() -> None:
    config = compose.compose()
    assert config.profile == "laptop"
    assert config.services == schema.Services("embedded", "embedded", "embedded")
    assert (config.run_dir, config.storage, config.launch.engine) == ("runs", "s3://effnet", "local")
    assert config.variants == [f"efficientnet_b{i}" for i in range(8)]
    assert (config.data.name, config.transfer.data.name) == ("mnist5k", "digits")
    assert config.recipe.epochs == 8


def test_the_paper_s_profile_is_the_official_recipe() -> None:
    config = compose.compose(["profile=paper", *FOLDER])
    # with batch-norm groups of 512 images on eight ranks; the defaults are those of 64
    assert config.recipe == schema.Recipe(bn_groups="sync", slices_per_pass=1)
    assert (config.recipe.epochs, config.recipe.global_batch, config.recipe.ema_decay) == (350, 4096, 0.9999)
    assert (config.model.width, config.model.depth, config.model.resolution) == (1.0, 1.0, 1.0)
    assert round(1_281_167 * config.data.minival_share) == 25_022


def test_the_schema_s_defaults_are_the_official_numbers() -> None:
    recipe = schema.Recipe()
    found = (
        recipe.lr_per_256,
        recipe.warmup_epochs,
        recipe.lr_decay,
        recipe.lr_decay_epochs,
        recipe.weight_decay,
        recipe.label_smoothing,
        recipe.rmsprop_decay,
        recipe.momentum,
        recipe.rmsprop_epsilon,
        recipe.bn_momentum,
    )
    assert found == (0.016, 5.0, 0.97, 2.4, 1e-5, 0.1, 0.9, 0.9, 1e-3, 0.01)
    augment = schema.Augment()
    assert (augment.crop_area_min, augment.crop_aspect_max, augment.flip_prob, augment.eval_crop_pad) == (
        0.08,
        4 / 3,
        0.5,
        32,
    )


@pytest.mark.slow
@pytest.mark.parametrize("group", ["data", "recipe"])
def test_every_file_composes_wherever_its_group_is_used(group: str) -> None:
    """One composition takes a quarter of a second, so each one fills all places, every time with other files."""
    options = compose.options(group)
    places = [name for name in compose.GROUPS if name.partition("@")[0] == group]
    parts: dict[tuple[str, str], Any] = {}
    for shift in range(len(options)):
        chosen = {name: options[(shift + number) % len(options)] for number, name in enumerate(places)}
        config = compose.compose([f"{name}={option}" for name, option in chosen.items()] + FOLDER)
        for name, option in chosen.items():
            parts[name, option] = compose.read_setting(config, name.partition("@")[2] or group)
    assert len(parts) == len(places) * len(options)
    for (name, option), part in parts.items():
        alone = parts[group, option]
        assert part == (alone if group == "recipe" or name == group else dataclasses.replace(alone, path=None)), option


@pytest.mark.parametrize("profile", with_slow_rest(compose.options("profile"), plain=2))
def test_a_profile_leaves_the_choice_of_the_network(profile: str) -> None:
    config = compose.compose(["model=l2", f"profile={profile}"])
    assert (config.profile, config.model.name) == (profile, "efficientnet_l2")


def test_every_config_file_is_the_root_or_of_a_group_or_named_by_a_file_beside_it() -> None:
    groups = {group.partition("@")[0] for group in compose.GROUPS}
    files = {path.relative_to(compose.ROOT) for path in compose.ROOT.rglob("*.yaml")}
    parts = {path for path in files if len(path.parts) == 3}
    assert {path.parent.name for path in files - parts if path != Path("config.yaml")} == groups
    assert len(files - parts) == 1 + sum(len(compose.options(group)) for group in groups)
    for part in parts:
        beside = [path.read_text() for path in (compose.ROOT / part.parts[0]).glob("*.yaml")]
        assert any(f"- {part.parts[1]}@" in text and f": {part.stem}\n" in text for text in beside)


def test_files_are_merged_once_for_all_commands_that_choose_the_same() -> None:
    first = compose.compose(["profile=study", "model=b5", "recipe.epochs=3"])
    merged = compose._merge_files.cache_info().misses
    second = compose.compose(["profile=study", "recipe.epochs=4", "data.path=images", "model=b5"])
    refused("profile=study", "model=b5", "recipe.epochs=0", "data.limit=few")
    assert compose._merge_files.cache_info().misses == merged
    assert (first.recipe.epochs, first.data.path) == (3, None)
    assert (second.recipe.epochs, second.data.path, second.model.name) == (4, "images", "efficientnet_b5")


def test_a_setting_converts_its_section_alone() -> None:
    chosen, changed = compose._merge(("model=b5",)), compose._merge(("model=b5", "recipe.epochs=3"))
    assert isinstance(chosen, schema.Config)
    assert isinstance(changed, schema.Config)
    assert changed.recipe.epochs == 3 != chosen.recipe.epochs
    same = [entry.name for entry in dataclasses.fields(schema.Config) if entry.name != "recipe"]
    assert all(getattr(changed, name) is getattr(chosen, name) for name in same)


def test_an_override_beats_the_profile_wherever_it_stands() -> None:
    config = compose.compose(["recipe.epochs=5", "profile=laptop", "model=b3"])
    assert (config.recipe.epochs, config.model.name, config.model.width) == (5, "efficientnet_b3", 0.25)


def test_settings_and_groups_that_are_given_twice_are_refused_with_their_values() -> None:
    message = refused(
        "recipe.epochs=3", "model=b3", "data.path=/a", "recipe.epochs=5", "model=b4", "data.path=/a", "x=1"
    )
    assert "recipe.epochs is given 2 times, as '3' and '5': give it once" in message
    assert "model is given 2 times, as 'b3' and 'b4': give it once" in message
    assert "data.path" not in message
    assert "no setting named 'x'" in message
    assert compose.compose(["recipe.epochs=3", "recipe.epochs=3"]).recipe.epochs == 3


def test_overrides_are_replaced_by_those_of_the_same_setting_which_stand_last() -> None:
    assert overrides.replace(["a=1", "b=2", "a=3"], ["b=4", "c=5"]) == ["a=3", "b=4", "c=5"]


def test_the_transfer_s_settings_are_its_own() -> None:
    config = compose.compose(["transfer.recipe.epochs=9", "data@transfer.data=mnist5k"])
    assert (config.transfer.recipe.epochs, config.transfer.data.name) == (9, "mnist5k")
    assert config.recipe.epochs == compose.compose().recipe.epochs


@pytest.mark.parametrize("words", with_slow_rest([["profile=laptop"], ["profile=paper"]]))
def test_a_protocol_given_on_the_command_line_brings_its_recipe_whatever_the_profile(words: list[str]) -> None:
    found = compose.compose([*words, "transfer=kornblith"]).transfer
    assert (found.protocol, found.recipe.optimizer, found.recipe.global_batch, found.steps) == (
        "kornblith",
        "sgd",
        256,
        20_000,
    )
    assert compose.compose([*words, "transfer=author"]).transfer.recipe.lr_per_256 == schema.Recipe().lr_per_256 / 4


@pytest.mark.slow
def test_the_paper_s_profile_transfers_to_the_eight_sets_of_table_5_each_with_its_metric() -> None:
    asked = compose.compose(["profile=paper"]).transfer
    found = {name: compose.compose([f"data@transfer.data={name}"]).transfer.data for name in asked.sets}
    assert len(found) == 8
    assert [name for name, data in found.items() if data.metric == "mean per class"] == [
        "flowers102",
        "aircraft",
        "pets",
    ]
    assert all(data.minival_share >= 0.05 for name, data in found.items() if name not in ("flowers102", "aircraft"))


@pytest.mark.parametrize(
    ("override", "nearest"),
    [
        ("recipe.epoch=3", "recipe.epochs"),
        ("modle=b3", "model"),
        ("launch.nproc_per_nodes=2", "launch.nproc_per_node"),
        ("search.alhpa=[1.0]", "search.alpha"),
        ("transfer.recipe.epocs=1", "transfer.recipe.epochs"),
        # The words of other tools, which differ from the settings more than other settings do.
        ("batch_size=128", "recipe.global_batch"),
        ("recipe.batch=128", "recipe.global_batch"),
        ("transfer.recipe.batch_size=128", "transfer.recipe.global_batch"),
        ("lr=0.1", "recipe.lr_per_256"),
        ("learning_rate=0.1", "recipe.lr_per_256"),
        ("dataset=folder", "data"),
        ("num_workers=4", "runtime.loader_threads"),
        ("output_dir=/out", "run_dir"),
        ("gpus=2", "launch.nproc_per_node"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest(override: str, nearest: str) -> None:
    key = override.partition("=")[0]
    assert refused(override).startswith(f"no setting named {key!r}; did you mean {nearest!r}?")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model=b33", f"no model named 'b33'; did you mean 'b3'? {MODELS}"),
        ("profile=laptp", "no profile named 'laptp'; did you mean 'laptop'? choices: imagenette, laptop, paper, study"),
        ("data=zzz", f"no data named 'zzz'; {DATA}"),
        ("model.resolution=224", "model.resolution multiplies that of the variant: 224.0 is no multiplier"),
        ("data=/images", f"no data named '/images'; {DATA}; images of your own: data=folder data.path=/images"),
        ("data=/p/q", f"no data named '/p/q'; {DATA}; images of your own: data=folder data.path=/p/q"),
    ],
)
def test_an_unknown_option_is_refused_with_the_choices(override: str, message: str) -> None:
    assert refused(override) == message


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        (schema.Recipe, {"epochs": 0}),
        (schema.Recipe, {"precision": "fp8"}),
        (schema.Recipe, {"label_smoothing": 1.0}),
        (schema.Recipe, {"lr_per_256": 0.0}),
        (schema.Recipe, {"lr_per_256": float("nan")}),
        (schema.Recipe, {"warmup_epochs": -1.0}),
        (schema.Recipe, {"lr_decay": 0.0}),
        (schema.Recipe, {"lr_decay_epochs": 0.0}),
        (schema.Recipe, {"dropout": 1.0}),
        (schema.Recipe, {"ema_decay": 1.0}),
        (schema.Recipe, {"global_batch": 0}),
        (schema.Recipe, {"keep_checkpoints": 0}),
        (schema.Model, {"width": 0.0}),
        (schema.Model, {"survival_prob": 0.0}),
        (schema.Model, {"padding": "valid"}),
        (schema.Model, {"bn_epsilon": 0.0}),
        (schema.Model, {"preprocessing": "caffe"}),
        (schema.Published, {"origin": "keras"}),
        (schema.Published, {"resolution": 0}),
        (schema.Published, {"classes": 0}),
        (schema.Search, {"alpha": [0.5]}),
        (schema.Search, {"beta": []}),
        (schema.Search, {"tolerance": -1.0}),
        (schema.Services, {"s3": "minio"}),
        (schema.Services, {"mlflow": "aws"}),
        (schema.Config, {"storage": "runs"}),
        (schema.Config, {"variants": []}),
        (schema.Launch, {"engine": "there"}),
        (schema.Data, {"val_share": 1.0}),
        (schema.Data, {"limit": 0}),
        (schema.Launch, {"nproc_per_node": 0}),
        (schema.Augment, {"crop_area_min": 0.0}),
        (schema.Augment, {"crop_aspect_max": 0.9}),
        (schema.Data, {"metric": "accuracy"}),
        (schema.Recipe, {"optimizer": "lamb"}),
        (schema.Transfer, {"steps": 0}),
        (schema.Transfer, {"lr_per_256": [0.1]}),
        (schema.Transfer, {"lr_per_256": [0.0], "weight_decay": [0.0]}),
        (schema.Transfer, {"weight_decay": [-1.0], "lr_per_256": [0.1]}),
        (schema.Transfer, {"rungs": [0.5, 0.2]}),
        (schema.Transfer, {"rungs": [1.0]}),
        (schema.Transfer, {"keep": 0.0}),
        (schema.Transfer, {"final_split": "val"}),
    ],
)
def test_a_value_that_makes_no_sense_is_refused_by_its_name(kind: type, changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(changes))):
        kind(**changes)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("recipe.epochs=0", "recipe.epochs must be > 0, is 0"),
        (
            "services.s3=http://127.0.0.1:83x3",
            "services.s3 must have a number from 0 to 65535 as port, is 'http://127.0.0.1:83x3'",
        ),
        (
            "services.prefect=http://host:99999/api",
            "services.prefect must have a number from 0 to 65535 as port, is 'http://host:99999/api'",
        ),
        ("recipe.epochs=abc", "recipe.epochs must be a whole number, is 'abc'"),
        ("recipe.lr_per_256=fast", "recipe.lr_per_256 must be a number, is 'fast'"),
        ("data.verify_images=maybe", "data.verify_images must be true or false, is 'maybe'"),
        ("data.convert=2", "data.convert must be true or false, is '2'"),
        ("launch.device=gpu", "launch.device must be auto (the GPUs, if there are any) or cpu, is 'gpu'"),
        ("launch.device=cuda:0", "launch.device must be auto (the GPUs, if there are any) or cpu, is 'cuda:0'"),
        (
            "storage=s3://Bucket_X",
            "storage: the name of a bucket with services.s3=embedded is 3 to 63 of a-z 0-9 . - between letters or "
            "digits, and is no IP address; is 'Bucket_X'",
        ),
        ("storage=s3://", "storage must be s3://BUCKET, s3://BUCKET/FOLDER or file:///FOLDER, is 's3://'"),
        ("storage=s3:///x", "storage must be s3://BUCKET, s3://BUCKET/FOLDER or file:///FOLDER, is 's3:///x'"),
        ("storage=file://x", "storage must be s3://BUCKET, s3://BUCKET/FOLDER or file:///FOLDER, is 'file://x'"),
        ("storage=file:///", "storage must be s3://BUCKET, s3://BUCKET/FOLDER or file:///FOLDER, is 'file:///'"),
        ("data.leave_out=a.tar", "data.leave_out takes a list, data.leave_out=[A,B], is 'a.tar'"),
        ("variants=efficientnet_b0]", "variants takes a list, variants=[A,B], is 'efficientnet_b0]'"),
        ("variants=[a", "variants='[a': a bracket is missing; a list is variants=[A,B]"),
        ("recipe.epochs=1.5", "recipe.epochs must be a whole number, is '1.5'"),
        ("recipe.epochs=it's", "recipe.epochs must be a whole number, is 'it's'"),
        ("data.path=a\0b", "'data.path=a\\x00b': values may not contain a NUL character"),
        (
            "data.path=/\udcff",
            r"'data.path=/\udcff': values must be UTF-8 text; "
            "a path of other bytes must be renamed, or reached by a link",
        ),
        ("recipe.epochs=", "recipe.epochs needs a value, is ''"),
        ("data.name=", "data.name needs a value, is ''"),
        ("data.name=???", "data.name needs a value, is '???'"),
        ("data.path=", "data.path needs a value, is ''; null stands for none"),
        (
            "recipe.optimizer=adam",
            "recipe.optimizer must be one of rmsprop, adamw, sgd, is 'adam'; did you mean 'adamw'?",
        ),
        ("published={path: a},{path: b}", "published has several values, is 'published={path: a},{path: b}': give one"),
        (
            "search.recipe=paper",
            "search.recipe is a group of settings: give one as search.recipe.epochs=VALUE, or a file by "
            "recipe@search.recipe=NAME; is 'paper'",
        ),
    ],
)
def test_a_wrong_value_on_the_command_line_is_one_line_with_its_key(override: str, message: str) -> None:
    assert refused(override) == message


@pytest.mark.parametrize(
    "override",
    ["data.path=${oc.env:HOME}", "storage=s3://${oc.env:AWS_SECRET_ACCESS_KEY}", "recipe.epochs=${recipe.seed}"],
)
def test_a_value_may_not_reach_for_the_environment_or_other_settings(override: str) -> None:
    assert "values may not contain ${...}" in refused(override)


@pytest.mark.parametrize("override", ["epochs", "~recipe", "+recipe.new=1", "++recipe.epochs=1", "hydra.run.dir=x", ""])
def test_other_words_of_hydra_s_language_are_refused(override: str) -> None:
    assert "no setting named" in (message := refused(override)) or "is not KEY=VALUE" in message


def test_all_mistakes_of_a_command_are_reported_with_their_settings() -> None:
    words = [
        "recipe.epochs=0",
        "nope=1",
        "model=b99",
        "data.limit=few",
        "transfer.recipe.optimizer=adam",
        "model.width=2",
    ]
    message = refused(*words)
    for expected in (
        "no setting named 'nope'",
        "no model named 'b99'",
        "recipe.epochs must be > 0, is 0",
        "data.limit must be a whole number, is 'few'",
        "'transfer.recipe.optimizer=adam': recipe.optimizer must be one of rmsprop, adamw, sgd, is 'adam'",
    ):
        assert message.count(expected) == 1
    assert "model.width" not in message


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["launch.nnodes=2", "launch.rendezvous=host:1", "recipe.epochs=0"], "recipe.epochs must be > 0, is 0"),
        (
            ["launch.engine=slrum", "launch.gpus_per_node=4"],
            "launch.engine must be one of local, workpool, slurm, kubernetes, is 'slrum'; did you mean 'slurm'?",
        ),
        (["recipe.epochs=0", "recipe.epochs=0"], "recipe.epochs must be > 0, is 0"),
        (
            ["data=folder", "data.path", "=", "/a", "recipe.seed=5"],
            "'data.path = /a': a setting is one word, as in data.path=/a",
        ),
        (["data.path=", "/a"], "'data.path= /a': a setting is one word, as in data.path=/a"),
        (["model", "=b3"], "'model =b3': a setting is one word, as in model=b3"),
        (["recipe.epochs", "3", "data.seed=1"], "'recipe.epochs 3': a setting is one word, as in recipe.epochs=3"),
        (
            ["launch.nnodes=2", "recipe.seed=5"],
            "launch.nnodes=2 needs launch.rendezvous=HOST:PORT of the first machine",
        ),
    ],
)
def test_a_mistake_causes_no_refusal_of_a_correct_word(words: list[str], message: str) -> None:
    assert refused(*words) == message


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("data.limit=None", "data.limit: null stands for none, is 'None'"),
        ("register=none", "register: null stands for none, is 'none'"),
        ("model_ref=NULL", "model_ref: null stands for none, is 'NULL'"),
        ("experiment=null", "experiment needs a value, and null stands for none"),
    ],
)
def test_none_is_null_and_not_a_name(word: str, message: str) -> None:
    assert refused(word) == message


AS_TYPED = [
    "~nobody-here/a",
    "/données/été",
    "/daten/Käfer",
    "/a/it's",
    '/a/"b"',
    "'/a/b'",
    "/a/#1",
    "/a (1)/x",
    "/a,b/c",
    "/a/[x]",
    "[/a",
    "{a: b}",
    "s3://b/train-{000000..000009}.tar",
    "/w/epoch=3-val_acc=0.91.pth",
    "/a/$b",
    "C:\\images\\",
    "\\'",
    " /a ",
    "/a/b\n",
    "1e3",
    "0017",
    "true",
    "NULL",
]


PATHS = ("data.path", "transfer.path", "transfer.data.path", "published.path", "run_dir", "architecture.storage")


@pytest.mark.parametrize("first", range(0, len(AS_TYPED), len(PATHS)))
def test_a_text_setting_has_the_value_that_was_typed(first: int) -> None:
    given = dict(zip(PATHS, AS_TYPED[first:], strict=False))
    config = compose.compose([f"{key}={value}" for key, value in given.items()])
    assert {key: compose.read_setting(config, key) for key in given} == given


def test_every_text_setting_takes_a_text_that_another_grammar_would_read_otherwise() -> None:
    """A list of all of them in one composition; names and addresses refuse it by their own rules, not by a grammar."""
    keys = compose.keys()
    texts = [key for key in keys if key.rpartition(".")[2] in ("path", "storage", "run_dir")]
    given = {key: f"s3://buck/{number} = it's, [a] {{b}}: #1" for number, key in enumerate(texts)}
    config = compose.compose([f"{key}={value}" for key, value in given.items()])
    assert len(texts) >= 6
    assert {key: compose.read_setting(config, key) for key in texts} == given


@pytest.mark.parametrize(
    ("word", "value"),
    with_slow_rest(
        [
            ("data.path=~/images", "/folder/of/user/images"),
            (
                "photographs.images=[~/a.png,'~/b c.png',/d/~e]",
                ["/folder/of/user/a.png", "/folder/of/user/b c.png", "/d/~e"],
            ),
            ("run_dir=~", "/folder/of/user"),
            ("storage=file://~/store", "file:///folder/of/user/store"),
            ("data.path=/a/~b", "/a/~b"),
            ("data.val_folders=[~/x]", ["/folder/of/user/x"]),
        ],
        plain=2,
    ),
)
def test_the_home_is_expanded_at_the_start_of_a_path(
    word: str, value: str | list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/folder/of/user")
    compose._merge.cache_clear()
    config = compose.compose([word, "data.source=folder"])
    assert compose.read_setting(config, word.partition("=")[0]) == value
    table = compose.compose(["published={path: '~/w.pth', class_file: '~/names.txt'}"])
    assert (table.published.path, table.published.class_file) == ("/folder/of/user/w.pth", "/folder/of/user/names.txt")


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("data.leave_out=[a.tar,b.tar]", ["a.tar", "b.tar"]),
        ("data.leave_out=[ it's.tar , 'a,b.tar', \"c.tar\",]", ["it's.tar", "a,b.tar", "c.tar"]),
        ("launch.slurm.options=[--exclusive,--qos=long]", ["--exclusive", "--qos=long"]),
        ("data.leave_out=[]", []),
        ("search.alpha=[1,1.5]", [1.0, 1.5]),
        ("data.path=null", None),
        ("recipe.lr_per_256=1e-3", 0.001),
        ("recipe.recompute=True", True),
    ],
)
def test_lists_and_numbers_are_read_by_the_type_of_their_setting(word: str, value: object) -> None:
    assert compose.read_setting(compose.compose([word]), word.partition("=")[0]) == value


def job() -> schema.Job:
    return schema.Job(
        kind="train",
        data_name="x",
        manifest_uri="s3://b/m",
        manifest_sha256="0" * 64,
        model=schema.Model(width=0.1 + 0.2),
        recipe=schema.Recipe(epochs=3, dropout=None),
    )


@pytest.mark.parametrize(
    "make",
    with_slow_rest([compose.compose, lambda: compose.compose(["profile=paper", *FOLDER]), job]),
    ids=["laptop", "paper", "job"],
)
def test_yaml_and_back_is_the_same(make: Callable[[], Any]) -> None:
    value = make()
    text = compose.to_yaml(value)
    assert compose.from_yaml(type(value), text) == value
    assert compose.to_yaml(compose.from_yaml(type(value), text)) == text


def test_what_is_read_back_shares_nothing_with_what_was_read_before() -> None:
    text = compose.to_yaml(job())
    first = compose.from_yaml(schema.Job, text)
    first.recipe.epochs, first.model.name = 99, "efficientnet_b7"
    assert compose.from_yaml(schema.Job, text) == job()


def test_a_later_setting_at_its_default_is_not_written_down() -> None:
    """Else every job would get another key, and every registered model another description."""
    later = {"blocks", "padding", "bn_epsilon", "preprocessing"}
    assert not later & compose.to_request(schema.Model()).keys()
    assert "padding: same" in compose.to_yaml(schema.Model(padding="same"))
    changed = schema.Model(padding="same", bn_epsilon=1e-5, preprocessing="lite")
    assert compose.from_yaml(schema.Model, compose.to_yaml(changed)) == changed
    assert compose.to_request(changed).keys() - compose.to_request(schema.Model()).keys() == later - {"blocks"}


def test_a_renamed_setting_is_stored_under_its_old_name_and_read_back() -> None:
    recipe = schema.Recipe(batch_slices=8, bn_groups="slice")
    text = compose.to_yaml(recipe)
    assert "logical_shards: 8\n" in text
    assert "bn_groups: shard\n" in text
    assert "slice" not in text
    assert compose.from_yaml(schema.Recipe, text) == recipe
    assert compose.to_dict(job())["recipe"].items() >= {"logical_shards": 64, "shards_per_pass": None}.items()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("recipe.logical_shards=8", "recipe.logical_shards was renamed to recipe.batch_slices"),
        (
            "search.recipe.shards_per_pass=2",
            "search.recipe.shards_per_pass was renamed to search.recipe.slices_per_pass",
        ),
        ("recipe.bn_groups=shard", "recipe.bn_groups=shard was renamed to recipe.bn_groups=slice"),
    ],
)
def test_an_old_word_on_the_command_line_names_its_successor(override: str, message: str) -> None:
    assert refused(override) == message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("epochs: 3", "epochs: many"), "many"),
        (("epochs: 3", "epochs: 0"), "recipe.epochs must be > 0"),
        (("epochs: 3", "epochen: 3"), "epochen"),
        (("kind: train", "kind: ["), "while parsing"),
    ],
)
def test_yaml_that_does_not_fit_is_refused_in_one_line(change: tuple[str, str], message: str) -> None:
    text = compose.to_yaml(job())
    assert change[0] in text
    with pytest.raises(OverrideError) as caught:
        compose.from_yaml(schema.Job, text.replace(*change, 1))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_config_as_a_dict_holds_plain_values_only() -> None:
    def leaves(value: Any) -> list[Any]:
        if isinstance(value, dict):
            return [leaf for each in value.values() for leaf in leaves(each)]
        return [leaf for each in value for leaf in leaves(each)] if isinstance(value, list) else [value]

    found = compose.to_dict(compose.compose())
    assert found["recipe"]["global_batch"] == 64
    assert {type(leaf) for leaf in leaves(found)} <= {str, int, float, bool, type(None)}


def test_nested_settings_are_flattened_to_dotted_keys() -> None:
    assert compose.flatten({"a": {"b": 1, "c": {"d": [2]}}, "e": None}) == {"a.b": 1, "a.c.d": [2], "e": None}


def test_keys_are_all_settings_down_to_the_leaves() -> None:
    assert {"recipe", "recipe.epochs", "transfer.data.augment.flip_prob", "search.recipe.seed"} <= set(compose.keys())


@pytest.mark.slow
def test_the_modern_recipe_brings_its_augmentation_and_the_command_line_still_wins() -> None:
    for profile in ("laptop", "paper"):
        augment = compose.compose([f"profile={profile}", "recipe=modern"]).data.augment
        assert (augment.policy, augment.erase_prob) == ("randaugment", 0.2)
    assert compose.compose(["recipe=modern", "data.augment.policy=v0"]).data.augment.policy == "v0"
    assert compose.compose(["profile=paper"]).data.augment.policy == "v0"


def test_who_changes_a_configuration_changes_nobody_else_s() -> None:
    first = compose.compose(["model=b1"])
    first.data.augment.policy, first.recipe.epochs = "v0", 99
    first.variants.clear()
    again = compose.compose(["model=b1"])
    assert (again.data.augment.policy, again.recipe.epochs, len(again.variants)) == ("none", 8, 8)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["data.folds=3"],
            "data.folds=3 makes a val of 0.3333 of the images, and data.val_share is 0.2; data.val_share=0.333 is one",
        ),
        (["data.folds=5", "data.fold=5"], r"data.fold must be in \[0, data.folds=5\), is 5"),
        (["data.fold=1"], r"data.fold must be in \[0, data.folds=1\), is 1"),
        (["data.folds=0"], "data.folds must be > 0"),
        (["data.folds=5", "data.append=true"], "data.append keeps one val while the set grows"),
        (["data.folds=5", "data.frozen_val=a"], "data.frozen_val keeps one val while the set grows"),
    ],
)
def test_folds_that_cannot_be_are_refused(words: list[str], message: str) -> None:
    with pytest.raises(OverrideError, match=message):
        compose.compose(["data=folder", *FOLDER, "data.val_share=0.2", *words])


def test_the_seeds_run_over_the_folds_from_that_of_the_data() -> None:
    data = compose.compose(["data=digits", "data.val_share=0.2", "data.folds=5", "data.fold=3"]).data
    assert [data.for_seed(seed).fold for seed in range(6)] == [3, 4, 0, 1, 2, 3]
    assert compose.compose(["data=digits"]).data.for_seed(7) == compose.compose(["data=digits"]).data


def test_the_settings_of_folds_are_no_part_of_a_request_without_folds() -> None:
    data = compose.compose(["data=digits"]).data
    assert not {"fold", "folds"} & (compose.to_dict(data).keys() | compose.to_request(data).keys())
    assert {"folds"} <= compose.to_request(
        compose.compose(["data=digits", "data.val_share=0.2", "data.folds=5"]).data
    ).keys()


def test_a_setting_that_is_the_beginning_of_others_is_answered_with_them() -> None:
    nearest = "'recipe.lr_per_256' or 'recipe.lr_decay' or 'recipe.lr_decay_epochs'"
    assert refused("recipe.lr=0.1").startswith(f"no setting named 'recipe.lr'; did you mean {nearest}?")


@pytest.mark.parametrize(
    "name", ["ab", "UPPER", "a_b", "a..b", "-ab", "ab-", "192.168.1.1", "xn--a", "a-s3alias", "a" * 64]
)
def test_a_bucket_that_the_embedded_store_refuses_may_be_one_of_another_store(name: str) -> None:
    with pytest.raises(compose.OverrideError, match=f"^storage: .* is '{name}'$"):
        compose.compose([f"storage=s3://{name}/x"])
    assert compose.compose([f"storage=s3://{name}/x", "services.s3=aws"]).storage == f"s3://{name}/x"


@pytest.mark.parametrize("name", ["abc", "a.b-c.9", "a-.b", "1234", "a" * 63])
def test_a_bucket_that_the_embedded_store_takes_is_taken(name: str) -> None:
    assert compose.compose([f"storage=s3://{name}"]).storage == f"s3://{name}"


def test_a_name_that_no_client_sends_is_refused_for_any_store() -> None:
    for name in ("b b", "bücket", "a:b", "a" * 256):
        with pytest.raises(compose.OverrideError, match=r"^storage: the name of a bucket is 1 to 255 of A-Z a-z 0-9"):
            compose.compose([f"storage=s3://{name}", "services.s3=http://127.0.0.1:9"])
    arn = "s3://arn:aws:s3:us-east-1:123456789012:accesspoint:ours"
    assert compose.compose([f"storage={arn}", "services.s3=aws"]).storage == arn


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("runtime.cache_gb=inf", "runtime.cache_gb takes finite numbers, is 'inf'"),
        ("budget.hours=-Infinity", "budget.hours takes finite numbers, is '-Infinity'"),
        ("search.alpha=[1, nan]", "search.alpha takes finite numbers, is '[1, nan]'"),
        ("search.budget=-1", "search.budget must be >= 1, as alpha, beta and gamma are, is -1.0"),
        ("recipe.weight_decay=-1", "recipe.weight_decay must be >= 0, is -1.0"),
        ("recipe.momentum=1", "recipe.momentum must be in [0, 1), is 1.0"),
        ("recipe.rmsprop_epsilon=0", "recipe.rmsprop_epsilon must be > 0, is 0.0"),
        ("recipe.bn_momentum=-1", "recipe.bn_momentum must be in (0, 1], is -1.0"),
        ("launch.threads_per_proc=0", "launch.threads_per_proc must be > 0, is 0"),
        ("launch.rendezvous=host", "launch.rendezvous must be HOST:PORT of the first machine, is 'host'"),
        ("launch.rendezvous=host:x", "launch.rendezvous must be HOST:PORT of the first machine, is 'host:x'"),
        ("launch.max_restarts=-1", "launch.max_restarts must be >= 0, is -1"),
        ("launch.start_timeout_s=-1", "launch.start_timeout_s must be > 0, is -1.0"),
        (
            "launch.kubernetes.image=My Image",
            "launch.kubernetes.image must be letters, digits and _ . : / @ = -, is 'My I",
        ),
        ("explain.images=[3,-1]", "explain.images are ids from 0, are [3, -1]"),
        ("run_dir= ", "run_dir needs a value, is ' '"),
        ("run_dir=~nobody-here/x", "run_dir=~nobody-here/x: this machine has no user 'nobody-here' with a home folder"),
        ("storage=file://~nobody-here", "this machine has no user 'nobody-here' with a home folder"),
        ("services.s3=http://", "services.s3 must be embedded or a URL, as http://HOST:PORT, is 'http://'"),
        (
            "services.prefect=http:// x",
            "services.prefect must be embedded or a URL, as http://HOST:PORT, is 'http:// x'",
        ),
        ("storage=s3://bucket//x", "storage must be written without `//`, `/./` and `..`, is 's3://bucket//x'"),
        ("storage=file:///a/../b", "storage must be written without `//`, `/./` and `..`, is 'file:///a/../b'"),
        ("model.dropout=0.1", "no setting named 'model.dropout'; did you mean 'recipe.dropout'?"),
        ("data@transfer=digits", "no setting named 'data@transfer'; did you mean 'data' or 'data@transfer.data'?"),
    ],
)
def test_a_value_with_which_a_command_would_fail_later_is_refused(word: str, message: str) -> None:
    with pytest.raises(OverrideError) as refusal:
        compose.compose([word])
    assert message in str(refusal.value)


@pytest.mark.parametrize(
    "word",
    [
        *("services.s3=http://[::1]:9000", "services.mlflow=https://user:pw@host/path", "services.mlflow=file:///x"),
        *("services.mlflow=databricks://profile", "storage=s3://bucket/a/", "storage=file:///a/b/"),
        *("data.name=nan", "launch.kubernetes.image=registry.example:5000/a/b@sha256:0123"),
    ],
)
def test_addresses_and_names_that_work_are_taken(word: str) -> None:
    compose.compose([word])
