"""`ovis eval`: ask a model, mark, compare, find its thinking budget, exchange predictions.

ovis eval run models/finetuned --out runs/mine
ovis eval run champion --out runs/champion
ovis eval run models/finetuned --endpoint http://localhost:8000/v1 --out runs/served
ovis eval score runs/mine
ovis eval compare runs/mine runs/champion
ovis eval sweep models/finetuned --budgets 0 256 1024
ovis eval export runs/mine --name Mine --out exported
ovis eval import Mine_MMStar.tsv --benchmark mmstar.yaml --out runs/imported
ovis eval speed models/finetuned --limit 30
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ovis_model.config import EvaluateConfig
from ovis_model.errors import ConfigError
from tasks.artifacts import PARAMS, REPORTS
from tasks.commands import compare
from tasks.params import Params

if TYPE_CHECKING:
    from collections.abc import Callable

    from ovis_model.evaluation.benchmarks.benchmark import Benchmark
    from ovis_model.evaluation.exam import Backend
    from ovis_model.evaluation.predictions import Run
    from ovis_model.evaluation.shards import Shard

RUNS = REPORTS / "runs"
SUMMARY = "summary.json"


def add_parser(commands: Any) -> None:
    """Add the command and its own commands to those of `ovis`.

    Args:
        commands: What `add_subparsers` returned.
    """
    parser: argparse.ArgumentParser = commands.add_parser(
        "eval", help="ask a model, mark, compare, find its thinking budget, exchange predictions"
    )
    inner = parser.add_subparsers(dest="eval_command", required=True)
    _add_run(inner)
    _add_score(inner)
    compare.add_parser(inner)
    _add_sweep(inner)
    _add_exchange(inner)
    _add_speed(inner)


def _add(commands: Any, name: str, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    return parser


def _add_run(commands: Any) -> None:
    parser = _add(commands, "run", "ask a model the questions of benchmarks")
    _add_asking(parser)
    parser.add_argument("--out", type=Path, help=f"run folder (default: {RUNS}/NAME)")
    parser.add_argument("--shard", help="i/n: this process is the i-th of n, from 0")


def _add_asking(parser: argparse.ArgumentParser) -> None:
    """Options of all commands that ask a model."""
    parser.add_argument("model", help="a checkpoint folder, a version, or an alias")
    parser.add_argument("--params", type=Path, default=PARAMS, help="default: %(default)s")
    parser.add_argument("--benchmarks", help="folder of YAML files (default: params.yaml's)")
    parser.add_argument(
        "--preset", choices=["own", "published", "thinking_on", "thinking_off"], help="settings"
    )
    parser.add_argument("--limit", type=int, help="items per benchmark")
    parser.add_argument("--batch-size", type=int, help="items generated together")
    parser.add_argument("--seen-as", type=Path, help="whose pixel limits hold (default: MODEL's)")
    parser.add_argument("--endpoint", help="an OpenAI-compatible server, up to and with /v1")
    parser.add_argument("--served-name", help="what the server calls the model (default: MODEL)")
    parser.add_argument("--api-key-env", help="the environment variable that holds the key")
    parser.add_argument("--concurrency", type=int, default=8, help="questions at the same time")
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds of a request")


def _add_score(commands: Any) -> None:
    parser = _add(commands, "score", "mark stored predictions again, without a model")
    parser.add_argument("run", type=Path, help="run folder")
    _add_benchmarks(parser)
    parser.add_argument("--out", type=Path, help="write the marked rows to this folder")


def _add_benchmarks(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--params", type=Path, default=PARAMS, help="default: %(default)s")
    parser.add_argument("--benchmarks", help="folder of YAML files (default: params.yaml's)")


def _add_sweep(commands: Any) -> None:
    text = "try thinking budgets, and record the smallest one that is good enough"
    parser = _add(commands, "sweep", text)
    _add_asking(parser)
    parser.add_argument("--budgets", type=int, nargs="+", help="tokens; 0 does not think")
    parser.add_argument("--tolerance", type=float, default=1.0, help="points under the best")
    parser.add_argument("--out", type=Path, help="folder of the report (default: reports/sweep)")


def _add_exchange(commands: Any) -> None:
    parser = _add(commands, "export", "write predictions as VLMEvalKit keeps them")
    parser.add_argument("run", type=Path, help="run folder")
    _add_benchmarks(parser)
    parser.add_argument("--name", required=True, help="what the model is called there")
    parser.add_argument("--format", choices=["tsv", "json"], default="tsv")
    parser.add_argument("--out", type=Path, required=True, help="folder of the files")
    parser = _add(commands, "import", "mark predictions that VLMEvalKit made")
    parser.add_argument("file", type=Path, help="its .tsv or .json with predictions")
    parser.add_argument("--benchmark", type=Path, required=True, help="our YAML of the benchmark")
    parser.add_argument("--name", default="imported", help="who answered")
    parser.add_argument("--out", type=Path, required=True, help="run folder to write")


def _add_speed(commands: Any) -> None:
    text = "time a model on the same items, in batches and one by one"
    _add_asking(_add(commands, "speed", text))


def evaluate(options: argparse.Namespace) -> int | None:
    """Do what one of the commands says, and return the exit code if it is not 0.

    Raises:
        OvisError: If arguments, benchmarks, models or stored runs cannot be used.
    """
    commands: dict[str, Callable[[argparse.Namespace], int | None]] = {
        "run": run,
        "score": score,
        "compare": compare.compare_runs,
        "sweep": sweep,
        "export": export,
        "import": import_,
        "speed": speed,
    }
    return commands[options.eval_command](options)


# ---- run ------------------------------------------------------------------------------------


def run(options: argparse.Namespace) -> None:
    """Ask a model; rows that were answered before are not asked again.

    Raises:
        OvisError: If something cannot be used, or a question got no answer.
    """
    # Imported here, as everywhere below: torch takes seconds, which `ovis status` need not wait.
    from ovis_model.evaluation.benchmarks.benchmark import load_benchmarks  # noqa: PLC0415
    from ovis_model.evaluation.exams import build_exams, describe_protocol  # noqa: PLC0415
    from ovis_model.evaluation.running import ask, refuse_errors, write_run  # noqa: PLC0415

    config, shard = _config(options), _shard(options.shard)
    model = find_model(options.model, options.params)
    exams = build_exams(
        load_benchmarks(Path(config.benchmarks), limit=config.limit), config, model=model
    )
    out = options.out or RUNS / model.name
    backend = _backend(options, config, model, shard)
    started = time.perf_counter()
    found = ask(
        exams,
        backend,
        working=_working(out),
        shard=shard,
        label=f"evaluate {model.name}",
        protocol=describe_protocol(config),
    )
    seconds = time.perf_counter() - started
    if found is None:
        sys.stdout.write(f"shard {shard.rank} of {shard.count} is done; others are not yet\n")
        return
    write_run(found, out)
    _write_summary(found, out)
    num_rows = sum(map(len, found.rows.values()))
    sys.stdout.write(f"{num_rows} answers in {out}, after {seconds:.1f} s here\n")
    refuse_errors(found)


def _config(options: argparse.Namespace) -> EvaluateConfig:
    """Read the `evaluate` section, and put the command's options in its place."""
    section = Params.read(options.params).evaluate.model_dump()
    names = ("benchmarks", "preset", "limit", "batch_size")
    given = {name: getattr(options, name) for name in names}
    given = {name: value for name, value in given.items() if value is not None}
    return EvaluateConfig.parse({**section, **given}, where="ovis eval")


