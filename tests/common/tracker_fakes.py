"""Modules in place of wandb 0.31, mlflow 3.17 and trackio 0.43: they have the same signatures, and record calls."""

WANDB = """
calls = []


class Summary(dict):
    def update(self, values):
        calls.append(("summary", values))


class Run:
    summary = Summary()

    def log(self, data, step=None, commit=None):
        calls.append(("log", data, step))

    def finish(self, exit_code=None):
        calls.append(("finish", exit_code))


def init(
    entity=None, project=None, dir=None, id=None, name=None, notes=None, tags=None, config=None,
    config_exclude_keys=None, config_include_keys=None, allow_val_change=None, group=None, job_type=None, mode=None,
    force=None, reinit=None, resume=None, resume_from=None, fork_from=None, save_code=None, tensorboard=None,
    sync_tensorboard=None, monitor_gym=None, settings=None,
):
    assert not set(id) & set("/\\\\#?%:")
    calls.append(("init", project, dir, id, name, config, resume))
    return Run()
"""

MLFLOW = """
import re
from types import SimpleNamespace as Object

calls = []
runs = {}
active = []


def check(names):
    for name in names:
        assert re.fullmatch(r"[\\w\\-. :/]+", name), name


def set_tracking_uri(uri):
    calls.append(("uri", uri))


def set_experiment(experiment_name=None, experiment_id=None, trace_location=None):
    return Object(experiment_id="7", name=experiment_name)


def search_runs(
    experiment_ids=None, filter_string="", run_view_type=1, max_results=100000, order_by=None, output_format="pandas",
    search_all_experiments=False, experiment_names=None,
):
    assert experiment_ids == ["7"] and output_format == "list"
    name = re.fullmatch(r"attributes.run_name = '([^']*)'", filter_string)[1]
    return [Object(info=Object(run_id=id)) for id, of in runs.items() if of == name][:max_results]


def start_run(
    run_id=None, experiment_id=None, run_name=None, nested=False, parent_run_id=None, tags=None, description=None,
    log_system_metrics=None,
):
    if active:
        raise Exception("Run is already active")
    active.append(run_id or f"id{len(runs)}")
    if run_id is None:
        runs[active[0]] = run_name
    calls.append(("start", active[0]))


def log_params(params, synchronous=None, run_id=None):
    assert len(params) <= 100
    check(params)
    calls.append(("params", params))


def log_metrics(metrics, step=None, synchronous=None, run_id=None, timestamp=None, model_id=None, dataset=None):
    check(metrics)
    calls.append(("metrics", metrics, step))


def end_run(status="FINISHED"):
    active.clear()
    calls.append(("end", status))
"""

TRACKIO = """
import os

calls = []
TRACKIO_DIR = os.environ["TRACKIO_DIR"]


class Run:
    def log(self, metrics, step=None):
        calls.append(("log", metrics, step))

    def finish(self):
        calls.append(("finish",))


def init(
    project, name=None, group=None, space_id=None, server_url=None, dataset_id=None, bucket_id=None, config=None,
    resume="never", settings=None, private=None, embed=True, auto_log_gpu=None, gpu_log_interval=10.0,
    auto_log_cpu=None, cpu_log_interval=10.0, webhook_url=None, webhook_min_level=None,
):
    calls.append(("init", project, name, config, resume, embed))
    return Run()
"""

MODULES = {"wandb": WANDB, "mlflow": MLFLOW, "trackio": TRACKIO}
