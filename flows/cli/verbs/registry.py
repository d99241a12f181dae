"""Verbs that make models, and that handle registered ones."""

from __future__ import annotations

from conf.experiments import ORIGINS
from conf.launch import ENGINES
from conf.training import PREPROCESSINGS
from flows.cli.verbs import settings
from flows.cli.verbs.experiments import TRAINING, Training
from flows.cli.verbs.verb import Verb

_MODEL_REF = {"model_ref=MODEL": "registered network: NAME@ALIAS or NAME/VERSION"}

MODELS = {
    "train": Training(
        "train one network with torchrun, or continue it",
        examples=("train model=b3 recipe.epochs=2", "train data=folder data.path=/data/products register=products"),
        settings={
            **settings.TRAINING,
            "launch.engine=NAME": f"where it runs: {', '.join(ENGINES)}; launch.nnodes=N machines",
            "register=NAME": "register it; it becomes champion of NAME if it passes the gate",
        },
        flow="flows.train:train",
        reads=TRAINING,
        opens_data=True,
        registers=True,
        dry_run="flows.cli.prepare:show_training",
    ),
    "evaluate": Verb(
        "evaluate a registered model on the val split",
        examples=("evaluate model_ref=efficientnet-b0@champion data=mnist5k",),
        settings={**_MODEL_REF, **settings.DATA},
        flow="flows.evaluate:evaluate",
        reads=("data", "model", "model_ref"),
        opens_data=True,
        takes_one_class=True,
        dry_run="flows.cli.prepare:show_jobs",
        needs=("model_ref", "efficientnet-b0@champion"),
    ),
    "transfer": Training(
        "fine-tune a trained network on the transfer sets",
        examples=(
            "transfer model_ref=efficientnet-b0@champion data@transfer.data=folder transfer.data.path=/data/pets",
        ),
        settings={
            **{key: f"{effect}; where to start from" for key, effect in _MODEL_REF.items()},
            "transfer=NAME": f"the protocol: {settings.names('transfer')}",
            "data@transfer.data=NAME": "data set, as data=NAME; transfer.data.path: its images",
            "transfer.sets=[cifar10,pets]": "several; transfer.path=FOLDER has a folder of each name",
            "transfer.recipe.epochs=N": "length of a fine-tuning",
            "transfer.random_seeds=N": "compare with as many trainings from random weights",
            **settings.TRAINING,
        },
        notes=("The cost is printed before anything is trained.",),
        flow="flows.transfer:transfer",
        reads=(*TRAINING, "transfer", "model_ref"),
        registers=True,
    ),
    "import": Verb(
        "register public weights of timm, torchvision or lukemelas",
        examples=(
            "import published.path=tf_efficientnet_b3-e3bd6955.pth",
            "evaluate model_ref=efficientnet-b3-timm-tf@champion data=imagenet data.path=FOLDER",
        ),
        settings={
            "published.path=FILE": "state dict, .safetensors or .pth, local or s3://; each tensor must fit",
            "published.origin=NAME": f"{', '.join(ORIGINS)}; by default read from the file and its name",
            "published.network=NAME": "likewise, e.g. efficientnet_b0; also published.classes, published.resolution",
            "published.preprocessing=NAME": f"pixels that the weights expect: {', '.join(PREPROCESSINGS)}",
            "published.sha256=HEX": "digest that the file must have",
            "published.name=NAME": "in the registry",
        },
        flow="flows.import_:import_",
        reads=("nightly", "published"),
        needs=("published.path", "efficientnet-b0-355c32eb.pth"),
    ),
    "nightly": Verb(
        "fine-tune the champion on new data, promote what is better",
        examples=(
            "nightly nightly.model=efficientnet-b3 data@transfer.data=folder transfer.data.path=/data/products",
            "nightly --schedule '0 3 * * *' --timezone Europe/Berlin ...   # every night, with these settings",
        ),
        settings={
            "nightly.model=NAME": "registered model whose champion the first night starts from",
            "data@transfer.data=NAME": settings.names("data"),
            "transfer.data.path=PATH": "the folder of images, which grows",
            "transfer.recipe.epochs=N": "length of the fine-tuning",
            "nightly.val=NAME": "another name takes a new val of a folder that has grown",
        },
        flow="flows.nightly:nightly",
        reads=("nightly", "transfer"),
        manage="flows.cli.schedule:manage",
        dry_run="flows.cli.prepare:show_jobs",
        options={
            "schedule": ("[CRON]", "start the deployment nightly at these times; train nothing now"),
            "timezone": ("[ZONE]", "time zone of the schedule (default: unchanged, at first UTC)"),
        },
        switches={"pause": "stop the schedule", "show": "print it and its nights", "test-alert": "send a test alert"},
        trains=True,
    ),
}

