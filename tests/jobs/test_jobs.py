"""The files in ``jobs/`` and ``cluster.yaml``: held against schemas, linted, and run.

``submit.sh`` has a Ray cluster of its own, in test_submit.py.
"""

from __future__ import annotations

import ast
import copy
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from batchlight import __version__
from batchlight.config import JobConfig
from batchlight.errors import ExitCode
from batchlight.options import make_config
from batchlight.output.lock import Lock, new_run_id
from batchlight.storage import Location, open_storage
from tests.support.helpers import batchlight, rows, write_images

ROOT = Path(__file__).parents[2]
JOBS = ROOT / "jobs"
KUBERNETES = JOBS / "kubernetes"
BIN = Path(sys.executable).parent

KUBERNETES_VERSION = "1.34"
NOT_WORTH_A_RETRY = {ExitCode.USAGE, ExitCode.FAILURES, ExitCode.LOCKED}

CONSTRAINTS = dict(
    line.split("==") for line in (ROOT / "constraints.txt").read_text().split() if "==" in line
)


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text()))


def misspelled(document: dict[str, Any], path: str) -> dict[str, Any]:
    """A copy in which the last key of a path has a letter too many."""
    wrong = copy.deepcopy(document)
    *parents, last = path.split("/")
    place: Any = wrong
    for key in parents:
        place = place[int(key) if key.isdigit() else key]
    place[last + "s"] = place.pop(last)
    return wrong


# A cluster on AWS


def cluster() -> dict[str, Any]:
    [config] = documents(ROOT / "cluster.yaml")
    return config


