"""URL paths of the Kubernetes API for the resources that the client uses."""

from typing import NamedTuple


class Resource(NamedTuple):
    """A kind of object, as its URL and error messages name it."""

    group: str  # empty for the core API
    version: str
    plural: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """The value of `apiVersion` in an object of this kind."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def full_name(self) -> str:
        """The name that kubectl and error messages use, such as rayjobs.ray.io."""
        return f"{self.plural}.{self.group}" if self.group else self.plural


RAY_JOBS = Resource("ray.io", "v1", "rayjobs")
RAY_CLUSTERS = Resource("ray.io", "v1", "rayclusters")
PODS = Resource("", "v1", "pods")
EVENTS = Resource("", "v1", "events")
CLAIMS = Resource("", "v1", "persistentvolumeclaims")
SECRETS = Resource("", "v1", "secrets")
QUOTAS = Resource("", "v1", "resourcequotas")
NAMESPACES = Resource("", "v1", "namespaces", namespaced=False)
NODES = Resource("", "v1", "nodes", namespaced=False)
DEPLOYMENTS = Resource("apps", "v1", "deployments")
STORAGE_CLASSES = Resource("storage.k8s.io", "v1", "storageclasses", namespaced=False)
PRIORITY_CLASSES = Resource("scheduling.k8s.io", "v1", "priorityclasses", namespaced=False)
SERVICE_ACCOUNTS = Resource("", "v1", "serviceaccounts")
CRDS = Resource("apiextensions.k8s.io", "v1", "customresourcedefinitions", namespaced=False)
LOCAL_QUEUES = Resource("kueue.x-k8s.io", "v1beta2", "localqueues")
ACCESS_REVIEWS = Resource(
    "authorization.k8s.io", "v1", "selfsubjectaccessreviews", namespaced=False
)


def path_of(resource: Resource, namespace: str | None, name: str = "", part: str = "") -> str:
    """Returns the path of a collection, of an object in it, or of a part such as `log` of one.

    Without a namespace, the path is that of the objects of all namespaces.
    """
    root = f"/apis/{resource.group}" if resource.group else "/api"
    words = [root, resource.version]
    if resource.namespaced and namespace is not None:
        words += ["namespaces", namespace]
    words += [resource.plural, *([name] if name else []), *([part] if part else [])]
    return "/".join(words)
