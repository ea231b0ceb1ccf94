"""Typed helpers for Ray: actors, waiting for their results, and their errors.

The type of Ray's own actor handles hides the methods of the actor from type checkers.
"""

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar, cast

import ray
from ray import ObjectRef
from ray.actor import ActorClass, ActorHandle
from ray.exceptions import ObjectLostError, RayError, RayTaskError

T = TypeVar("T")
U = TypeVar("U")


class RemoteMethod(Protocol[T]):
    """A method of an actor: `remote` requests a call and returns at once."""

    def remote(self, *arguments: object) -> ObjectRef[T]:
        """Returns a reference to the result, which may not exist yet."""


class RemotePairMethod(Protocol[T, U]):
    """The same for a method with two results, which are separate objects."""

    def remote(self, *arguments: object) -> tuple[ObjectRef[T], ObjectRef[U]]:
        """Returns references to both results."""


def start_actor(actor_class: ActorClass[Any], *arguments: object) -> Any:
    """Starts an actor and returns its handle at once."""
    return actor_class.remote(*arguments)


def kill_actor(actor: object) -> None:
    """Ends an actor at once; what it was working on is lost."""
    ray.kill(cast(ActorHandle[Any], actor))


def is_ready(ref: ObjectRef[Any], timeout_s: float = 0.0) -> bool:
    """Waits for an object until the timeout; says whether it is there."""
    return bool(ray.wait([ref], timeout=timeout_s)[0])


def ready_refs(refs: Sequence[ObjectRef[T]], timeout_s: float) -> list[ObjectRef[T]]:
    """Waits for the first of several objects until the timeout; returns all that are there."""
    if not refs or not ray.wait(list(refs), num_returns=1, timeout=timeout_s)[0]:
        return []
    ready, _ = ray.wait(list(refs), num_returns=len(refs), timeout=0)
    return list(ready)


def is_lost_object(error: RayError) -> bool:
    """Says whether a call failed because one of its arguments died with its node."""
    cause = error.cause if isinstance(error, RayTaskError) else error
    return isinstance(cause, ObjectLostError)


def reason_of(error: RayError) -> str:
    """Describes in one line what happened to an actor."""
    if isinstance(error, RayTaskError):
        return f"{type(error.cause).__name__}: {error.cause}"
    if getattr(error, "actor_init_failed", False):  # the message is a traceback; its end says why
        return str(error).strip().splitlines()[-1]
    return type(error).__name__