def test_cluster_is_one_that_ray_takes() -> None:
    config = prepare_config(cluster())
    validate_config(config)
    types = config["available_node_types"]
    assert types[config["head_node_type"]]["resources"] == {"CPU": 0}
    assert all(
        {"InstanceType", "IamInstanceProfile"} <= set(t["node_config"]) for t in types.values()
    )
    assert "InstanceMarketOptions" not in types["head"]["node_config"]
    assert types["cpu"]["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert [t["min_workers"] for t in types.values()] == [0, 0, 0]
    # Workers decode images from anybody, and so must not be able to start nodes.
    profiles = {n: t["node_config"]["IamInstanceProfile"]["Arn"] for n, t in types.items()}
    assert profiles["cpu"] == profiles["gpu"] != profiles["head"]
    assert config["max_workers"] == sum(t["max_workers"] for t in types.values())


@pytest.mark.parametrize(
    "path",
    ["idle_timeout_minutes", "docker/pull_before_run", "available_node_types/cpu/max_workers"],
)
def test_a_misspelled_cluster_is_refused(path: str) -> None:
    with pytest.raises(jsonschema.ValidationError):
        validate_config(prepare_config(misspelled(cluster(), path)))


# Kubernetes


def rayjob() -> dict[str, Any]:
    [manifest] = documents(KUBERNETES / "rayjob.yaml")
    return manifest


def rayjob_schema() -> dict[str, Any]:
    schema: dict[str, Any] = json.loads((ROOT / "tests/jobs/schemas/rayjob.json").read_text())
    return schema


def groups() -> list[dict[str, Any]]:
    """The head's group first."""
    spec = rayjob()["spec"]["rayClusterSpec"]
    return [spec["headGroupSpec"], *spec["workerGroupSpecs"]]


def cpus(group: dict[str, Any]) -> int:
    [container] = group["template"]["spec"]["containers"]
    return int(container["resources"]["limits"]["cpu"])


def test_rayjob_is_one_that_kuberay_takes() -> None:
    jsonschema.validate(rayjob(), rayjob_schema())
    head, *workers = groups()
    assert head["rayStartParams"] == {"num-cpus": "0"}
    assert [group["minReplicas"] for group in workers] == [0, 0]
    for group in (head, *workers):  # of pods, Kubernetes' own schema knows more
        pod = {"apiVersion": "v1", "kind": "Pod", "spec": group["template"]["spec"]}
        kubernetes_validate.validate(pod, KUBERNETES_VERSION, strict=True)


@pytest.mark.parametrize(
    "path",
    [
        "spec/entrypoint",
        "spec/rayClusterSpec/rayVersion",
        "spec/rayClusterSpec/headGroupSpec/rayStartParams",
        "spec/rayClusterSpec/autoscalerOptions/idleTimeoutSeconds",
        "spec/rayClusterSpec/workerGroupSpecs/0/groupName",
        "spec/rayClusterSpec/workerGroupSpecs/1/template/spec/serviceAccountName",
        "spec/rayClusterSpec/workerGroupSpecs/0/template/spec/containers/0/envFrom",
    ],
)
def test_a_misspelled_rayjob_is_refused(path: str) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(misspelled(rayjob(), path), rayjob_schema())


def test_pods_of_a_rayjob_have_the_least_rights() -> None:
    _, *workers = groups()
    assert all(g["template"]["spec"]["automountServiceAccountToken"] is False for g in workers)
    for group in groups():
        [container] = group["template"]["spec"]["containers"]
        rights = container["securityContext"]
        assert rights["runAsNonRoot"]
        assert rights["readOnlyRootFilesystem"]
        assert not rights["allowPrivilegeEscalation"]
        assert rights["capabilities"] == {"drop": ["ALL"]}
        assert rights["seccompProfile"] == {"type": "RuntimeDefault"}


@pytest.mark.parametrize("name", ["access.yaml", "cronjob.yaml", "pod.yaml"])
def test_manifests_are_ones_that_kubernetes_takes(name: str) -> None:
    for manifest in documents(KUBERNETES / name):
        kubernetes_validate.validate(manifest, KUBERNETES_VERSION, strict=True)
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(
                misspelled(manifest, "metadata"), KUBERNETES_VERSION, strict=True
            )


def test_manifests_name_what_the_others_define() -> None:
    [kustomization] = documents(KUBERNETES / "kustomization.yaml")
    [generated] = kustomization["configMapGenerator"]
    assert all((KUBERNETES / n).exists() for n in kustomization["resources"] + generated["files"])
    [cronjob] = documents(KUBERNETES / "cronjob.yaml")
    pod = cronjob["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    mounted = {v["configMap"]["name"] for v in pod["volumes"] if "configMap" in v}
    assert mounted == {generated["name"]}
    assert {Path(word).name for word in pod["containers"][0]["command"]} & set(generated["files"])

    access = documents(KUBERNETES / "access.yaml")
    accounts = {d["metadata"]["name"] for d in access if d["kind"] == "ServiceAccount"}
    pods = [pod, *(group["template"]["spec"] for group in groups())]
    assert {p["serviceAccountName"] for p in pods} == accounts


@pytest.mark.parametrize("name", ["cronjob.yaml", "pod.yaml"])
def test_cronjobs_let_no_runs_overlap_and_retry_what_may_pass(name: str) -> None:
    [cronjob] = [d for d in documents(KUBERNETES / name) if d["kind"] == "CronJob"]
    assert cronjob["spec"]["concurrencyPolicy"] == "Forbid"
    job = cronjob["spec"]["jobTemplate"]["spec"]
    assert job["backoffLimit"] > 0
    [rule] = [r for r in job["podFailurePolicy"]["rules"] if r["action"] == "FailJob"]
    assert set(rule["onExitCodes"]["values"]) == NOT_WORTH_A_RETRY
    [container] = job["template"]["spec"]["containers"]
    assert rule["onExitCodes"]["containerName"] == container["name"]


def one_pod() -> dict[str, Any]:
    """The pod that needs no KubeRay."""
    account, cronjob = documents(KUBERNETES / "pod.yaml")
    pod: dict[str, Any] = cronjob["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    assert pod["serviceAccountName"] == account["metadata"]["name"]
    return pod


def test_the_one_pod_has_the_least_rights() -> None:
    pod = one_pod()
    assert pod["automountServiceAccountToken"] is False
    [container] = pod["containers"]
    [others, *_] = [group["template"]["spec"]["containers"][0] for group in groups()]
    assert container["securityContext"] == others["securityContext"]
    mounted = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounted == {"tmp": "/tmp", "shm": "/dev/shm"}
    assert {volume["name"] for volume in pod["volumes"]} == set(mounted)
    assert container["resources"]["requests"] == container["resources"]["limits"]


def test_the_one_pod_runs_what_its_image_starts(tmp_path: Path) -> None:
    [container] = one_pod()["containers"]
    assert container["image"] == f"registry.example.com/batchlight:{__version__}-job"
    write_images(tmp_path / "raw", 2)
    arguments = [word.replace("s3://bucket", str(tmp_path)) for word in container["args"]]
    assert arguments != container["args"]
    entrypoint = json.loads(" ".join(stages()["job"][0][1:]))
    done = subprocess.run(
        [BIN / entrypoint[0], *entrypoint[1:], *arguments, "--workers=0"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(rows(tmp_path / "bright")) == 2


# There is no Kubernetes here. This answers as kubectl does where rayjob.sh asks, from a folder with
# a file for each field of the status. A RayJob that is created runs for two looks and then ends.
KUBECTL = """#!/bin/sh
cd "$KUBECTL" && echo "$1" >> calls
case $1 in
create) mkdir status && echo 2 > looks ;;
delete) rm -r status ;;
get)
    [ -d status ] || exit 0
    case $5$6 in
    -oname) echo rayjob.ray.io/batchlight ;;
    *metadata.name*)
        looks=$(cat looks) && echo $((looks - 1)) > looks
        if [ "$looks" = 0 ] && [ -d outcome ]; then cp outcome/* status; fi
        if [ "$looks" = 0 ] && [ ! -d outcome ]; then rm -r status; exit 0; fi
        printf 'batchlight:%s' "$(cat status/jobDeploymentStatus 2>/dev/null)" ;;
    *) field=${6##*.} && cat "status/${field%?}" 2>/dev/null || true ;;
    esac ;;
esac
"""
MESSAGE = "Job entrypoint command failed with exit code {}, last available logs\nexit code 9"


@pytest.fixture
def kubectl(tmp_path: Path) -> Path:
    """The folder of its state."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin/kubectl"
    program.write_text(KUBECTL)
    program.chmod(0o755)
    (tmp_path / "state").mkdir()
    return tmp_path / "state"


def write_status(folder: Path, state: str, status: str = "", message: str = "") -> None:
    folder.mkdir()
    for name, text in (("jobDeploymentStatus", state), ("jobStatus", status), ("message", message)):
        (folder / name).write_text(text)


def run_rayjob(state: Path) -> tuple[int, list[str]]:
    """Its exit code, and which changes it asked for."""
    done = subprocess.run(
        ["sh", KUBERNETES / "rayjob.sh", KUBERNETES / "rayjob.yaml"],
        env={
            "PATH": f"{state.parent / 'bin'}:{os.environ['PATH']}",
            "KUBECTL": str(state),
            "POLL_S": "0",
        },
        timeout=60,
        check=False,
    )
    calls = (state / "calls").read_text().split()
    return done.returncode, [call for call in calls if call != "get"]


@pytest.mark.parametrize(
    ("status", "message", "code"),
    [
        ("SUCCEEDED", "Job finished successfully.", 0),
        ("FAILED", MESSAGE.format(3), 3),
        ("FAILED", MESSAGE.format(4), 4),
        ("FAILED", "Unexpected error occurred: The job supervisor actor died", 1),
        ("", "", 1),
    ],
)
def test_a_rayjob_ends_with_the_exit_code_of_its_run(
    kubectl: Path, status: str, message: str, code: int
) -> None:
    state = "Complete" if status == "SUCCEEDED" else "Failed"
    write_status(kubectl / "outcome", state, status, message)
    assert run_rayjob(kubectl) == (code, ["create"])


def test_a_rayjob_of_an_earlier_night_is_replaced(kubectl: Path) -> None:
    write_status(kubectl / "status", "Failed", "FAILED", MESSAGE.format(1))
    write_status(kubectl / "outcome", "Complete", "SUCCEEDED")
    assert run_rayjob(kubectl) == (0, ["delete", "create"])


def test_a_rayjob_that_still_runs_is_waited_for(kubectl: Path) -> None:
    write_status(kubectl / "status", "Running", "RUNNING")
    (kubectl / "looks").write_text("1")
    write_status(kubectl / "outcome", "Failed", "FAILED", MESSAGE.format(3))
    assert run_rayjob(kubectl) == (3, [])


def test_a_rayjob_that_is_deleted_meanwhile_is_trouble(kubectl: Path) -> None:
    assert run_rayjob(kubectl) == (1, ["create"])


# What all of them agree in


def entrypoint() -> list[str]:
    return shlex.split(rayjob()["spec"]["entrypoint"])


def test_workers_are_what_the_clusters_can_grow_to() -> None:
    config = make_config(JobConfig, {}, str(JOBS / "nightly.yaml"))
    words = entrypoint()
    assert words[words.index("--workers") + 1] == str(config.workers)
    spot = cluster()["available_node_types"]["cpu"]
    assert config.workers == spot["max_workers"] * spot["resources"]["CPU"]
    _, group, _ = groups()
    assert config.workers == group["maxReplicas"] * cpus(group)


def test_the_rayjobs_command_is_one_that_batchlight_takes(tmp_path: Path) -> None:
    write_images(tmp_path / "raw", 1)
    program, command, *options = entrypoint()
    assert (program, command) == ("batchlight", "run")
    local = [word.replace("s3://bucket", str(tmp_path)) for word in options]
    assert local != options
    done = batchlight("plan", *local)
    assert done.returncode == 0, done.stderr


def test_every_node_gets_the_same_versions() -> None:
    images = [group["template"]["spec"]["containers"][0]["image"] for group in groups()]
    repository = "registry.example.com/batchlight"
    assert images == [f"{repository}:{__version__}-{kind}" for kind in ("cpu", "cpu", "gpu")]
    assert rayjob()["spec"]["rayClusterSpec"]["rayVersion"] == CONSTRAINTS["ray"]

    config = (ROOT / "cluster.yaml").read_text()
    ray_images = re.findall(r"rayproject/ray:(\S+)", config)
    assert ray_images == [f"{CONSTRAINTS['ray']}-py311-{kind}" for kind in ("cpu", "gpu")]
    wheels = re.findall(r"\S+\.whl\S*", re.sub(r"^#.*", "", config, flags=re.MULTILINE))
    wheel = f"/home/ray/dist/batchlight-{__version__}-py3-none-any.whl"
    assert sorted(wheels) == [f"'{wheel}[absgn]'", wheel]
    assert f"ray[default]=={CONSTRAINTS['ray']}" in config

    dockerfile = (JOBS / "Dockerfile").read_text()
    assert f"ARG RAY_VERSION={CONSTRAINTS['ray']}\n" in dockerfile
    assert "ARG PYTHON=py311\n" in dockerfile
    assert set(re.findall(r"batchlight:(\S+)-(?:[cg]pu|job)", dockerfile)) == {__version__}


# Images


def instructions() -> list[list[str]]:
    """Of the Dockerfile, without comments and with lines joined."""
    text = re.sub(r"^#.*\n", "", (JOBS / "Dockerfile").read_text(), flags=re.MULTILINE)
    return [line.split() for line in text.replace("\\\n", " ").splitlines() if line]


def test_dockerfile_passes_hadolint() -> None:
    found = subprocess.run(
        [BIN / "hadolint", JOBS / "Dockerfile"], capture_output=True, text=True, check=False
    )
    assert (found.returncode, found.stdout) == (0, "")


def stages() -> dict[str, list[list[str]]]:
    """What the Dockerfile does in each stage."""
    found: dict[str, list[list[str]]] = {}
    for words in instructions():
        if words[0] == "FROM":
            base = "cpu" if words[3] == "job" else "rayproject/ray:${RAY_VERSION}-${PYTHON}-"
            assert words[1].startswith(base)
            found[words[3]] = []
        elif found:
            found[list(found)[-1]].append(words)
    return found


def test_images_are_rays_own_with_batchlight_and_without_what_built_it() -> None:
    assert list(stages()) == ["build", "cpu", "job", "gpu"]
    assert stages()["job"] == [["ENTRYPOINT", '["batchlight"]']]
    for stage in ("cpu", "gpu"):
        install, user = stages()[stage]  # no ENTRYPOINT, and no layer but that of pip
        assert user == ["USER", "1000"]
        assert install[0] == "RUN"
        assert {"pip", "install", "--no-cache-dir"} <= set(install)
        lock = {"cpu": "requirements.txt", "gpu": "requirements-gpu.txt"}[stage]
        assert install[install.index("--require-hashes") :][1:3] == ["-r", f"/tmp/source/{lock}"]

    pyproject = (ROOT / "pyproject.toml").read_text()
    [required] = re.findall(r"^requires = (\[.*\])$", pyproject, re.MULTILINE)
    [build] = [words for words in stages()["build"] if words[0] == "RUN"]
    assert build[build.index("constraints.txt") + 1 : build.index("&&")] == ast.literal_eval(
        required
    )


def test_the_builder_gets_what_the_images_copy_which_is_enough(tmp_path: Path) -> None:
    copied: set[str] = set()
    for words in instructions():
        if words[0] == "COPY":
            copied.update(word for word in words[1:-1] if not word.startswith("--"))
    ignore = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in ignore
    assert copied == {line[1:] for line in ignore if line.startswith("!")}
    for name in copied:
        copy_of = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        (tmp_path / name).parent.mkdir(exist_ok=True)
        copy_of(ROOT / name, tmp_path / name)
    wheel = ["wheel", "--no-build-isolation", "--no-deps", "--wheel-dir", tmp_path / "wheels"]
    pip = [sys.executable, "-m", "pip", *wheel, tmp_path]
    subprocess.run(list(map(str, pip)), check=True, capture_output=True)
    [built] = (tmp_path / "wheels").iterdir()
    assert built.name == f"batchlight-{__version__}-py3-none-any.whl"


# Scripts


@pytest.mark.parametrize("script", ["jobs/submit.sh", "jobs/kubernetes/rayjob.sh"])
def test_scripts_pass_shellcheck(script: str) -> None:
    assert_passes_shellcheck((ROOT / script).read_text())
    assert os.access(ROOT / script, os.X_OK)


def assert_passes_shellcheck(text: str) -> None:
    found = subprocess.run(
        [BIN / "shellcheck", "--shell", "sh", "-"],
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (found.returncode, found.stdout) == (0, "")


# cron


def cron_command() -> str:
    """What cron gives to the shell."""
    lines = (JOBS / "crontab").read_text().splitlines()
    settings = [line for line in lines if re.match(r"\w+=", line)]
    assert settings == ["SHELL=/bin/sh"]
    [entry] = [line for line in lines if line and line[0] != "#" and line not in settings]
    minute, hour, *days, command = entry.split(maxsplit=5)
    assert (0 <= int(minute) < 60, 0 <= int(hour) < 24, days) == (True, True, ["*"] * 3)
    assert not re.search(r"(?<!\\)%", command), "cron would end the command here"
    return command.replace(r"\%", "%")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home as the crontab expects it, with two images to do."""
    place = tmp_path / "batchlight"
    (place / ".venv/bin").mkdir(parents=True)
    (place / ".venv/bin/batchlight").symlink_to(BIN / "batchlight")
    config = yaml.safe_load((JOBS / "nightly.yaml").read_text())
    local = {"input": str(tmp_path / "raw"), "output": str(tmp_path / "bright"), "workers": 0}
    (place / "nightly.yaml").write_text(yaml.safe_dump(config | local))
    write_images(tmp_path / "raw", 2)
    return tmp_path


def run_by_cron(home: Path) -> str:
    """What cron would send by mail."""
    user = {"HOME": str(home), "LOGNAME": "user", "SHELL": "/bin/sh", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        ["/bin/sh", "-c", cron_command()],
        cwd=home,
        env=user,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.stdout + done.stderr


def test_a_night_that_ends_well_is_silent_and_one_that_does_not_says_so(home: Path) -> None:
    assert_passes_shellcheck(cron_command() + "\n")
    assert run_by_cron(home) == ""
    [log] = (home / "batchlight/logs").iterdir()
    assert date.fromisoformat(log.stem)
    assert "exit 0: all images are done" in log.read_text()
    assert len(rows(home / "bright")) == 2

    (home / "raw/a/new.jpg").write_bytes(b"no image")
    assert run_by_cron(home).startswith("batchlight ended with exit code 3; the log is in ")
    logs = "".join(log.read_text() for log in (home / "batchlight/logs").iterdir())
    assert "exit 0: all images are done" in logs
    assert "exit 3: 1 of 1 image failed in this run" in logs


def test_a_night_that_meets_another_run_leaves_it_alone(home: Path) -> None:
    storage = open_storage(Location.parse(str(home / "bright")))
    storage.check(writable=True)
    with Lock(storage, "bright", new_run_id()):
        assert run_by_cron(home).startswith("batchlight ended with exit code 4;")


# Airflow, which is not installed here: what can be seen without running it


def test_airflow_retries_what_may_pass_and_lets_no_runs_overlap() -> None:
    tree = ast.parse((JOBS / "airflow_dag.py").read_text())
    assigned = [node for node in tree.body if isinstance(node, ast.Assign)]
    constants = {ast.unparse(node.targets[0]): ast.unparse(node.value) for node in assigned}
    codes = f"({ExitCode.OK}, {ExitCode.FATAL}, {ExitCode.LOCKED})"
    assert constants["(OK, TRANSIENT_ERROR, LOCKED)"] == codes

    [execute] = [
        n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == "execute"
    ]
    raised = {
        ast.unparse(node.test): ast.unparse(statement.exc.func)
        for node in execute.body
        if isinstance(node, ast.If)
        for statement in node.body
        if isinstance(statement, ast.Raise) and isinstance(statement.exc, ast.Call)
    }
    assert raised == {
        "code == TRANSIENT_ERROR": "AirflowException",  # tried again
        "code == LOCKED": "AirflowSkipException",
        "code != OK": "AirflowFailException",  # not tried again
    }

    given = {
        keyword.arg: ast.unparse(keyword.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("DAG", "Batchlight")
        for keyword in node.keywords
    }
    assert (given["catchup"], given["max_active_runs"]) == ("False", "1")
    assert int(given["retries"]) > 0
    assert "['batchlight', 'run', '--config', self.config]" in ast.unparse(tree)
    for name in re.findall(r"HERE / '([^']+)'", ast.unparse(tree)):
        assert (JOBS / name).exists()
