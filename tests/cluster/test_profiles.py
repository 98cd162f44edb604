"""Profiles: the packaged ones, those of a site, and what is wrong with one, in words."""

import re
from pathlib import Path

import pytest

from skysub.cluster import Demand, load_profile
from skysub.cluster.limits import parsed_seconds
from skysub.cluster.profiles import KINDS
from skysub.errors import ClusterError, NotEnoughMemoryError, RecipeError

PROFILES = sorted((Path(__file__).parents[2] / "cluster").glob("*.yaml"))
needs_job_queue = pytest.importorskip("dask_jobqueue", reason="scripts of jobs need the extra jobqueue")


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_packaged_profiles(path, monkeypatch):
    monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", "tcp://127.0.0.1:8786")
    profile = load_profile({"profile": str(path)})
    assert profile.kind == path.stem
    assert profile.where
    assert path.read_text().startswith("# ")
    assert set(KINDS) - {"factory"} == {each.stem for each in PROFILES}


@pytest.mark.parametrize(
    ("cluster", "words"),
    [
        (
            {"profile": "slurm", "wallime": "1:00"},
            "unknown key 'wallime' in cluster; did you mean 'walltime'",
        ),
        ({"profile": "slurm", "walltime": "soon"}, "cluster.walltime must be a time as 01:00:00"),
        ({"profile": "slurm", "walltime": "00:00:30"}, "cluster.walltime must be 60 s at least"),
        ({"profile": "slurm", "memory": "auto"}, "cluster.memory must be the size of a job"),
        (
            {"profile": "slurm", "cores": 4, "processes": 3},
            "cluster.cores must be a multiple of cluster.processes",
        ),
        ({"profile": "local", "kind": "slurmm"}, "kind must be one of .*; did you mean 'slurm'"),
        (
            {"profile": "address", "scheduler_file": "/nowhere.json"},
            "cluster.scheduler_file: /nowhere.json cannot",
        ),
        ({"profile": "kubernetes", "memory": "auto"}, "cluster.memory must be the size of a pod"),
    ],
)
def test_what_is_wrong_is_said(cluster, words, monkeypatch):
    monkeypatch.delenv("DASK_SCHEDULER_ADDRESS", raising=False)
    with pytest.raises(RecipeError, match=words):
        load_profile(cluster)


def test_where_a_scheduler_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", "tcp://from-the-environment:1")
    file = tmp_path / "scheduler.json"
    file.write_text('{"address": "tcp://from-the-file:2", "workers": {}}')
    given = {"profile": "address"}
    assert load_profile(given).where == "address, tcp://from-the-environment:1"
    given["scheduler_file"] = str(file)
    assert load_profile(given).where == "address, tcp://from-the-file:2"
    given["address"] = "tcp://from-the-profile:3"
    assert load_profile(given).where == "address, tcp://from-the-profile:3"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30", 1800),
        ("10:30", 630),
        ("02:00:05", 7205),
        ("1-06", 108000),
        ("2-00:30:00", 174600),
    ],
)
def test_times_as_queues_write_them(text, seconds):
    assert parsed_seconds(text, "walltime") == seconds


