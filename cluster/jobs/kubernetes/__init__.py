"""Jobs on Kubernetes: builds a RayJob for KubeRay, creates it, follows, scales and ends it."""