def _shard(text: str | None) -> "Shard":
    from ovis_model.evaluation.shards import Shard  # noqa: PLC0415

    return Shard.of_environment() if text is None else Shard.parse(text)


def find_model(name: str, params: Path) -> Path:
    """Return a checkpoint folder, or that of a version: its number, or an alias of it.

    Raises:
        ConfigError: If there is neither, or the version's files are not here.
    """
    if Path(name).is_dir():
        return Path(name)
    from ovis_model.registry import ALIASES  # noqa: PLC0415

    if name not in ALIASES and not name.isdigit():
        raise ConfigError(
            f"{name!r} is neither a folder nor an alias; aliases are {', '.join(ALIASES)}, and "
            "a number is a version"
        )
    from tasks._registry import MlflowRegistry  # noqa: PLC0415

    model_name = Params.read(params).register_.model_name
    registry = MlflowRegistry(model_name)
    version = int(name) if name.isdigit() else registry.version_at(name)
    if version is None:
        raise ConfigError(f"no version of {model_name} is the {name}; run `dvc repro register`")
    kept = registry.files_of(version)
    if not kept.is_dir():
        raise ConfigError(
            f"the files of {model_name} version {version} are not in {kept}; register it here, or "
            "name a folder"
        )
    return kept


def _backend(
    options: argparse.Namespace, config: EvaluateConfig, model: Path, shard: "Shard"
) -> "Backend":
    seen_as = options.seen_as or model
    if options.endpoint is not None:
        from ovis_model.evaluation.backends.openai_endpoint import (  # noqa: PLC0415
            API_KEY_VARIABLE,
            Endpoint,
            OpenAIBackend,
            read_api_key,
        )

        if not options.endpoint.startswith(("http://", "https://")):
            raise ConfigError(
                f"--endpoint {options.endpoint!r} is no address; write one such as "
                "http://localhost:8000/v1"
            )
        endpoint = Endpoint(
            url=options.endpoint.rstrip("/"),
            served_model=options.served_name or options.model,
            api_key=read_api_key(options.api_key_env or API_KEY_VARIABLE),
            concurrency=options.concurrency,
            timeout_s=options.timeout,
        )
        return OpenAIBackend.load(model, seen_as=seen_as, endpoint=endpoint)
    import torch  # noqa: PLC0415

    from ovis_model.evaluation.backends.in_process import TransformersBackend  # noqa: PLC0415
    from ovis_model.inference.engine import BatchLimit  # noqa: PLC0415

    on_gpu = torch.cuda.is_available()
    return TransformersBackend.load(
        model,
        seen_as=seen_as,
        limit=BatchLimit(config.batch_size, config.batch_tokens),
        device=torch.device("cuda", shard.local_rank) if on_gpu else None,
    )


