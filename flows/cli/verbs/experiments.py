"""Verbs that reproduce the paper, prepare data and run experiments."""

from __future__ import annotations

from functools import partial

from conf.experiments import PACKAGED
from flows.cli.verbs import settings
from flows.cli.verbs.verb import Verb

Training = partial(
    Verb,
    trains=True,
    switches={"yes": "run although the estimate exceeds budget.hours or budget.gpu_hours"},
    dry_run="flows.cli.prepare:show_jobs",
)
_PACKAGED = ", ".join(PACKAGED)
TRAINING = ("model", "data", "recipe", "nightly")  # nightly: limits of the gate by which a version becomes champion

REPRODUCTION = {
    "reproduce": Training(
        "shard, search, train the family, transfer, register, report",
        examples=("reproduce", "reproduce variants=[efficientnet_b0,efficientnet_b1]"),
        settings={"variants=[NAME,...]": "only these networks of the family", **settings.TRAINING},
        notes=("It leaves RUN_DIR/latest/summary.json and RUN_DIR/latest/report.html.",),
        flow="flows.reproduce:reproduce",
        reads=(*TRAINING, "search", "transfer", "explain", "photographs", "variants"),
        opens_data=True,
    ),
    "study": Training(
        "scaling, linear, transfer, architecture, latency, then report",
        examples=("study profile=study",),
        settings={"profile=study": "on photographs; then the settings of these verbs apply"},
        notes=("The same command resumes where it stopped. A part that fails does not stop the others.",),
        flow="flows.study:study",
        reads=(*TRAINING, "scaling", "linear", "transfer", "architecture", "latency", "variants"),
        opens_data=True,
    ),
    "gate": Verb(
        "check machine, data and weights before training on ImageNet",
        examples=("gate profile=paper data.path=/data/imagenet gate.weights=[tf_efficientnet_b0_aa-827b6e33.pth]",),
        settings={
            "gate.weights=[FILE,...]": "Google's weights as timm publishes them, whose accuracy is known",
            "gate.tolerance=POINTS": "by which an accuracy may differ from the published one",
            "launch.nproc_per_node=N": "GPUs of this machine",
        },
        notes=("It trains nothing, and its exit code is 1 unless all checks passed.",),
        flow="flows.gate:gate",
        reads=("model", "data", "recipe", "variants", "gate"),
    ),
    "plan": Verb(
        "count parameters, multiply-adds, memory, hours and money",
        examples=("plan profile=paper --price 3", "plan study profile=study"),
        settings={
            "variants=[NAME,...]": "only these networks of the family",
            **settings.TRAINING,
            "recipe.batch_slices=N": "parts of a batch; recipe.bn_groups: whose statistics batch norm takes",
            "runtime.pipeline_stages=N": "GPUs that share a network",
            "budget.hours=N": "of the verb; above it the verb asks, or needs --yes; also budget.gpu_hours",
        },
        notes=(
            "VERB is reproduce by default, or another verb that trains, e.g. nightly. Nothing is started, and jobs "
            "whose results are stored are not counted.",
        ),
        call="flows.cli.prepare:plan",
        json=True,
        objects=("[VERB]",),
        options={"price": ("[PRICE]", "price of an hour of a GPU, to print the money")},
        switches={"probe": "measure the speeds of this machine first, which takes seconds, instead of a table's"},
    ),
    "config": Verb(
        "print all settings of a command",
        examples=("config model=b3 recipe.epochs=2 --why",),
        shared_settings=False,
        call="flows.cli.prepare:config",
        json=True,
        switches={"why": "print the word, or the file of conf/, that each value comes from"},
    ),
    "report": Verb("render the report again, of whatever has been run so far", flow="flows.report:report"),
}

DATA = {
    "download": Verb(
        "fetch a data set from its public address, or say where it is",
        examples=("download cifar10 data.path=/data/cifar10",),
        settings={"data.path=FOLDER": "where the files go"},
        notes=(
            f"DATASET is one of {settings.names('data')}.",
            "An interrupted download is resumed, and a file is kept only if its md5 is the published one.",
        ),
        shared_settings=False,
        call="flows.cli.prepare:download",
        objects=("[DATASET]",),
        shared=True,
    ),
    "shard": Verb(
        "write a data set as WebDataset shards into the object store",
        examples=("shard data=folder data.path=/data/products data.name=products",),
        settings={**settings.DATA, "data.samples_per_shard=N": "images in a shard"},
        flow="flows.shard:shard",
        reads=("data",),
        opens_data=True,
        takes_one_class=True,
    ),
}

