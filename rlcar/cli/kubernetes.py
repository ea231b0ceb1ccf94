"""What `rlcar submit` and `rlcar jobs` do with --kubernetes."""

import datetime
import json
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer
from rich.markup import escape

from rlcar.cli.log_view import LogView
from rlcar.cli.shared import cluster_imports, console, number
from rlcar.errors import UserError, command
from rlcar.system import terminal
from rlcar.system.console import make_console
from rlcar.system.tables import make_table

if TYPE_CHECKING:
    from cluster.jobs.kubernetes.api import Api
    from cluster.jobs.kubernetes.connect import Target
    from cluster.jobs.kubernetes.follow import Follower

Kubernetes = Annotated[
    bool, typer.Option("--kubernetes", help="Uses a Kubernetes cluster with KubeRay.")
]
Namespace = Annotated[
    str | None,
    typer.Option(
        help="Namespace on Kubernetes (default: that of the context in the kubeconfig, or rlcar)."
    ),
]
Context = Annotated[
    str | None,
    typer.Option(help="Context of the kubeconfig to use (default: its current context)."),
]
Kubeconfig = Annotated[
    str | None,
    typer.Option(
        help="Kubeconfig with the address and the credentials of the cluster (default: the files "
        "of KUBECONFIG, ~/.kube/config, or the service account inside a pod)."
    ),
]
RECONNECT_S = 3600.0
ReconnectS = Annotated[
    float,
    number(
        0,
        604_800,
        "--reconnect-s",
        help="With --kubernetes: seconds to keep trying after the connection to the log is lost.",
    ),
]
JobName = Annotated[
    str | None,
    typer.Option(help="With --kubernetes: name of the job (default: from the verb and the time)."),
]
Image = Annotated[
    str | None,
    typer.Option(help="With --kubernetes: image of rlcar to run, e.g. registry/rlcar:tag."),
]
Gpus = Annotated[
    int | None, number(0, 64, help="With --kubernetes: GPUs of the pod that runs the learner.")
]
Workers = Annotated[
    int | None,
    number(0, 10_000, help="With --kubernetes: number of worker pods that run simulators."),
]
Queue = Annotated[
    str | None,
    typer.Option(help="With --kubernetes: Kueue LocalQueue in which the job waits for its turn."),
]
RunsClaim = Annotated[
    str | None,
    typer.Option(
        help="With --kubernetes: persistent volume claim that keeps the runs (default: rlcar-runs)."
    ),
]
ModelsClaim = Annotated[
    str | None,
    typer.Option(
        help="With --kubernetes: persistent volume claim of the model registry (default: "
        "rlcar-models)."
    ),
]
PriorityClass = Annotated[
    str | None, typer.Option(help="With --kubernetes: PriorityClass of the job's pods.")
]
Retries = Annotated[
    int | None,
    number(
        0, 1000, help="With --kubernetes: further tries of a failed job, each on a new Ray cluster."
    ),
]
DryRun = Annotated[
    str | None,
    typer.Option(
        help="With --kubernetes: prints the RayJob and creates nothing; client needs no cluster, "
        "server lets the API check the object."
    ),
]
Apply = Annotated[
    bool,
    typer.Option(
        "--apply",
        help="With --kubernetes: creates or changes the job --name by server-side apply.",
    ),
]
ForceConflicts = Annotated[
    bool,
    typer.Option(
        "--force-conflicts", help="With --apply: takes over fields that another manager owns."
    ),
]
SkipChecks = Annotated[
    bool,
    typer.Option(
        "--skip-checks",
        help="With --kubernetes: submits without checking volumes, GPUs and the queue first.",
    ),
]
Everywhere = Annotated[
    bool, typer.Option("--all-namespaces", help="With --kubernetes: lists all namespaces.")
]