def _working(out: Path) -> Path:
    return out.with_name(f".{out.name}.resume")


def _write_summary(found: "Run", out: Path | None) -> None:
    """Tell the scores of a run, and write them beside it."""
    from ovis_model.evaluation.run_summary import RunSummary  # noqa: PLC0415

    summary = RunSummary.of(found)
    if out is not None:
        summary.write(out / SUMMARY)
    sys.stdout.write(summary.to_table() + "\n")


# ---- stored runs ----------------------------------------------------------------------------


def score(options: argparse.Namespace) -> None:
    """Mark stored predictions again.

    Raises:
        DataError: If run and benchmarks do not fit.
    """
    from ovis_model.evaluation.marking import find_marker, mark_again  # noqa: PLC0415
    from ovis_model.evaluation.predictions import read_run  # noqa: PLC0415
    from ovis_model.evaluation.running import write_run  # noqa: PLC0415

    stored = read_run(options.run)
    markers = {one.name: find_marker(stored, one) for one in _benchmarks(options)}
    marked = mark_again(stored, markers)
    if options.out is not None:
        write_run(marked, options.out)
    _write_summary(marked, options.out)


def _benchmarks(options: argparse.Namespace) -> "tuple[Benchmark, ...]":
    from ovis_model.evaluation.benchmarks.benchmark import load_benchmarks  # noqa: PLC0415

    folder = options.benchmarks or Params.read(options.params).evaluate.benchmarks
    return load_benchmarks(Path(folder))


def export(options: argparse.Namespace) -> None:
    """Write one file per benchmark.

    Raises:
        DataError: If run and benchmarks do not fit, or a question has no answer.
    """
    from ovis_model.evaluation.exchange import export_rows  # noqa: PLC0415
    from ovis_model.evaluation.marking import find_marker, mark_again  # noqa: PLC0415
    from ovis_model.evaluation.predictions import read_run  # noqa: PLC0415

    stored = read_run(options.run)
    markers = {one.name: find_marker(stored, one) for one in _benchmarks(options)}
    for name, rows in mark_again(stored, markers).rows.items():
        path = export_rows(
            rows, markers[name], options.out, name=options.name, form=options.format
        )
        sys.stdout.write(f"{len(rows)} predictions in {path}\n")