def test_yaml_reads_ten_hours_as_a_number(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("import: slurm\nwalltime: 10:00:00\n")
    profile = load_profile({"profile": str(path)})
    assert profile.walltime == "10:00:00"
    lifetime, spread = profile.lifetime
    # the last worker ends five minutes before its job would be killed
    assert lifetime + spread == 36000 - 300
    assert spread == 600


def test_a_job_that_a_unit_does_not_fit_in():
    profile = load_profile({"profile": "slurm", "cores": 4, "memory": "8 GiB", "walltime": "00:10:00"})
    assert profile.slots(Demand(2**31, 1000)) == 40
    assert profile.slots(Demand(2**31, 5)) == 8
    with pytest.raises(
        NotEnoughMemoryError, match=r"each of 4 worker processes of a job would have 2\.00 GiB"
    ):
        profile.slots(Demand(2**31 + 1, 1000))
    with pytest.raises(ClusterError, match=r"cluster\.walltime 00:10:00 is shorter than a unit needs, 500 s"):
        profile.slots(Demand(2**31, 1000, seconds=500))


@pytest.mark.parametrize(
    ("kind", "lines"),
    [
        (
            "slurm",
            [
                r"#SBATCH -J skysub-1",
                r"#SBATCH -p regular",
                r"#SBATCH --cpus-per-task=4",
                r"#SBATCH --mem=8G",
                r"#SBATCH -t 01:00:00",
                r"#SBATCH --qos=night",
                r"--name skysub-\$SLURM_JOB_ID ",
            ],
        ),
        ("pbs", [r"#PBS -N skysub-1", r"#PBS -q regular", r"#PBS -l walltime=01:00:00", r"#PBS --qos=night"]),
        ("htcondor", [r"RequestCpus = MY.DaskWorkerCores", r"MY.DaskWorkerCores = 4"]),
    ],
)
def test_scripts_of_worker_jobs(kind, lines, tmp_path):
    site = {} if kind == "htcondor" else {"queue": "regular", "directives": ["--qos=night"]}
    given = {"profile": kind, "cores": 4, "memory": "8 GiB", **site, "prologue": ["module load python"]}
    script = load_profile(given).script("tls://10.0.0.1:40000", "skysub-1", tls=tmp_path)
    for line in lines:
        assert re.search(line, script), script
    for part in (
        "tls://10.0.0.1:40000",
        "--nthreads 1",
        "--nworkers 4",
        "--memory-limit 2.00GiB",
        "--lifetime 2940s --lifetime-stagger 360s",
        "--death-timeout 60",
        f"--tls-key {tmp_path}/key.pem",
        "export MALLOC_ARENA_MAX=1",
        "DASK_DISTRIBUTED__WORKER__MEMORY__PAUSE=False",
        "module load python",
    ):
        assert part in script, (part, script)


def test_a_sites_file_for_jupyterlab_serves_as_it_stands(tmp_path):
    path = tmp_path / "labextension.yaml"
    path.write_text(
        """
labextension:
  factory:
    module: distributed
    class: LocalCluster
    args: []
    kwargs: {processes: false, n_workers: 0, dashboard_address: "127.0.0.1:0"}
  default:
    workers: null
    adapt: {minimum: 0, maximum: 2}
  initial: []
"""
    )
    profile = load_profile({"profile": str(path)})
    assert (profile.kind, profile.most, profile.factory.class_name) == ("factory", 2, "LocalCluster")
    with pytest.raises(RecipeError, match=r"unknown key 'modul' in cluster\.factory; did you mean 'module'"):
        load_profile({"profile": str(path), "factory": {"modul": "x"}})
    other = load_profile({"profile": str(path), "factory": {"class": "LocalCluste"}})
    with pytest.raises(ClusterError, match="LocalCluste cannot be imported"), other.open(Demand(1, 1)):
        pass


def test_a_kind_that_takes_no_coordinator_says_so(tmp_path):
    with pytest.raises(ClusterError, match="a cluster of kind local takes no coordinator: use `skysub run`"):
        load_profile({"profile": "local"}).submit(["skysub", "run"], "skysub-1", tmp_path)


def test_the_coordinators_script(tmp_path):
    given = {
        "profile": "slurm",
        "account": "survey",
        "coordinator": {"walltime": "12:00:00", "queue": "long"},
    }
    made = load_profile(given).submit(["skysub", "run", "a b.yaml"], "skysub-1", tmp_path, dry_run=True)
    assert made.job == ""
    for part in (
        "--requeue",
        "--time=12:00:00",
        "--partition=long",
        "--account=survey",
        "--signal=B:USR1@120",
    ):
        assert f"#SBATCH {part}\n" in made.script
    assert "skysub run 'a b.yaml' &" in made.script
