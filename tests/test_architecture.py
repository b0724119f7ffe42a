"""The law of the house, executable: names, layers, dependencies and sizes."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import grimp
import pytest
import yaml

from tasks import STEPS, environment
from tasks.params import CONFIGS

ROOT = Path(__file__).parents[1]
PACKAGES = ("flows", "tasks", "ovis_model", "benchmarks")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
DVC = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
GRAPH = grimp.build_graph("tasks", "ovis_model", cache_dir=None)

MAX_FILE_LINES = 450
MAX_FUNCTION_LINES = 50
#: Functions that may be longer, with the reason.
LONG_FUNCTIONS: dict[str, str] = {}
#: What a step starts as a process of its own, where the import graph cannot see it.
STARTED = {
    "validate": ("ovis_model.data.decoding.child", "ovis_model.data.checks.inspection"),
    "extract": ("ovis_model.data.decoding.child", "ovis_model.data.picture_store"),
    "train": ("ovis_model.training.__main__",),
}
#: Code that no step runs: it is offered to those who call the library themselves.
LIBRARY_ONLY = {
    "ovis_model/data/annotations/json_schema.py",
    "ovis_model/data/annotations/removal.py",
    "ovis_model/data/annotations/writing.py",
}
#: Files whose names say nothing about what is in them.
VAGUE_NAMES = {"utils.py", "helpers.py", "common.py", "misc.py"}


# ---- one list of steps, told many times -----------------------------------------------------


def test_dvc_stages_are_the_steps_in_order():
    assert tuple(DVC) == STEPS


@pytest.mark.parametrize("step", STEPS)
def test_each_stage_runs_its_own_step_and_depends_on_its_own_file(step):
    assert DVC[step]["cmd"] == f"exec python -m tasks {step}"
    first, *others = DVC[step]["params"]
    assert first == step
    # Of another step's section single values only: its other values must not re-run this one.
    assert all(name.partition(".")[0] in STEPS and "." in name for name in others)
    assert f"tasks/{step}.py" in DVC[step]["deps"]


def test_params_and_their_classes_have_exactly_one_section_per_step():
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    assert tuple(params) == STEPS
    assert tuple(CONFIGS) == STEPS


def test_the_makefile_has_one_target_per_step():
    assert re.search(r"^STEPS = (.*)$", MAKEFILE, re.MULTILINE)[1].split() == list(STEPS)


def test_the_flow_runs_the_steps_in_order():
    tree = ast.parse((ROOT / "flows/retrain.py").read_text(encoding="utf-8"))
    calls = [
        (node.lineno, node.func.id)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    ]
    assert tuple(name for _, name in sorted(calls) if name in STEPS) == STEPS


@pytest.mark.parametrize("step", STEPS)
def test_each_step_file_has_its_two_faces(step):
    tree = ast.parse((ROOT / f"tasks/{step}.py").read_text(encoding="utf-8"))
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert "run" in functions
    face = functions[step]
    assert ast.unparse(face.decorator_list[0]).startswith(f"task(name='{step}'")


def test_the_readme_table_names_the_steps_in_order():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `?(\w+)`? \|", readme, re.MULTILINE)
    assert tuple(row for row in rows if row in STEPS)[: len(STEPS)] == STEPS


# ---- a stage depends on the code it runs ----------------------------------------------------


def path_of(module):
    path = ROOT.joinpath(*module.split("."))
    found = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return found.relative_to(ROOT).as_posix()


def is_code(path):
    """Package markers hold a docstring and nothing else; another test sees to that."""
    return path.startswith("ovis_model") and not path.endswith("__init__.py")


def covers(dep, path):
    return path == dep or path.startswith(dep + "/")


def code_of(step):
    modules = GRAPH.find_upstream_modules(f"tasks.{step}")
    for started in STARTED.get(step, ()):
        modules |= {started, *GRAPH.find_upstream_modules(started)}
    return {path for path in map(path_of, modules) if is_code(path)}


@pytest.mark.parametrize("step", STEPS)
def test_the_code_a_stage_lists_is_the_code_it_imports(step):
    imported = code_of(step)
    listed = [dep for dep in DVC[step]["deps"] if dep.startswith("ovis_model")]
    covered = {
        path
        for dep in listed
        for path in (
            [dep]
            if dep.endswith(".py")
            else [found.relative_to(ROOT).as_posix() for found in (ROOT / dep).rglob("*.py")]
        )
        if is_code(path)
    }
    missing, unused = sorted(imported - covered), sorted(covered - imported - LIBRARY_ONLY)
    assert (missing, unused) == ([], []), f"{step}: add {missing}, drop {unused}"


def test_code_that_no_step_runs_is_listed_as_such_and_exists():
    assert not LIBRARY_ONLY & set().union(*map(code_of, STEPS))
    assert all((ROOT / path).is_file() for path in LIBRARY_ONLY)


def test_package_markers_hold_a_docstring_and_nothing_else():
    """Otherwise an import of one part would import another, and no stage list would show it.

    The exception registers the model with transformers; stages list its folder whole.
    """
    registers = ROOT / "ovis_model/modeling/__init__.py"
    for path in {*(ROOT / "ovis_model").rglob("__init__.py")} - {registers}:
        body = ast.parse(path.read_text(encoding="utf-8")).body
        assert len(body) <= 1, path
        assert all(isinstance(node, ast.Expr) for node in body), path


@pytest.mark.parametrize("step", [step for step in DVC if "always_changed" not in DVC[step]])
def test_an_output_is_in_git_or_in_the_cache(step):
    """A fresh clone that lacks one runs the stage again, be it a whole training."""
    listed = [one for kind in ("outs", "metrics", "plots") for one in DVC[step].get(kind, ())]
    settings = [next(iter(one.items())) for one in listed if isinstance(one, dict)]
    uncached = [name for name, setting in settings if setting.get("cache") is False]
    command = ["git", "check-ignore", *uncached]
    ignored = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (uncached != [], ignored.stdout) == (True, "")


def test_every_out_belongs_to_one_stage():
    outs = [
        next(iter(out)) if isinstance(out, dict) else out
        for stage in DVC.values()
        for kind in ("outs", "metrics", "plots")
        for out in stage.get(kind, [])
    ]
    assert len(outs) == len(set(outs))


# ---- layers ---------------------------------------------------------------------------------


def test_the_layers_hold():
    program = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run(
        [program, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr


@pytest.mark.parametrize(
    "module", ["ovis_model.config", "ovis_model.data.schema", "tasks.params", "tasks.summary"]
)
def test_reading_configuration_data_and_reports_does_not_import_torch(module):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


# ---- sizes and habits -----------------------------------------------------------------------


def docstring_lines(function):
    """Nobody should save on these."""
    first = function.body[0]
    is_docstring = ast.get_docstring(function) is not None
    return first.end_lineno - first.lineno + 1 if is_docstring else 0


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_files_and_functions_stay_small(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MAX_FILE_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            name = f"{path.relative_to(ROOT).as_posix()}:{node.name}"
            length = node.end_lineno - node.lineno + 1 - docstring_lines(node)
            assert length <= MAX_FUNCTION_LINES or name in LONG_FUNCTIONS, f"{name}: {length}"


def test_functions_stay_simple_without_exemptions():
    """Ruff's limit is 8; nobody may switch it off for a line."""
    config = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert "max-complexity = 8" in config
    exempted = [path for path in SOURCES if "noqa: C901" in path.read_text(encoding="utf-8")]
    assert exempted == []


def test_no_file_has_a_name_that_says_nothing():
    assert [path for path in SOURCES if path.name in VAGUE_NAMES] == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_code_swallows_every_exception(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"line {node.lineno}: a bare except"
            assert ast.unparse(node.type) not in ("Exception", "BaseException"), node.lineno


# ---- the environment ------------------------------------------------------------------------


def test_the_makefile_exports_the_same_defaults_as_the_code():
    exported = dict(re.findall(r"^export (\w+) \?= (.*)$", MAKEFILE, re.MULTILINE))
    assert exported.pop("PREFECT_HOME") == "$(CURDIR)/.prefect"
    assert exported == environment.DEFAULTS


def test_the_lock_pins_everything_once_and_names_no_build_of_torch():
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    pins = [line.split("==") for line in lines]
    assert all(len(pin) == 2 for pin in pins)
    assert all("+" not in version for _, version in pins)
    names = [name.lower() for name, _ in pins]
    assert len(names) == len(set(names))
    assert "torchvision" not in names
