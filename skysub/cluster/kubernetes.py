"""Pods of Kubernetes, by the Dask operator."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import yaml
from pydantic import Field

from skysub.cluster.base import Demand, Profile, Submission
from skysub.cluster.commands import answer_of
from skysub.cluster.dask_settings import worker_environment
from skysub.cluster.limits import allow_open_files, not_enough, parsed_bytes
from skysub.cluster.scaled import scaled_cluster
from skysub.errors import ClusterError, MissingPackageError, RecipeError, how_to_install

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from skysub.cluster.workers import Workers

__all__ = ["KubernetesProfile"]

_USER = 10001
"""User of the container image, who is not root."""


class KubernetesProfile(Profile):
    """Pods of the Dask operator. skysub's own tests started no pod; they validate manifests."""

    kind: Literal["kubernetes"] = "kubernetes"
    image: str
    """Container image with skysub, as ``deploy/Containerfile`` makes it, by a tag or digest that stays."""
    namespace: str = "default"
    """Namespace of Kubernetes in which everything is made."""
    workers: int = Field(10, gt=0)
    """Worker pods at most; a pod has one thread."""
    memory: str | int = "4 GiB"
    """Memory of a worker pod: asked for, and limited to."""
    scheduler_memory: str | int = "2 GiB"
    """Memory of the scheduler's pod."""
    environment: dict[str, str] = Field(default_factory=dict)
    """Environment of all pods, over what skysub sets."""
    secrets: tuple[str, ...] = ()
    """Secrets of the namespace whose keys become environment, as AWS_ACCESS_KEY_ID."""
    claims: dict[str, str] = Field(default_factory=dict)
    """Folder in the pods: persistent volume claim that is mounted there, for inputs and outputs."""
    service_account: str = ""
    """Of all pods; empty: the namespace's default."""
    node_selector: dict[str, str] = Field(default_factory=dict)
    """Labels of the nodes that pods may run on."""
    patience: float = Field(900, gt=0)
    """Seconds to wait for a first worker."""

    def check(self) -> None:
        """Look at the sizes."""
        for name in ("memory", "scheduler_memory"):
            if not parsed_bytes(getattr(self, name)):
                raise RecipeError(f"cluster.{name} must be the size of a pod, as '4 GiB', not auto")

    def slots(self, demand: Demand) -> int:
        """One unit for each pod."""
        memory = parsed_bytes(self.memory)
        if memory < demand.memory:
            raise not_enough("each worker pod", memory, demand.memory, "a larger cluster.memory")
        return min(self.workers, demand.units)

    @contextmanager
    def open(self, demand: Demand) -> Iterator[Workers]:
        """Have the operator make a scheduler and workers."""
        try:
            from dask_kubernetes.operator import KubeCluster
        except ImportError:
            raise MissingPackageError(f"pods need dask-kubernetes: {how_to_install('kubernetes')}") from None
        allow_open_files(self.slots(demand))
        with scaled_cluster(
            lambda: KubeCluster(
                custom_cluster_spec=self.cluster_manifest(demand.name), namespace=self.namespace
            ),
            f"pods in the namespace {self.namespace}, {self.workers} at most",
            demand,
            most=self.workers,
            units_of_worker=1,
            patience=self.patience,
            cure="see `kubectl get pods`, `kubectl describe pod` and the operator's log",
        ) as workers:
            yield workers

    def cluster_manifest(self, name: str) -> dict[str, Any]:
        """Return a DaskCluster without workers, which is scaled as units need them."""
        return {
            "apiVersion": "kubernetes.dask.org/v1",
            "kind": "DaskCluster",
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": self._cluster(name, workers=0),
        }

    def job_manifest(self, command: Sequence[str], name: str) -> dict[str, Any]:
        """Return a DaskJob: scheduler, workers, and a pod that does ``skysub run`` with them."""
        address = {"name": "DASK_SCHEDULER_ADDRESS", "value": f"tcp://{name}-scheduler:8786"}
        runner = self._container("job", [*command], "1", self.scheduler_memory, more=[address])
        return {
            "apiVersion": "kubernetes.dask.org/v1",
            "kind": "DaskJob",
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": {
                "job": {"spec": self._pod(runner) | {"restartPolicy": "OnFailure"}},
                "cluster": {"spec": self._cluster(name, workers=self.workers)},
            },
        }

    def submit(self, command: Sequence[str], name: str, logs: Path, *, dry_run: bool = False) -> Submission:  # noqa: ARG002
        """Apply a DaskJob, whose coordinator uses the workers beside it."""
        # the place of the program in the image; the cluster there is the one that the job brings
        arguments = _without_cluster([*command[command.index("run") :]])
        given = ["skysub", *arguments, "--cluster", "address"]
        script = yaml.safe_dump(self.job_manifest(given, name), sort_keys=False)
        if dry_run:
            return Submission("", name, script)
        _kubectl_is_there()
        answer_of(("kubectl", "create", "--namespace", self.namespace, "--filename", "-"), given=script)
        return Submission(f"daskjob/{name}", name, script)

    def state_of(self, submission: Submission) -> str:
        """Return the status of the DaskJob."""
        _kubectl_is_there()
        form = "jsonpath={.status.jobStatus}"
        names = ("daskjobs.kubernetes.dask.org", submission.name, "--ignore-not-found", "--output", form)
        return answer_of(("kubectl", "get", "--namespace", self.namespace, *names)).strip().lower()

    def withdraw(self, submission: Submission) -> None:
        """Delete the DaskJob, with its pods."""
        _kubectl_is_there()
        names = ("daskjobs.kubernetes.dask.org", submission.name, "--ignore-not-found", "--wait=false")
        answer_of(("kubectl", "delete", "--namespace", self.namespace, *names))

    def _cluster(self, name: str, *, workers: int) -> dict[str, Any]:
        scheduler = self._container("scheduler", ["dask-scheduler"], "1", self.scheduler_memory)
        scheduler["ports"] = [
            {"name": "tcp-comm", "containerPort": 8786, "protocol": "TCP"},
            {"name": "http-dashboard", "containerPort": 8787, "protocol": "TCP"},
        ]
        scheduler["readinessProbe"] = {"httpGet": {"port": "http-dashboard", "path": "/health"}}
        command = ["dask-worker", "--name", "$(DASK_WORKER_NAME)", "--nthreads", "1", "--no-dashboard"]
        command += ["--memory-limit", str(parsed_bytes(self.memory))]
        selector = {"dask.org/cluster-name": name, "dask.org/component": "scheduler"}
        return {
            "worker": {
                "replicas": workers,
                "spec": self._pod(self._container("worker", command, "1", self.memory)),
            },
            "scheduler": {
                "spec": self._pod(scheduler),
                "service": {
                    # the scheduler runs what it is sent: it is never to be reached from outside
                    "type": "ClusterIP",
                    "selector": selector,
                    "ports": [
                        {"name": "tcp-comm", "protocol": "TCP", "port": 8786, "targetPort": "tcp-comm"},
                        {
                            "name": "http-dashboard",
                            "protocol": "TCP",
                            "port": 8787,
                            "targetPort": "http-dashboard",
                        },
                    ],
                },
            },
        }

    def _pod(self, container: dict[str, Any]) -> dict[str, Any]:
        pod: dict[str, Any] = {
            "containers": [container],
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": _USER,
                "fsGroup": _USER,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            # nothing in the pods asks Kubernetes for anything
            "automountServiceAccountToken": False,
        }
        if self.claims:
            pod["volumes"] = [
                {"name": f"claim-{number}", "persistentVolumeClaim": {"claimName": claim}}
                for number, claim in enumerate(self.claims.values())
            ]
        if self.service_account:
            pod["serviceAccountName"] = self.service_account
        if self.node_selector:
            pod["nodeSelector"] = dict(self.node_selector)
        return pod

    def _container(
        self,
        name: str,
        arguments: list[str],
        cpu: str,
        memory: str | int,
        *,
        more: Sequence[dict[str, str]] = (),
    ) -> dict[str, Any]:
        size = str(parsed_bytes(memory))
        environment = worker_environment() | self.environment
        container: dict[str, Any] = {
            "name": name,
            "image": self.image,
            "args": arguments,
            "env": [*({"name": key, "value": value} for key, value in environment.items()), *more],
            "resources": {"requests": {"cpu": cpu, "memory": size}, "limits": {"memory": size}},
            "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        }
        if self.secrets:
            container["envFrom"] = [{"secretRef": {"name": each}} for each in self.secrets]
        if self.claims:
            container["volumeMounts"] = [
                {"name": f"claim-{number}", "mountPath": folder} for number, folder in enumerate(self.claims)
            ]
        return container


def _without_cluster(arguments: list[str]) -> list[str]:
    """Return arguments of ``skysub run`` without what is said of the cluster."""
    kept: list[str] = []
    words = iter(arguments)
    for word in words:
        if word == "--cluster":
            next(words)
        elif word == "--set":
            value = next(words)
            kept += [] if value.startswith("cluster.") else [word, value]
        else:
            kept.append(word)
    return kept


def _kubectl_is_there() -> None:
    if shutil.which("kubectl") is None:
        raise ClusterError(
            "there is no kubectl here: print the manifest by `skysub submit --dry-run`, and apply it "
            "where there is"
        )
