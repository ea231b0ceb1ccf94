"""A run in MLflow: in a database such as `sqlite:///runs/mlflow.db`, or on a tracking server."""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from rlcar.runs.tracking.tracker import Row, TrackingError, missing_package

EXTRA = "mlflow"
URI_VARIABLE = "MLFLOW_TRACKING_URI"
_PARAMS_AT_ONCE, _METRICS_AT_ONCE = 100, 1000  # limits of the interface
_LONGEST_PARAM = 500  # of older servers

Result = TypeVar("Result")


def connect(uri: str) -> Any:
    """Returns a client; raises TrackingError if the package is missing or refuses the URI."""
    # Before the import. It sends nothing about the use of MLflow to its makers, and gives up early
    # on a server that is away, because our thread tries again.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    for noisy in ("alembic", "mlflow"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
    except ModuleNotFoundError as error:
        raise missing_package(EXTRA, error) from None
    try:
        return MlflowClient(tracking_uri=uri, registry_uri=uri)
    except MlflowException as error:
        raise _refusal(error) from None
    except ModuleNotFoundError as error:  # of the database
        raise missing_package(EXTRA, error) from None


def explaining(work: Callable[[], Result]) -> Result:
    """Returns what `work` returns; raises TrackingError for an error of MLflow or its database."""
    try:
        return work()
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in ("mlflow", "sqlalchemy"):
            raise
        raise _refusal(error) from None


def _refusal(error: Exception) -> TrackingError:
    """Returns the error for what MLflow does not accept; the URI may hold a password."""
    text = (str(error) or type(error).__name__).splitlines()[0][:300]
    return TrackingError(
        f"MLflow cannot be used: {text} (give a database such as sqlite:///runs/mlflow.db or the "
        f"URL of a server, with tracking.mlflow_uri or {URI_VARIABLE})"
    )


def experiment_of(client: Any, project: str) -> str:
    """Returns the identity of an experiment, which is created if it is not there."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(project)
    if found is not None:
        return str(found.experiment_id)
    try:
        return str(client.create_experiment(project))
    except MlflowException:  # another training was faster
        found = client.get_experiment_by_name(project)
        if found is None:
            raise
        return str(found.experiment_id)


class MlflowTracker:
    """One run of MLflow."""

    name = "MLflow"

    def __init__(
        self,
        uri: str,
        project: str,
        run_name: str,
        tags: Mapping[str, str],
        params: Mapping[str, str],
        identity: str | None,
    ):
        """Continues the run `identity`, if it is there, or begins one; raises TrackingError."""
        self._client = connect(uri)

        def begin() -> str:
            known = None if identity is None else self._find(identity)
            if known is not None:
                self._client.update_run(known.info.run_id, status="RUNNING")
                return str(known.info.run_id)
            experiment = experiment_of(self._client, project)
            created = self._client.create_run(experiment, run_name=run_name, tags=dict(tags))
            self._log_params(created.info.run_id, params)
            return str(created.info.run_id)

        self.identity = explaining(begin)

    def _find(self, identity: str) -> Any:
        from mlflow.exceptions import MlflowException

        try:
            return self._client.get_run(identity)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":  # another database, or deleted
                return None
            raise

    def _log_params(self, run_id: str, params: Mapping[str, str]) -> None:
        from mlflow.entities import Param

        rows = [Param(name, value[:_LONGEST_PARAM]) for name, value in params.items()]
        for begin in range(0, len(rows), _PARAMS_AT_ONCE):
            self._client.log_batch(run_id, params=rows[begin : begin + _PARAMS_AT_ONCE])

    def write(self, rows: Sequence[Row]) -> None:
        """Sends rows; MLflow keeps a value that arrives twice once."""
        from mlflow.entities import Metric

        metrics = [
            Metric(name, value, row.time_ms, row.env_steps)
            for row in rows
            for name, value in row.metrics.items()
        ]
        for begin in range(0, len(metrics), _METRICS_AT_ONCE):
            part = metrics[begin : begin + _METRICS_AT_ONCE]
            self._client.log_batch(self.identity, metrics=part)

    def close(self, is_finished: bool) -> None:
        """Ends the run."""
        self._client.set_terminated(self.identity, "FINISHED" if is_finished else "KILLED")
