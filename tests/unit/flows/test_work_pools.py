"""The templates of work pools are ones that Prefect takes and a cluster understands."""

import json
import re
import subprocess
from pathlib import Path

import jsonschema
import pytest
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.server.schemas.actions import validate_base_job_template
from prefect.utilities.templating import apply_values, find_placeholders

from tasks import environment

POOLS = Path(__file__).parents[3] / "config/work_pools"
TEMPLATES = ["docker", "kubernetes"]


def read(kind):
    return json.loads((POOLS / f"{kind}.json").read_text(encoding="utf-8"))


def resolve(kind, **given):
    """Fill a template in as a worker does: what is given, else the defaults."""
    template = read(kind)
    fields = template["variables"]["properties"]
    values = {name: field["default"] for name, field in fields.items() if "default" in field}
    return apply_values(template["job_configuration"], {**values, **given})


@pytest.mark.parametrize("kind", TEMPLATES)
def test_prefect_takes_the_template_and_every_value_has_a_valid_default(kind):
    template = read(kind)
    assert validate_base_job_template(template) == template
    pool = WorkPoolCreate(name="gpu", type=kind, base_job_template=template)
    assert pool.base_job_template == template
    jsonschema.Draft202012Validator.check_schema(template["variables"])
    fields = template["variables"]["properties"]
    jsonschema.validate(
        {name: one["default"] for name, one in fields.items()}, template["variables"]
    )
    used = {one.name for one in find_placeholders(template["job_configuration"])}
    assert used == set(fields)


@pytest.mark.parametrize("kind", TEMPLATES)
def test_a_run_there_is_as_quiet_as_here(kind):
    given = resolve(kind)["env"]
    assert given
    assert {name: environment.DEFAULTS[name] for name in given} == given


def test_a_container_has_the_working_tree_where_the_deployment_looks_for_it():
    job = resolve("docker", command="prefect flow-run execute")
    folder = job["container_create_kwargs"]["working_dir"]
    assert f"{folder}:{folder}" in job["volumes"]
    assert job["command"] == "prefect flow-run execute"
    assert job["privileged"] is False


def test_a_job_of_kubernetes_runs_the_command_once_beside_the_working_tree():
    command = ["prefect", "flow-run", "execute"]
    manifest = resolve("kubernetes", command=command, name="brave-owl")["job_manifest"]
    assert (manifest["apiVersion"], manifest["kind"]) == ("batch/v1", "Job")
    assert manifest["metadata"]["generateName"] == "brave-owl-"
    spec = manifest["spec"]
    # Retries are the flow's: a second pod would run the same flow run.
    assert (spec["backoffLimit"], spec["parallelism"], spec["completions"]) == (0, 1, 1)
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["restartPolicy"] == "Never"
    assert container["args"] == command
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    mounts = {one["name"]: one["mountPath"] for one in container["volumeMounts"]}
    assert mounts == {"project": container["workingDir"], "shm": "/dev/shm"}
    assert {one["name"] for one in pod["volumes"]} == set(mounts)
    assert "{{" not in json.dumps(manifest)
    # Longer than a child of the flow has to end (tasks/_processes.py).
    assert pod["terminationGracePeriodSeconds"] >= 60


def test_the_script_for_slurm_is_bash_and_runs_the_same_commands():
    script = POOLS / "retrain.sbatch"
    done = subprocess.run(["bash", "-n", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    text = script.read_text(encoding="utf-8")
    assert "python -m flows retrain --reason" in text
    assert "prefect worker start --pool" in text
    options = re.findall(r"^#SBATCH --([a-z-]+)=?", text, flags=re.MULTILINE)
    assert {"requeue", "signal", "time", "gpus-per-node"} <= set(options)
    # Slurm makes no folders, and a job whose log cannot be opened fails without a word.
    (log,) = re.findall(r"^#SBATCH --output=(.*)$", text, flags=re.MULTILINE)
    assert "/" not in log
