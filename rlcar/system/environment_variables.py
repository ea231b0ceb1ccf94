"""Every environment variable that this program reads, or sets for the libraries that it uses.

The documentation prints this table, and a test compares it with the sources.
"""

from typing import Literal, NamedTuple


class Variable(NamedTuple):
    """One environment variable.

    `use` says who sets it: `option` is the default of an option, `user` changes how the program or
    a library of its works, `library` is set by the program for a library where the user has not,
    `internal` passes something on between processes of the program.
    """

    name: str
    use: Literal["option", "user", "library", "internal"]
    meaning: str


VARIABLES = (
    Variable("RLCAR_REGISTRY", "option", "Model registry: the default of `--registry`."),
    Variable("RLCAR_STORAGE", "option", "Storage that mirrors a run: the default of `--storage`."),
    Variable("RLCAR_TOKENS", "option", "File of the server's tokens: the default of `--tokens`."),
    Variable(
        "RLCAR_RECORD",
        "option",
        "Folder of recordings of served sessions: the default of `--record`.",
    ),
    Variable(
        "RLCAR_RECORD_SHARE",
        "option",
        "Share of the sessions to record: the default of `--record-share`.",
    ),
    Variable(
        "RLCAR_RECORD_LIMIT_MB",
        "option",
        "Largest size of a recording: the default of `--record-limit-mb`.",
    ),
    Variable(
        "RLCAR_INTEGRATIONS",
        "option",
        "File with the webhooks, the Grafana and the Prometheus of rollouts: the default of "
        "`--integrations`.",
    ),
    Variable("RLCAR_TOKEN", "option", "Secret of a token: the default of `rlcar drive --token`."),
    Variable(
        "RLCAR_PROMETHEUS",
        "option",
        "Prometheus server: the default of `rlcar monitor --prometheus`.",
    ),
    Variable(
        "RLCAR_PROMETHEUS_TOKEN", "user", "Token for the Prometheus server of `rlcar monitor`."
    ),
    Variable(
        "MLFLOW_TRACKING_URI",
        "user",
        "Database or server of MLflow, where `tracking.mlflow_uri` is empty. MLflow's other "
        "variables work too, such as those of its user and password.",
    ),
    Variable(
        "WANDB_MODE",
        "user",
        "`online`, `offline` or `disabled` for Weights & Biases. Default: online if this machine "
        "has an account (`wandb login` or WANDB_API_KEY), otherwise offline.",
    ),
    Variable("WANDB_API_KEY", "user", "Account of Weights & Biases (read by its package)."),
    Variable("HOME", "user", "Home folder, for tokens, caches and Ray's authentication token."),
    Variable(
        "KUBECONFIG",
        "user",
        "Kubeconfig files of `--kubernetes`, separated by colons and merged, as for kubectl. "
        "Default: `~/.kube/config`.",
    ),
    Variable(
        "KUBERNETES_SERVICE_HOST",
        "user",
        "Set by Kubernetes in each pod: without a kubeconfig, `--kubernetes` then uses the pod's "
        "service account.",
    ),
    Variable(
        "XDG_CACHE_HOME",
        "user",
        "Folder of caches; compiled JAX programs are kept in its folder `rlcar/jax`. "
        "Default: `~/.cache`.",
    ),
    Variable("TMPDIR", "user", "Folder of temporary files and of the sockets of a private Ray."),
    Variable(
        "RLCAR_COMMIT",
        "user",
        "Commit of an installed program, for the records of runs and models; our image sets it.",
    ),
    Variable("NO_COLOR", "user", "If it is set to anything, output has no colours (read by Rich)."),
    Variable("COLUMNS", "user", "Width of tables in columns (read by Rich)."),
    Variable("FORCE_COLOR", "user", "Is ignored: colours and bars would end up in log files."),
    Variable("TTY_COMPATIBLE", "user", "Is ignored, as FORCE_COLOR is."),
    Variable("TTY_INTERACTIVE", "user", "Is ignored, as FORCE_COLOR is."),
    Variable(
        "AWS_ENDPOINT_URL_S3",
        "user",
        "Endpoint of `s3://` storages. Credentials come from AWS's own variables, which pyarrow "
        "reads.",
    ),
    Variable("AWS_ENDPOINT_URL", "user", "Endpoint of `s3://` storages, if there is no other."),
    Variable("AWS_REGION", "user", "Region of `s3://` storages."),
    Variable("AWS_DEFAULT_REGION", "user", "Region of `s3://` storages, if AWS_REGION is not set."),
    Variable(
        "RAY_API_SERVER_ADDRESS", "user", "Dashboard of a cluster, where `--address` is left out."
    ),
    Variable(
        "RAY_ADDRESS",
        "user",
        "Control service of a cluster. Its host is asked for the dashboard where `--address` and "
        "RAY_API_SERVER_ADDRESS are left out.",
    ),
    Variable("RAY_AUTH_MODE", "user", "`token` makes Ray ask for a token, `disabled` does not."),
    Variable(
        "RAY_AUTH_TOKEN",
        "user",
        "Token of a Ray cluster. A private Ray gets one if the home folder cannot keep it.",
    ),
    Variable(
        "RAY_AUTH_TOKEN_PATH",
        "user",
        "File with the token of a Ray cluster. Default: `~/.ray/auth_token`.",
    ),
    Variable("RAY_TMPDIR", "user", "Folder in which Ray keeps its sockets and logs."),
    Variable(
        "REQUESTS_CA_BUNDLE", "user", "File of the certificates that a dashboard's HTTPS needs."
    ),
    Variable(
        "JAX_COMPILATION_CACHE_DIR",
        "library",
        "Folder of compiled programs. Default: a folder for each kind of processor in the cache.",
    ),
    Variable(
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS",
        "library",
        "Shortest compilation, in seconds, that is kept. Default: 0.5.",
    ),
    Variable(
        "JAX_PLATFORMS",
        "library",
        "Devices that JAX uses. Verbs that do not learn, simulators and trials without a GPU "
        "use `cpu`, so that they do not occupy the learner's GPU.",
    ),
    Variable("JAX_DEBUG_NANS", "library", "`--debug-nans` sets it: JAX stops at the first NaN."),
    Variable("XLA_FLAGS", "library", "Compiler options; simulators and trials use one thread."),
    Variable(
        "XLA_PYTHON_CLIENT_PREALLOCATE",
        "library",
        "`false` in trials, and in jobs of a campaign whose slots share a GPU.",
    ),
    Variable(
        "XLA_PYTHON_CLIENT_MEM_FRACTION",
        "library",
        "Share of a GPU's memory for each process. A campaign then leaves "
        "`XLA_PYTHON_CLIENT_PREALLOCATE` alone.",
    ),
    Variable(
        "CUDA_VISIBLE_DEVICES",
        "library",
        "GPUs that a job of a campaign uses, if the campaign's file has `devices`.",
    ),
    Variable("OMP_NUM_THREADS", "library", "1 in simulators, which have one core each."),
    Variable(
        "OPENBLAS_NUM_THREADS",
        "library",
        "1 in servers: a policy's matrices are too small to share among threads.",
    ),
    Variable(
        "MLFLOW_DISABLE_TELEMETRY",
        "library",
        "`true`: MLflow tells its makers nothing about its use.",
    ),
    Variable(
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES",
        "library",
        "1: a tracking server that is away is asked again by a thread of the training.",
    ),
    Variable("MLFLOW_HTTP_REQUEST_TIMEOUT", "library", "10: seconds for an answer of MLflow."),
    Variable("PYGAME_HIDE_SUPPORT_PROMPT", "library", "1: Pygame prints no greeting."),
    Variable(
        "RAY_worker_niceness",
        "library",
        "0: at Ray's own 15 a busy machine starves the learner and the replicas first.",
    ),
    Variable(
        "RAY_JOB_STOP_WAIT_TIME_S", "library", "Time that a submitted job has to save and end."
    ),
    Variable("RAY_AIR_NEW_OUTPUT", "library", "0: `rlcar tune` prints its own progress."),
    Variable("TUNE_DISABLE_SIGINT_HANDLER", "library", "1: `rlcar tune` handles Ctrl-C itself."),
    Variable("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "library", "1: runs write their own metrics."),
    Variable("TUNE_PRINT_ALL_TRIAL_ERRORS", "library", "0: `rlcar tune` reports failed trials."),
    Variable(
        "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S",
        "library",
        "0: Tune does not warn about the time that it takes to save.",
    ),
    Variable("RAY_SERVE_ENABLE_HA_PROXY", "library", "1: HAProxy stands in front of replicas."),
    Variable("RAY_SERVE_THROUGHPUT_OPTIMIZED", "library", "1: Ray Serve's faster request path."),
    Variable(
        "RAY_SERVE_HAPROXY_BALANCE_ALGORITHM",
        "library",
        "Sends the requests of a session to the same replica.",
    ),
    Variable("RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S", "library", "HAProxy's timeout for clients."),
    Variable("RAY_SERVE_HAPROXY_NBTHREAD", "library", "Number of HAProxy's threads."),
    Variable(
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S",
        "library",
        "Time in which a replica that stops still answers requests.",
    ),
    *(
        Variable(
            f"RAY_SERVE_HAPROXY_{name}",
            "internal",
            "File or port of a private HAProxy, so that two clusters on a machine differ.",
        )
        for name in (
            "CONFIG_FILE_LOC",
            "SOCKET_PATH",
            "SERVER_STATE_BASE",
            "SERVER_STATE_FILE",
            "METRICS_SOCKET_PATH",
            "METRICS_PORT",
            "STATS_PORT",
        )
    ),
    Variable("RLCAR_LOG_FORMAT", "internal", "Format of log lines, for processes of a training."),
    Variable(
        "RLCAR_ERROR_FILE",
        "internal",
        "File into which a job of a campaign writes the error that ends it.",
    ),
    Variable("RLCAR_RUN", "internal", "Name of the run in JSON log lines."),
    Variable(
        "RLCAR_ENVIRONMENT_FOLDER",
        "internal",
        "Folder in which processes of a training find the modules of your own environment.",
    ),
    Variable(
        "RLCAR_PROGRAM_MARK",
        "internal",
        "Marks all processes that a program of `rlcar soak` starts, so that none outlives it.",
    ),
)