EXPERIMENTS = {
    "search": Training(
        "grid search of alpha, beta, gamma under alpha*beta^2*gamma^2 = 2",
        examples=("search search.alpha=[1.0,1.2] search.beta=[1.0,1.1] search.gamma=[1.0,1.15]",),
        settings={
            "search.alpha=[X,...]": "depths to try; search.beta widths, search.gamma resolutions",
            "search.tolerance=X": "deviation of alpha*beta^2*gamma^2 from 2; search.counted_tolerance: of the counted",
            "search.recipe.epochs=N": "length of a trial",
            "search.seeds=N": "compare the points over so many trainings each",
            **settings.TRAINING,
        },
        flow="flows.search:search",
        reads=(*TRAINING, "search"),
        opens_data=True,
    ),
    "architecture": Training(
        "search the baseline's blocks by accuracy and multiply-adds",
        examples=(
            "architecture architecture.trials=20",
            "train model.blocks=[r1_k3_s11_e1_i32_o16_se0.25,...]   # trains its result",
        ),
        settings={
            "architecture.trials=N": "networks to try, B0's blocks among them",
            "architecture.sampler=NAME": "nsga2 or tpe",
            "architecture.seed=N": "seed of the proposals",
            "architecture.recipe.epochs=N": "length of a trial",
            "architecture.target_multiply_adds=X": "cost at which the paper's objective is neutral",
            "architecture.max_cost=X": "limit of a network, as a multiple of that",
            "architecture.storage=URL": "one search on several machines, e.g. postgresql+psycopg://host/name",
            **settings.DATA,
            "launch.jobs_at_once=N": "trials side by side",
        },
        flow="flows.architecture:architecture",
        reads=(*TRAINING, "architecture"),
        opens_data=True,
    ),
    "scaling": Training(
        "scale width, depth or resolution alone, and all three together",
        examples=(
            "scaling scaling=equal_cost scaling.equal_cost=4 scaling.seeds=3",
            "scaling scaling.points=[{network:resnet50},{network:resnet50,dimension:width,width:2.0}]",
        ),
        settings={
            "scaling=NAME": f"{settings.names('scaling')}; paper: Figures 3, 4 and 8 too",
            "scaling.equal_cost=N": "four ways to spend N times the multiply-adds",
            "scaling.seeds=N": "trainings of each point",
            "scaling.points=[{...},...]": "only these; their multipliers come on top of the model's",
            **settings.TRAINING,
        },
        flow="flows.scaling:scaling",
        reads=(*TRAINING, "scaling"),
        opens_data=True,
    ),
    "linear": Verb(
        "logistic regression on frozen features of public networks",
        examples=("linear profile=study",),
        settings={
            "linear.networks=[NAME,...]": f"of {_PACKAGED}",
            "linear.seeds=N": "random networks, against which ImageNet's weights are compared",
        },
        flow="flows.linear:linear",
        reads=("data", "linear"),
        opens_data=True,
    ),
    "explain": Training(
        "class activation maps of the baseline and its scaled versions",
        examples=("explain explain.models=[{},{depth:4.0},{network:resnet50},{registered:efficientnet-b0@champion}]",),
        settings={
            "explain.models=[{...},...]": "networks, which are trained unless they were",
            "explain.count=N": "images of val, of different classes; explain.images=[0,7]: these images",
            "explain.recipe.epochs=N": "length of a training",
            **settings.DATA,
        },
        notes=("The maps go into the report and into MLflow.",),
        flow="flows.explain:explain",
        reads=(*TRAINING, "explain"),
        opens_data=True,
        takes_one_class=True,
    ),
    "photographs": Verb(
        "class activation maps of public ImageNet networks on photographs",
        examples=("photographs photographs.images=[cat.jpg,dog.jpg]",),
        settings={
            "photographs.networks=[NAME,...]": f"of {_PACKAGED}, imported from Python packages",
            "photographs.images=[FILE,...]": "instead of the three photographs that Python packages contain",
        },
        notes=("It trains nothing. The networks are registered; the maps go into the report and into MLflow.",),
        flow="flows.photographs:photographs",
        reads=("photographs",),
    ),
    "latency": Verb(
        "CPU latency of B1 and B4 beside their rivals', and of B7",
        examples=("latency latency.pairs=[{ours:efficientnet_b1,rival:resnet152}]",),
        settings={
            "latency.pairs=[{...},...]": "networks that are measured in turns",
            "latency.n=N": "measurements of each",
            "latency.throughput_batch=N": "images of a batch of the throughput; latency.throughput_n: batches",
        },
        flow="flows.latency:latency",
        reads=("model", "latency"),
    ),
}