def import_(options: argparse.Namespace) -> None:
    """Read a file of predictions, mark them, and write them as a run.

    Raises:
        DataError: If the file and the benchmark do not fit.
    """
    from ovis_model.evaluation.benchmarks.benchmark import load_benchmark  # noqa: PLC0415
    from ovis_model.evaluation.exchange import import_file  # noqa: PLC0415
    from ovis_model.evaluation.running import write_run  # noqa: PLC0415

    found = import_file(options.file, load_benchmark(options.benchmark), name=options.name)
    write_run(found, options.out)
    _write_summary(found, options.out)


# ---- sweep ----------------------------------------------------------------------------------


def sweep(options: argparse.Namespace) -> None:
    """Try budgets, write the report, and record the knee beside the model.

    Raises:
        OvisError: If something cannot be used, or a question got no answer.
    """
    from ovis_model.evaluation.benchmarks.benchmark import load_benchmarks  # noqa: PLC0415
    from ovis_model.evaluation.exams import build_exams  # noqa: PLC0415
    from ovis_model.evaluation.running import ask, refuse_errors  # noqa: PLC0415
    from ovis_model.evaluation.sweep import BUDGETS, render_sweep  # noqa: PLC0415
    from ovis_model.evaluation.sweep import sweep as try_budgets  # noqa: PLC0415
    from ovis_model.inference.auto_budget import budget_file  # noqa: PLC0415
    from ovis_model.reports import write_text  # noqa: PLC0415

    config = _config(options)
    model = find_model(options.model, options.params)
    benchmarks = load_benchmarks(Path(config.benchmarks), limit=config.limit)
    out = options.out or REPORTS / "sweep"
    backend = _backend(options, config, model, _shard(None))

    def ask_all(exams: Any) -> "Run":
        label = f"budget {exams[0].settings.thinking_budget or 0}"
        found = ask(exams, backend, working=_working(out), label=label)
        assert found is not None, "one process leaves nothing to others"
        refuse_errors(found)
        return found

    exams = build_exams(benchmarks, config, model=model)
    found = try_budgets(exams, options.budgets or BUDGETS, ask_all, tolerance=options.tolerance)
    found.write(out / "sweep.json")
    write_text(out / "sweep.html", render_sweep(found))
    found.to_auto_budget().write(budget_file(model))
    sys.stdout.write(f"{found.to_table()}\n{found.rule}: {budget_file(model)}\n")


# ---- speed ----------------------------------------------------------------------------------


def speed(options: argparse.Namespace) -> None:
    """Ask the same items one by one and in batches, and tell both speeds from one process.

    Raises:
        OvisError: If something cannot be used, or a question got no answer.
    """
    from ovis_model.evaluation.benchmarks.benchmark import load_benchmarks  # noqa: PLC0415
    from ovis_model.evaluation.exams import build_exams  # noqa: PLC0415
    from ovis_model.evaluation.running import ask, refuse_errors  # noqa: PLC0415

    config = _config(options)
    model = find_model(options.model, options.params)
    benchmarks = load_benchmarks(Path(config.benchmarks), limit=config.limit)
    exams = build_exams(benchmarks, config, model=model)
    seconds, texts = [], []
    for rows in (1, config.batch_size):
        one = config.model_copy(update={"batch_size": rows})
        options.concurrency = rows
        backend = _backend(options, one, model, _shard(None))
        with tempfile.TemporaryDirectory() as warm, tempfile.TemporaryDirectory() as working:
            # The first answers of a process also load and choose kernels.
            ask(exams[:1], backend, working=Path(warm), label="warming up")
            started = time.perf_counter()
            found = ask(exams, backend, working=Path(working), label=f"{rows} at a time")
            seconds.append(time.perf_counter() - started)
        assert found is not None, "one process leaves nothing to others"
        refuse_errors(found)
        texts.append([row.raw_output for some in found.rows.values() for row in some])
    total = len(texts[0])
    equal = sum(one == other for one, other in zip(*texts, strict=True))
    alone, together = (total / spent for spent in seconds)
    sys.stdout.write(
        f"{total} items: {alone:.2f} items/s one by one, {together:.2f} items/s up to "
        f"{config.batch_size} at a time ({together / alone:.1f} x), {equal} of {total} texts "
        "equal\n"
    )