REGISTRY = {
    "models": Verb(
        "list the registered models, or all versions of one",
        examples=("models", "models efficientnet-b0"),
        notes=(
            "A line per model: its champion, or else its newest version. With NAME: all versions of that model, or the "
            "models whose name or data contain NAME.",
        ),
        shared_settings=False,
        call="flows.cli.browse:models",
        json=True,
        objects=("[NAME]",),
    ),
    "register": Verb(
        "register the weights of a finished training job",
        examples=("register train-b3-5f0c9a31 register=products",),
        settings={"register=NAME": "default efficientnet-b0, or efficientnet-b0-DATA for a fine-tuned network"},
        notes=(
            "JOB is its key, its run as for `effnet logs`, or its run folder. The version becomes champion of NAME if "
            "it passes the gate. `effnet train` and `effnet transfer` take register=NAME too.",
        ),
        shared_settings=False,
        flow="flows.register:register",
        reads=("nightly",),
        registers=True,
        objects=("JOB",),
    ),
    "promote": Verb(
        "make a registered version champion by hand",
        examples=("promote efficientnet-b0/2 --why 'better on night images'",),
        notes=("User, time and reason are recorded in STORAGE/champions/NAME. The former champion is NAME@previous.",),
        shared_settings=False,
        call="flows.cli.champions:promote",
        json=True,
        options={"why": ("TEXT", "reason, for the record")},
        objects=("NAME/VERSION",),
    ),
    "rollback": Verb(
        "make the version champion that was champion before",
        examples=("rollback efficientnet-b0 --why 'confuses cats with dogs'",),
        notes=(
            "It is recorded as by `effnet promote`. The version stays down until someone promotes it, and so do the "
            "images that came with it.",
        ),
        shared_settings=False,
        call="flows.cli.champions:rollback",
        json=True,
        options={"why": ("[TEXT]", "reason, for the record")},
        objects=("NAME",),
    ),
    "export": Verb(
        "write a registered model as ONNX or torch.export",
        examples=("export efficientnet-b0@champion --onnx b0.onnx --pt2 b0.pt2",),
        notes=(
            "MODEL is NAME@ALIAS or NAME/VERSION. Programs use the file without effnet: it takes normalized images of "
            "any number, and is kept only if its logits of 64 images agree.",
            "--onnx needs the extra: pip install 'effnet[export]'. --int8 prints both accuracies on val.",
        ),
        shared_settings=False,
        call="flows.cli.use:export",
        json=True,
        objects=("MODEL",),
        switches={"int8": "quantize the ONNX file to 8-bit integers"},
        options={
            "onnx": ("[PATH]", "write an ONNX file"),
            "pt2": ("[PATH]", "write a file of torch.export"),
            "max-loss": ("[POINTS]", "points of top-1 that --int8 may lose (default 1)"),
        },
    ),
    "serve": Verb(
        "classify images over HTTP with a registered model",
        examples=(
            "serve efficientnet-b0@champion --port 8000",
            "curl --data-binary @IMAGE http://127.0.0.1:8000/predict",
        ),
        notes=(
            "It listens on 127.0.0.1 only: /predict takes an image and gives class names and probabilities; also "
            "/health, /metrics, and a page at /. When the alias moves, the new version replaces the old one.",
        ),
        shared_settings=False,
        call="flows.cli.use:serve",
        objects=("MODEL",),
        options={
            "port": ("[PORT]", "port on 127.0.0.1 (default 8000)"),
            "max-batch": ("[N]", "images that are classified together (default 16)"),
            "max-wait-ms": ("[MS]", "time for which an incomplete batch waits for more images (default 0)"),
            "max-requests": ("[N]", "requests in progress, beyond which one is answered with 503 (default 64)"),
        },
    ),
    "prune": Verb(
        "delete what nothing points to, and old reports",
        examples=("prune --dry-run", "prune --yes prune.older_than_days=60"),
        settings={
            "prune.older_than_days=N": "what is younger is kept (default 30)",
            "prune.keep_nights=N": "the last nights of each line, which are kept (default 7)",
        },
        notes=(
            "It prints checkpoints, jobs, data, weights, versions of nights and old reports in the run folder, with "
            "their bytes, and asks before it deletes.",
        ),
        shared_settings=False,
        call="flows.cli.prune:prune",
        json=True,
        dry_run="flows.cli.prune:show_removals",
        switches={"yes": "delete without a question"},
    ),
}
