"""Runners in pods on a Kubernetes cluster. Needs the extra `kubernetes`."""

from dagster_sqlmesh_pipes.launchers.kubernetes.launcher import KubernetesLauncher

__all__ = ["KubernetesLauncher"]