class SubmitOptions(NamedTuple):
    """The options of `rlcar submit` that only Kubernetes has."""

    name: str | None
    image: str | None
    gpus: int | None
    workers: int | None
    queue: str | None
    runs_claim: str | None
    models_claim: str | None
    priority_class: str | None
    retries: int | None
    dry_run: str | None
    apply: bool
    force_conflicts: bool
    skip_checks: bool

    def given(self) -> list[str]:
        """Returns the options that differ from their defaults, as they are written."""
        return [
            f"--{name.replace('_', '-')}"
            for name, value in self._asdict().items()
            if value not in (None, False)
        ]


def target_of(namespace: str | None, context: str | None, kubeconfig: str | None) -> "Target":
    """Returns the cluster and namespace that the options name."""
    with cluster_imports():
        from cluster.jobs.kubernetes.connect import Target

    return Target(kubeconfig, context, namespace)


def refuse_without_kubernetes(given: list[str], target: "Target") -> None:
    """Raises UserError for an option that only works with --kubernetes."""
    named = {"--namespace": target.namespace, "--context": target.context}
    named |= {"--kubeconfig": target.kubeconfig}
    given = [*given, *(option for option, value in named.items() if value is not None)]
    if given:
        raise UserError(f"{given[0]} concerns Kubernetes: add --kubernetes")


def submit(
    target: "Target",
    arguments: list[str],
    options: SubmitOptions,
    *,
    detach: bool,
    reconnect_s: float,
) -> None:
    """Creates the RayJob of a command and follows it."""
    _check(options)
    with cluster_imports():
        from cluster.jobs.kubernetes import jobs, manifest, names, preflight
        from cluster.jobs.kubernetes.connect import DEFAULT_NAMESPACE

    name = options.name or names.new_name(arguments[0])
    names.check_job_name(name)
    api = None if options.dry_run == "client" else _api(target)
    namespace = api.namespace if api else (target.namespace or DEFAULT_NAMESPACE)
    names.check_namespace(namespace)
    build = manifest.JobOptions(
        name,
        namespace,
        tuple(arguments),
        *(options.image, options.gpus, options.workers, options.queue, options.runs_claim),
        *(options.models_claim, options.priority_class, options.retries),
    )
    job = manifest.build(manifest.read_base(), build)
    if api is None:
        typer.echo(manifest.as_yaml(job), nl=False)
        return
    is_dry = options.dry_run == "server"
    if not (is_dry or options.skip_checks):
        preflight.check(api, job)
    if options.apply:
        created = jobs.apply(api, job, force=options.force_conflicts, dry_run=is_dry)
    else:
        created = jobs.create(api, job, dry_run=is_dry)
    if is_dry:
        (created.get("metadata") or {}).pop("managedFields", None)
        typer.echo(manifest.as_yaml(created), nl=False)
        return
    _tell(f"submitted: {name} in namespace {namespace}")
    if detach:
        _tell(_how_to_come_back(name, target))
    else:
        follow(target, name, reconnect_s)


def list_jobs(target: "Target", *, everywhere: bool, as_json: bool) -> None:
    """Prints the jobs of one namespace, or of all."""
    with cluster_imports():
        from cluster.jobs.kubernetes import jobs

    rows = [row._asdict() for row in jobs.list_jobs(_api(target), everywhere=everywhere)]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    namespaces = ["namespace"] if everywhere else []
    table = make_table("job", *namespaces, "state", "began", "took", "workers", "command")
    for row in rows:
        began = datetime.datetime.fromisoformat(row["started"]).astimezone()
        cells = [row["job"], *([row["namespace"]] if everywhere else []), _state(row)]
        cells += [f"{began:%Y-%m-%d %H:%M}", str(datetime.timedelta(seconds=round(row["seconds"])))]
        table.add_row(*cells, str(row["workers"]), escape(row["command"]))
    make_console().print(table if rows else "no jobs yet")


