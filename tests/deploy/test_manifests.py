"""Manifests for Kubernetes, validated strictly: a misspelt key must not pass as none."""

import copy
from pathlib import Path

import pytest
import yaml

from skysub.cluster import load_profile
from skysub.cluster.kubernetes import KubernetesProfile

kubernetes_validate = pytest.importorskip("kubernetes_validate")
jsonschema = pytest.importorskip("jsonschema")
pytest.importorskip("dask_kubernetes", exc_type=ImportError)

from .schemas import custom_validator  # noqa: E402

DEPLOY = Path(__file__).parents[2] / "deploy/kubernetes"
VERSION = "1.34"
# what clusters run, and the newest there is
VERSIONS = (VERSION, kubernetes_validate.latest_version())
PROFILE = KubernetesProfile(
    image="skysub:0.1.0",
    namespace="survey",
    workers=3,
    memory="3 GiB",
    secrets=("skysub-s3",),
    claims={"/data": "survey-data"},
    environment={"AWS_ENDPOINT_URL": "https://s3.site.org"},
    service_account="skysub",
    node_selector={"pool": "survey"},
)
COMMAND = [
    "python",
    "-m",
    "skysub",
    "run",
    "calibrate_image",
    "--output",
    "s3://b/o",
    "--cluster",
    "kubernetes",
]
COMMAND += ["--set", "cluster.workers=3", "--set", "mode=detector"]


def manifests():
    return [
        pytest.param(document, id=f"{path.stem}-{number}")
        for path in sorted(DEPLOY.glob("*.yaml"))
        for number, document in enumerate(yaml.safe_load_all(path.read_text()))
    ]


def pods_of(tree):
    """Specifications of pods anywhere in a manifest."""
    if isinstance(tree, dict):
        if "containers" in tree:
            yield tree
        for value in tree.values():
            yield from pods_of(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from pods_of(value)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("manifest", manifests())
def test_manifests_of_the_folder(manifest, version):
    kubernetes_validate.validate(manifest, version, strict=True)


@pytest.mark.parametrize(
    ("path", "right", "wrong"),
    [
        ("spec", "concurrencyPolicy", "concurencyPolicy"),
        ("spec.jobTemplate.spec", "backoffLimit", "backOffLimit"),
        ("spec.jobTemplate.spec.template.spec", "restartPolicy", "restartpolicy"),
        ("spec.jobTemplate.spec.template.spec.securityContext", "runAsNonRoot", "runAsNonroot"),
        ("spec.jobTemplate.spec.podFailurePolicy.rules.0", "onExitCodes", "onExitCode"),
    ],
)
def test_misspelt_twins_are_refused(path, right, wrong):
    twin = copy.deepcopy(yaml.safe_load((DEPLOY / "cronjob.yaml").read_text()))
    place = twin
    for part in path.split("."):
        place = place[int(part) if part.isdigit() else part]
    place[wrong] = place.pop(right)
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(twin, VERSION, strict=True)


@pytest.mark.parametrize("kind", ["DaskCluster", "DaskJob"])
def test_what_the_profile_renders(kind):
    manifest = (
        PROFILE.cluster_manifest("skysub-1")
        if kind == "DaskCluster"
        else PROFILE.job_manifest(["skysub", "run"], "skysub-1")
    )
    validator = custom_validator(kind)
    validator.validate(manifest)
    pods = list(pods_of(manifest))
    assert len(pods) == (2 if kind == "DaskCluster" else 3)
    for pod in pods:
        kubernetes_validate.validate(
            {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": pod}, VERSION, strict=True
        )
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["automountServiceAccountToken"] is False
        assert pod["nodeSelector"] == {"pool": "survey"}
        (container,) = pod["containers"]
        assert container["volumeMounts"][0]["mountPath"] == "/data"
        assert {"name": "MALLOC_ARENA_MAX", "value": "1"} in container["env"]
    twin = copy.deepcopy(manifest)
    cluster = twin["spec"] if kind == "DaskCluster" else twin["spec"]["cluster"]["spec"]
    cluster["worker"]["replica"] = cluster["worker"].pop("replicas")
    with pytest.raises(jsonschema.ValidationError):
        validator.validate(twin)


def test_a_submitted_campaign_is_a_job_with_its_own_cluster(tmp_path):
    made = PROFILE.submit(COMMAND, "skysub-1", tmp_path, dry_run=True)
    manifest = yaml.safe_load(made.script)
    custom_validator("DaskJob").validate(manifest)
    (container,) = manifest["spec"]["job"]["spec"]["containers"]
    assert container["args"] == (
        "skysub run calibrate_image --output s3://b/o --set mode=detector --cluster address".split()  # noqa: SIM905
    )
    address = {each["name"]: each["value"] for each in container["env"]}["DASK_SCHEDULER_ADDRESS"]
    assert address == "tcp://skysub-1-scheduler:8786"
    workers = manifest["spec"]["cluster"]["spec"]["worker"]["spec"]["containers"][0]
    assert workers["resources"]["limits"]["memory"] == str(3 * 2**30)


def test_the_packaged_profile_is_sound():
    assert load_profile({"profile": "kubernetes"}).kind == "kubernetes"
