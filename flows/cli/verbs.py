"""The one table of verbs: parser, help, flows and their tests are made from it.

To add a verb, add a row here. It names the flow that it runs, or else the function that it calls.
"""

from __future__ import annotations

from functools import partial

from conf.compose import options
from conf.experiments import ORIGINS, PACKAGED
from conf.launch import ENGINES
from conf.training import PREPROCESSINGS
from flows.cli.verb import Verb


def _choices(group: str) -> str:
    return "|".join(options(group))


_COMMON = f"""\
most used settings:
  profile={_choices("profile")}   size of everything (default laptop)
  run_dir=PATH                     local files: services, logs, cache, reports (default runs)
  storage=s3://BUCKET/PREFIX       where data, checkpoints and weights go
  services.s3=URL services.prefect=URL services.mlflow=URL   use yours instead of the embedded ones
  services.auth=false              Prefect and MLflow ask for no password: every local user can run code as you"""

_TRAIN = f"""\
  model={_choices("model")}   model.width=X model.depth=X model.resolution=X
  data={_choices("data")}   data.path=PATH data.limit=N
  recipe={_choices("recipe")}   recipe.epochs=N recipe.global_batch=N recipe.seed=N
  launch.nproc_per_node=N launch.jobs_at_once=N"""


_Training = partial(
    Verb,
    trains=True,
    switches={"yes": "run although the estimate exceeds budget.hours or budget.gpu_hours"},
    dry_run="flows.cli.prepare:show_jobs",
)
VERBS: dict[str, Verb] = {
    "reproduce": _Training(
        "everything: shard, search, train the family, transfer, register, report",
        f"{_COMMON}\n{_TRAIN}\n  variants=[efficientnet_b0,efficientnet_b1]   only these\n\n"
        "leaves RUN_DIR/latest/summary.json and RUN_DIR/latest/report.html",
        flow="flows.reproduce:reproduce",
    ),
    "download": Verb(
        "fetch a data set from its public address, or say where it is",
        f"  effnet download DATASET data.path=FOLDER   DATASET: {_choices('data')}\n\n"
        "resumes where it stopped; a file is kept only when its published md5 agrees",
        call="flows.cli.prepare:download",
        objects=("[DATASET]",),
        shared=True,
    ),
    "shard": Verb(
        "write a data set as WebDataset shards into the object store",
        f"{_COMMON}\n  data={_choices('data')}   data.path=PATH data.samples_per_shard=N data.limit=N",
        flow="flows.shard:shard",
    ),
    "search": _Training(
        "grid search of alpha, beta, gamma under alpha*beta^2*gamma^2 = 2",
        f"{_COMMON}\n{_TRAIN}\n  search.alpha=[1.0,1.2] search.beta=[1.0,1.1] search.gamma=[1.0,1.15]\n"
        "  search.tolerance=X search.counted_tolerance=X search.recipe.epochs=N\n"
        "  search.seeds=3   compare the points over three trainings each",
        flow="flows.search:search",
    ),
    "architecture": _Training(
        "search the baseline's blocks by accuracy and multiply-adds, B0's own among them",
        f"{_COMMON}\n  data={_choices('data')}   data.path=PATH data.limit=N\n"
        "  architecture.trials=N architecture.sampler=nsga2|tpe architecture.seed=N architecture.recipe.epochs=N\n"
        "  architecture.target_multiply_adds=X architecture.max_cost=X launch.jobs_at_once=N\n"
        "  architecture.storage=URL         one search on several machines, e.g. postgresql+psycopg://host/name\n\n"
        "train its result:  effnet train model.blocks=[r1_k3_s11_e1_i32_o16_se0.25,...]",
        flow="flows.architecture:architecture",
    ),
    "scaling": _Training(
        "scale networks in width, depth or resolution alone, and in all three together",
        f"{_COMMON}\n{_TRAIN}\n  scaling={_choices('scaling')}   paper: Figures 3, 4 and 8 too\n"
        "  scaling=equal_cost scaling.equal_cost=4 scaling.seeds=3   four ways to spend the same multiply-adds\n"
        "  scaling.points=[{network:resnet50},{network:resnet50,dimension:width,width:2.0}]   only these\n\n"
        "multipliers of a point come on top of model.width, model.depth and model.resolution",
        flow="flows.scaling:scaling",
    ),
    "train": _Training(
        "train one network with torchrun, or continue it",
        f"{_COMMON}\n{_TRAIN}\n  launch.engine={'|'.join(ENGINES)} launch.nnodes=N   where it runs\n"
        "  register=NAME   register it; it becomes champion of NAME if it passes the gate",
        flow="flows.train:train",
        dry_run="flows.cli.prepare:show_training",
    ),
    "evaluate": Verb(
        "evaluate a registered model on the val split",
        f"{_COMMON}\n  model_ref=NAME@ALIAS or NAME/VERSION   e.g. efficientnet-b0@champion\n  data={_choices('data')}",
        flow="flows.evaluate:evaluate",
        dry_run="flows.cli.prepare:show_jobs",
        needs=("model_ref", "efficientnet-b0@champion"),
    ),
    "transfer": _Training(
        "fine-tune a trained network on the transfer sets",
        f"{_COMMON}\n{_TRAIN}\n  transfer={_choices('transfer')}   the protocol\n"
        f"  data@transfer.data={_choices('data')}\n"
        "  transfer.sets=[cifar10,pets] transfer.path=FOLDER   several, each in the folder of its name\n"
        "  transfer.recipe.epochs=N   model_ref=NAME@ALIAS: start from a registered network\n"
        "  transfer.random_seeds=N   against as many trainings from random weights\n\n"
        "says what it will cost before anything is trained",
        flow="flows.transfer:transfer",
    ),
    "explain": _Training(
        "class activation maps of the baseline and its scaled versions, on the same images",
        f"{_COMMON}\n  data={_choices('data')}   explain.recipe.epochs=N\n"
        "  explain.count=N or explain.images=[0,7]   images of val: N of different classes, or these\n"
        "  explain.models=[{},{depth:4.0},{network:resnet50},{registered:efficientnet-b0@champion}]\n\n"
        "networks are trained unless they were; the maps go into the report and into MLflow",
        flow="flows.explain:explain",
    ),
    "latency": Verb(
        "CPU latency and throughput of B1 and B4 beside their rivals, and of B7, in turns",
        f"{_COMMON}\n  latency.n=N latency.throughput_batch=N latency.throughput_n=N\n"
        "  latency.pairs=[{ours:efficientnet_b1,rival:resnet152}]",
        flow="flows.latency:latency",
    ),
    "linear": Verb(
        "logistic regression on frozen features: ImageNet's weights against random ones",
        f"{_COMMON}\n  linear.networks=[{','.join(PACKAGED)}] linear.seeds=N\n\non photographs: profile=study",
        flow="flows.linear:linear",
    ),
    "photographs": Verb(
        "class activation maps of public ImageNet networks on photographs",
        f"{_COMMON}\n  photographs.networks=[{','.join(PACKAGED)}]   imported from Python packages\n"
        "  photographs.images=[FILE,...]   instead of the three photographs that Python packages contain\n\n"
        "trains nothing; the networks are registered, and the maps go into the report and into MLflow",
        flow="flows.photographs:photographs",
    ),
    "nightly": Verb(
        "fine-tune the registered champion, evaluate, register, promote if better",
        f"{_COMMON}\n  nightly.model=NAME   registered model whose champion the first night starts from\n"
        f"  data@transfer.data={_choices('data')}   transfer.recipe.epochs=N\n"
        "  nightly.val=NAME     another name takes a new val of a folder that has grown\n\n"
        "every night at 3, with these settings:  effnet nightly --schedule '0 3 * * *' --timezone Europe/Berlin ...",
        flow="flows.nightly:nightly",
        manage="flows.cli.schedule:manage",
        dry_run="flows.cli.prepare:show_jobs",
        options={
            "schedule": ("[CRON]", "start the deployment nightly at these times; train nothing now"),
            "timezone": ("[ZONE]", "time zone of the schedule (default: unchanged, at first UTC)"),
        },
        switches={"pause": "stop the schedule", "show": "print it and its nights", "test-alert": "send a test alert"},
        trains=True,
    ),
    "promote": Verb(
        "make a registered version champion by hand",
        "  effnet promote NAME/VERSION --why TEXT\n\n"
        "recorded with user, time and reason in STORAGE/champions/NAME; the champion before is NAME@previous",
        call="flows.cli.champions:promote",
        json=True,
        options={"why": ("TEXT", "reason, for the record")},
        objects=("NAME/VERSION",),
    ),
    "rollback": Verb(
        "make the version champion that was champion before",
        "  effnet rollback NAME [--why TEXT]\n\n"
        "recorded as by effnet promote; the version stays down until someone promotes it, images that came with it too",
        call="flows.cli.champions:rollback",
        json=True,
        options={"why": ("[TEXT]", "reason, for the record")},
        objects=("NAME",),
    ),
    "register": Verb(
        "register the weights of a finished training job",
        "  effnet register JOB [register=NAME]   JOB: its key, its run as for `effnet logs`, or its run folder\n"
        "  NAME: default efficientnet-b0, or efficientnet-b0-DATA for a fine-tuned network\n\n"
        "the version becomes champion of NAME if it passes the gate; effnet train and transfer take register=NAME too",
        flow="flows.register:register",
        objects=("JOB",),
    ),
    "import": Verb(
        "register public weights: a state dict of timm, torchvision or lukemelas' efficientnet-pytorch",
        f"{_COMMON}\n  published.path=FILE   .safetensors or .pth, local or s3://; each tensor must fit\n"
        f"  published.origin={'|'.join(ORIGINS)}   read from the file and its name where it is not given\n"
        "  published.network=efficientnet_b0 published.classes=1000 published.resolution=PX published.sha256=HEX\n"
        f"  published.preprocessing={'|'.join(PREPROCESSINGS)}   pixels that the weights expect\n"
        "  published.name=NAME   in the registry\n\n"
        "then: effnet evaluate model_ref=efficientnet-b0-timm@champion data=imagenet data.path=FOLDER",
        flow="flows.import_:import_",
        needs=("published.path", "efficientnet-b0-355c32eb.pth"),
    ),
    "gate": Verb(
        "check machine, data and published accuracies before GPU time is spent on ImageNet",
        f"{_COMMON}\n  gate.weights=[FILE,...]   Google's weights in timm, tf_efficientnet_b0_aa-827b6e33.pth ...\n"
        "  gate.tolerance=POINTS      launch.nproc_per_node=N   GPUs of this machine\n\n"
        "effnet gate profile=paper data.path=FOLDER; trains nothing, and ends with 1 unless all checks passed",
        flow="flows.gate:gate",
    ),
    "report": Verb("render the report again, of whatever has been run so far", _COMMON, flow="flows.report:report"),
    "study": _Training(
        "scaling study, frozen and fine-tuned features, architecture search and latency, then the report",
        f"{_COMMON}\n  profile=study: on photographs; settings of scaling, linear, transfer, architecture\n\n"
        "the same command resumes where it stopped; a part that fails stops no other",
        flow="flows.study:study",
    ),
    "plan": Verb(
        "count what a command needs: parameters, multiply-adds, memory, hours, money",
        "  effnet plan [VERB]   VERB: reproduce (default) or another verb that trains, e.g. study, nightly\n"
        f"{_COMMON}\n{_TRAIN}\n  variants=[efficientnet_b7] recipe.batch_slices=N recipe.bn_groups=slice|rank|sync\n"
        "  runtime.pipeline_stages=N\n\nnothing is started; jobs whose results are stored are not counted\n"
        "budget.hours=N budget.gpu_hours=N of those verbs: an estimate above it needs --yes, or a yes in the terminal",
        call="flows.cli.prepare:plan",
        json=True,
        objects=("[VERB]",),
        options={"price": ("[PRICE]", "price of an hour of a GPU, to print the money")},
        switches={"probe": "measure the speeds of this machine first, which takes seconds, instead of a table's"},
    ),
    "config": Verb(
        "print all settings of a command",
        "  effnet config model=b3 recipe.epochs=2 --why   with the word, or the file of conf/, that each comes from",
        call="flows.cli.prepare:config",
        json=True,
        switches={"why": "print where each value comes from"},
    ),
    "models": Verb(
        "list the registered models, or all versions of one",
        "  effnet models            one line per model: its champion, or else its newest version\n"
        "  effnet models NAME       all versions of a model, or the models whose name or data contain NAME",
        call="flows.cli.browse:models",
        json=True,
        objects=("[NAME]",),
    ),
    "runs": Verb(
        "list the newest runs, or those whose name contains a word",
        "  effnet runs [NAME]   experiment=NAME of MLflow (default effnet)",
        call="flows.cli.browse:runs",
        json=True,
        objects=("[NAME]",),
    ),
    "logs": Verb(
        "print what the workers of a job wrote",
        "  effnet logs RUN   its id, its key, the beginning of one, or its name: the newest run of that name",
        call="flows.cli.browse:logs",
        objects=("RUN",),
    ),
    "diff": Verb(
        "print where two runs or two registered models differ",
        "  effnet diff A B   runs as for `effnet logs`, or NAME@ALIAS or NAME/VERSION: settings, code, data, results",
        call="flows.cli.browse:diff",
        json=True,
        objects=("A", "B"),
    ),
    "status": Verb(
        "print what runs: services, flows, and jobs with the time left",
        "  effnet status   run_dir=PATH of the services (default runs)",
        call="flows.cli.control:status",
        json=True,
    ),
    "cancel": Verb(
        "end a flow that runs, after its jobs have saved their state",
        "  effnet cancel FLOW   its name, or the beginning of its id, as `effnet status` prints them",
        call="flows.cli.control:cancel",
        objects=("FLOW",),
    ),
    "rerun": Verb(
        "run the command of a run again",
        "  effnet rerun RUN [key=value ...]   RUN as for `effnet logs`; these settings replace those of the run\n\n"
        "prints the command first; what is done is taken from the store, what is missing is made",
        call="flows.cli.control:rerun",
        objects=("RUN",),
    ),
    "export": Verb(
        "write a registered model as ONNX or torch.export, for programs without effnet",
        "  effnet export MODEL --onnx FILE.onnx --pt2 FILE.pt2   MODEL: NAME@ALIAS or NAME/VERSION\n\n"
        "it takes normalized images of any number; a file is kept only if its logits of 64 images agree\n"
        "--int8 prints both accuracies on val; --onnx needs the extra: pip install 'effnet[export]'",
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
        "answer HTTP requests on 127.0.0.1: an image in, class names and probabilities out",
        "  effnet serve NAME@ALIAS --port 8000   when the alias moves, the new version replaces the old one\n\n"
        "curl --data-binary @IMAGE http://127.0.0.1:8000/predict   also /health, /metrics, and a page at /",
        call="flows.cli.use:serve",
        objects=("MODEL",),
        options={
            "port": ("[PORT]", "port on 127.0.0.1 (default 8000)"),
            "max-batch": ("[N]", "images that are classified together (default 16)"),
            "max-wait-ms": ("[MS]", "time for which an incomplete batch waits for more images (default 0)"),
            "max-requests": ("[N]", "requests in progress, beyond which one is answered with 503 (default 64)"),
        },
    ),
    "deploy": Verb(
        "set up a Prefect server: work pool, limit, heartbeat automation, deployments",
        "  effnet deploy services.prefect=URL   credentials: PREFECT_API_AUTH_STRING or PREFECT_API_KEY\n"
        "  launch.jobs_at_once=N   limit `accelerator` of jobs that flows run themselves; kept if not given\n\n"
        "prints every change and makes it; run again, it changes nothing. Objects of others are not touched",
        call="flows.cli.deploy:deploy",
        dry_run="flows.cli.deploy:show_changes",
        options={
            "file": ("[PATH]", "definitions of the deployments (default: those of effnet, infra/prefect.yaml)"),
            "pool": ("[NAME]", "work pool (default effnet)"),
            "pods": ("[NAME]", "work pool of type kubernetes for jobs, each of which is a pod of launch.kubernetes"),
        },
    ),
    "worker": Verb(
        "run jobs of launch.engine=workpool on this machine, until it is stopped",
        "  effnet worker services.prefect=URL services.s3=URL services.mlflow=URL storage=s3://BUCKET/PREFIX\n"
        "  addresses may be variables too: PREFECT_API_URL, AWS_ENDPOINT_URL_S3, MLFLOW_TRACKING_URI\n"
        "  launch.nproc_per_node=N   GPUs of a job   launch.jobs_at_once=N   jobs on a machine without GPUs\n"
        "  run_dir=PATH              its files: cache, logs (default runs)\n\n"
        "checks the machine first; when it is stopped, its jobs save their state and other workers resume them",
        call="flows.cli.worker:worker",
        switches={"flows": "take whole flows of the deployments, e.g. the schedule's, instead of jobs"},
        options={
            "pool": ("[NAME]", "work pool (default effnet)"),
            "gpus": ("[LIST]", "GPUs to use, e.g. 0,2, or none (default: all)"),
            "name": ("[NAME]", "its name in Prefect and MLflow (default: the host's)"),
        },
    ),
    "prune": Verb(
        "delete from the object store what nothing points to",
        "  effnet prune [--yes]   prune.older_than_days=N (default 30) prune.keep_nights=N (default 7)\n\n"
        "prints checkpoints, jobs, data, weights and versions of nights, with their bytes, and asks before it deletes",
        call="flows.cli.prune:prune",
        json=True,
        dry_run="flows.cli.prune:show_removals",
        switches={"yes": "delete without a question"},
    ),
    "up": Verb(
        "start the embedded services, or find them",
        f"{_COMMON}\n\nall settings given here, of whatever kind, are the defaults of the deployments' runs",
        call="flows.cli.services:up",
    ),
    "open": Verb(
        "open Prefect or MLflow in a browser, logged in",
        "  effnet open prefect|mlflow   run_dir=PATH of the services (default runs)\n\n"
        "prints the link instead where there is no browser; the link holds the password",
        call="flows.cli.services:open_page",
        objects=("PAGE",),
    ),
    "env": Verb(
        "print the variables that lead other programs to the services",
        f'{_COMMON}\n\neval "$(effnet env)" makes prefect, mlflow and boto3 of this shell use them; it holds passwords',
        call="flows.cli.services:print_environment",
    ),
    "completion": Verb(
        "print a script by which a shell completes verbs, options, settings and files of conf/",
        '  bash:  eval "$(effnet completion bash)"   in ~/.bashrc\n'
        '  zsh:   eval "$(effnet completion zsh)"    in ~/.zshrc, after compinit\n'
        "  fish:  effnet completion fish > ~/.config/fish/completions/effnet.fish",
        call="flows.cli.completion:print_script",
        objects=("SHELL",),
        shared=True,
    ),
    "down": Verb("stop the embedded services", _COMMON, call="flows.cli.services:down"),
    "doctor": Verb(
        "check whether this machine and the services are fit", _COMMON, call="flows.cli.services:doctor", json=True
    ),
}