def show_logs(target: "Target", name: str, *, is_followed: bool, reconnect_s: float) -> None:
    """Shows the output of a job, and follows it until the job ends."""
    with cluster_imports():
        from cluster.jobs.kubernetes import jobs

    api = _api(target)
    jobs.find_job(api, name)
    if is_followed:
        follow(target, name, reconnect_s)
        return
    follower = _follower(api, name, reconnect_s, lambda text: typer.echo(text, nl=False))
    follower.show_once()


def follow(target: "Target", name: str, reconnect_s: float) -> None:
    """Follows a job and exits with its result; Ctrl-C leaves the job running."""
    with cluster_imports():
        from cluster.jobs.kubernetes import status

    terminal.end_when_closed()  # the job goes on
    try:
        with LogView() as view:
            job = _follower(_api(target, attempts=2), name, reconnect_s, view.show).run()
    except KeyboardInterrupt:
        _tell(f"detached, the job goes on. {_how_to_come_back(name, target)}")
        sys.exit(130)
    if job is None:
        _tell(f"{name} was stopped or deleted")
        sys.exit(status.STOPPED_EXIT_CODE)
    if why := status.failure_of(job):
        raise UserError(f"{name} failed: {why}")
    _tell(f"{name}: {status.state_of(job)}")
    sys.exit(status.exit_code(job))


def stop(target: "Target", name: str) -> None:
    """Ends a job; a training saves a checkpoint first."""
    with cluster_imports():
        from cluster.jobs.kubernetes import jobs

    jobs.stop(_api(target), name, _tell)
    _tell(f"{name}: stopped")


def scale(target: "Target", name: str, workers: int) -> None:
    """Changes the number of worker pods of a job."""
    with cluster_imports():
        from cluster.jobs.kubernetes import jobs

    before = jobs.scale(_api(target), name, workers)
    _tell(f"{name}: {before} worker pods before, {workers} now")


def delete(target: "Target", name: str) -> None:
    """Deletes a job that has ended."""
    with cluster_imports():
        from cluster.jobs.kubernetes import jobs

    jobs.delete(_api(target), name)
    _tell(f"{name}: deleted")


def _api(target: "Target", attempts: int | None = None) -> "Api":
    with cluster_imports():
        from cluster.jobs.kubernetes.api import Api
        from cluster.jobs.kubernetes.connect import Connection
        from cluster.jobs.kubernetes.retries import Patience

        import_module("kubernetes")  # the error names the package that is missing
    return Api(Connection(target), Patience() if attempts is None else Patience(attempts))


def _follower(api: "Api", name: str, reconnect_s: float, show: Any) -> "Follower":
    from cluster.jobs.kubernetes.follow import Follower

    return Follower(api, name, show, _tell, most_lost_s=reconnect_s)


def _check(options: SubmitOptions) -> None:
    """Refuses values that no cluster would accept, before anything is sent."""
    with cluster_imports():
        from cluster.jobs.kubernetes.manifest import check_image
        from cluster.jobs.kubernetes.names import check_object_name

    if options.dry_run not in (None, "client", "server"):
        raise UserError(f"--dry-run {options.dry_run!r}: there are client and server")
    if options.force_conflicts and not options.apply:
        raise UserError("--force-conflicts takes over fields in an apply: add --apply")
    if options.apply and options.name is None:
        raise UserError("--apply changes an existing job: name it with --name")
    if options.image is not None:
        check_image(options.image)
    for option in ("queue", "runs_claim", "models_claim", "priority_class"):
        if (value := getattr(options, option)) is not None:
            check_object_name(f"--{option.replace('_', '-')}", value)


def _how_to_come_back(name: str, target: "Target") -> str:
    where = target.options()
    back, end = command("jobs", "logs", name, *where), command("jobs", "stop", name, *where)
    return f"Come back with: {back}; end it with: {end}"


def _state(row: dict[str, Any]) -> str:
    tries = row["failed_tries"]
    return (
        f"{row['state']} (try {tries + 1})" if tries and row["state"] == "running" else row["state"]
    )


def _tell(text: str) -> None:
    console.print(text, markup=False, highlight=False)
