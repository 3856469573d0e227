"""The command ``understudy``: one JSON config in, one JSON result out.

``--config -`` reads the config from standard input; without ``--result`` the result
goes to standard output. Exit status: 0 carried out (the result says how it went),
1 it could not be carried out (one line on standard error says why), 2 bad arguments.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from understudy.common.errors import describe
from understudy.common.jsonio import write_json
from understudy.common.progress import Progress

Result = dict[str, Any]


def main(argv: list[str] | None = None) -> int:
    """Run one subcommand and return its exit status."""
    arguments = _parser().parse_args(argv)
    with _stdout_to_stderr():
        try:
            result = arguments.run(arguments)
            status = int(result.pop("exit_status", 0)) if result else 0
            path = getattr(arguments, "result", None)
            if result and path:
                write_json(path, result)
        except (OSError, ValueError, RuntimeError) as error:
            print(f"understudy {arguments.command}: {error}", file=sys.stderr)
            return 1
        except (ImportError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
            print(f"understudy {arguments.command}: {_unexpected(error)}", file=sys.stderr)
            return 1
    if result and not path:
        print(json.dumps(result))
    return status


def _unexpected(error: Exception) -> str:
    """Return what an exception means that the input caused and no check foresaw, and its place."""
    if isinstance(error, ImportError):
        return f"{error}. Next: run it in the environment that the voice was installed into"
    last = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{Path(last.filename).name}, line {last.lineno}"
    return f"the input is not of the expected form ({describe(error)}; {place})"


@contextlib.contextmanager
def _stdout_to_stderr() -> Iterator[None]:
    """Keep libraries that print, from Python or from C, out of the result."""
    sys.stdout.flush()
    saved = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        ctypes.CDLL(None).fflush(None)  # what C still holds back would come out after the result
        os.dup2(saved, 1)
        os.close(saved)


class _Config(dict[str, Any]):
    """A config that names what it lacks."""

    def __missing__(self, key: str) -> Any:
        raise ValueError(f"the config has no {key!r}")


def _config(arguments: argparse.Namespace) -> dict[str, Any]:
    text = sys.stdin.read() if str(arguments.config) == "-" else arguments.config.read_text("utf-8")
    try:
        config = json.loads(text)
    except ValueError as error:
        raise ValueError(f"the config {arguments.config} is not JSON: {error}") from None
    if not isinstance(config, dict):
        raise ValueError(f"the config {arguments.config} is not a JSON object")
    return _Config(config)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="understudy", description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, run: Callable[[argparse.Namespace], Result | None], text: str) -> Any:
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(run=run)
        return command

    def add_job(name: str, run: Callable[[argparse.Namespace], Result | None], text: str) -> Any:
        command = add(name, run, text)
        command.add_argument("--config", type=Path, required=True, help="JSON file, or -")
        command.add_argument("--result", type=Path, help="JSON file (default: standard output)")
        command.add_argument("--progress", type=Path, help="JSON lines, one per step")
        return command

    add_job("inputs", _inputs, "check the utterances and the voice reference")
    add_job("weights", _weights, "fetch and check the model's files")
    add_job("guard", _guard, "find and mend the Blackwell hazard")
    add_job("smoke", _smoke, "speak one utterance")
    add_job("bench", _bench, "benchmark the model in this process")
    add_job("baseline", _baseline, "record the utterances of the primary's server")
    add_job("compare", _compare, "compare the voices of two hosts")
    add_job("calibrate", _calibrate, "find out how far apart two runs of one host are")
    add_job("probe", _probe, "make a voice server speak a fresh sentence")
    serve = add("serve", _serve, "serve the voice over HTTP")
    serve.add_argument("--config", type=Path, required=True, help="JSON file, or -")

    facts = add("facts", _facts, "print what this host's voice depends on")
    facts.add_argument("--device", help="a torch device (default: a GPU where there is one)")
    probe = add("guard-probe", _guard_probe, "take the hazard's operations in this process")
    probe.add_argument("--device", required=True)
    probe.add_argument("--patched", action="store_true")
    listen = add("listen", _listen, "serve the page on which a run is scored blind")
    listen.add_argument("run_dir", type=Path)
    listen.add_argument(
        "--reference", type=Path, required=True, metavar="WAV", help="the voice of the run"
    )
    listen.add_argument(
        "--listen", default="127.0.0.1", metavar="ADDRESS", help="where the page is served"
    )
    listen.add_argument("--port", type=int, default=0, help="0 takes a free one")
    listen.add_argument(
        "--second-pass", action="store_true", help="listen once more, in another order"
    )
    listen.add_argument(
        "--impostor", type=Path, metavar="DIR", help="u01.wav to u10.wav of somebody else"
    )
    listen.add_argument("--owner", type=int, metavar="PID", help="end when this process has ended")
    listen.add_argument("--result", type=Path, help="JSON file (default: standard output)")
    listen.add_argument("--progress", type=Path, help="JSON lines, one per step")
    report = add("report", _report, "make report.html of a run directory")
    report.add_argument("run_dir", type=Path)
    validate = add("validate", _validate, "check a run directory against its schemas")
    validate.add_argument("run_dir", type=Path)
    rehearse = add("rehearsal", _rehearsal, "make small random weights, a voice and an LLM")
    rehearse.add_argument("directory", type=Path)
    rehearse.add_argument("--full-size", action="store_true", help="weights only, 3.2 GB")
    return parser


def _inputs(arguments: argparse.Namespace) -> Result:
    from understudy.bench import inputs

    return inputs.check(_config(arguments))


def _weights(arguments: argparse.Namespace) -> Result:
    from understudy.model import weights

    try:
        return {"weights": weights.ensure(_config(arguments)), "error": None}
    except weights.WeightsError as error:
        return {"weights": None, "error": str(error)}


def _guard(arguments: argparse.Namespace) -> Result:
    from understudy.model import blackwell

    return blackwell.examine(_config(arguments))


def _guard_probe(arguments: argparse.Namespace) -> Result:
    from understudy.model import blackwell

    return blackwell.probe(arguments.device, patched=arguments.patched)


def _smoke(arguments: argparse.Namespace) -> Result:
    from understudy.bench import smoke

    return smoke.run(_config(arguments))


def _bench(arguments: argparse.Namespace) -> Result | None:
    from understudy.bench import standby

    config = _config(arguments)
    out_dir = Path(config["out_dir"]).expanduser()
    out_dir.mkdir(parents=True, exist_ok=True)
    write_json(out_dir / "config.json", config)
    result_path = arguments.result or out_dir / f"bench-{config['host']}.json"
    progress = Progress(arguments.progress)
    _say_done(progress, standby.run(config, result_path, progress))
    return None


def _baseline(arguments: argparse.Namespace) -> Result | None:
    from understudy.bench import primary

    config = _config(arguments)
    result_path = arguments.result or Path(config["out_dir"]) / f"baseline-{config['host']}.json"
    progress = Progress(arguments.progress)
    _say_done(progress, primary.run(config, result_path, progress))
    return None


def _compare(arguments: argparse.Namespace) -> Result:
    from understudy.similarity import compare

    return compare.compare(_config(arguments))


def _calibrate(arguments: argparse.Namespace) -> Result:
    from understudy.similarity import calibration

    return calibration.run(_config(arguments), Progress(arguments.progress))


def _facts(arguments: argparse.Namespace) -> Result:
    from understudy.model import environment

    return environment.collect(arguments.device)


def _say_done(progress: Progress, result: Result) -> None:
    """Write the progress line after which a follower reads the job itself."""
    error = result["error"]
    seen = f"failed: {error['seen']}" if error else f"{result['aggregate']['ok_count']} usable"
    name = result["phase"].removeprefix("tts_")
    text = f"{result['host']}  {name} done  {seen}"
    progress.write(host=result["host"], phase="done", text=text)


def _probe(arguments: argparse.Namespace) -> Result:
    from understudy.bench import primary

    return primary.probe(_config(arguments))


def _serve(arguments: argparse.Namespace) -> Result | None:
    from understudy.serve import process

    return {"exit_status": process.run(_config(arguments))}


def _listen(arguments: argparse.Namespace) -> Result:
    from understudy.listening import command as listen

    return listen.run(
        arguments.run_dir,
        arguments.reference,
        bind=arguments.listen,
        port=arguments.port,
        second_pass=arguments.second_pass,
        impostor_dir=arguments.impostor,
        owner=arguments.owner,
        progress=Progress(arguments.progress),
    )


def _report(arguments: argparse.Namespace) -> Result:
    from understudy.report import page as report
    from understudy.verdict.run_directory import locate

    return {"report": str(report.render(locate(arguments.run_dir)))}


def _validate(arguments: argparse.Namespace) -> Result:
    from understudy.documents import validate as schemas

    problems = schemas.validate_run(arguments.run_dir)
    return {"problems": problems, "exit_status": 1 if problems else 0}


def _rehearsal(arguments: argparse.Namespace) -> Result | None:
    from understudy import rehearsal

    if arguments.full_size:
        rehearsal.make_weights(arguments.directory, small=False)
    else:
        rehearsal.make_all(arguments.directory)
    return None


if __name__ == "__main__":
    sys.exit(main())
