"""The command line: the list of commands, and the only place that makes messages and exit codes."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from dskd_compress import __version__
from dskd_compress.commands.ab import ab
from dskd_compress.commands.benchmark import benchmark
from dskd_compress.commands.build import BuildCommand, build
from dskd_compress.commands.bundle import app as bundle
from dskd_compress.commands.compare import compare
from dskd_compress.commands.dashboard import dashboard
from dskd_compress.commands.deploy import DeployCommand, deploy
from dskd_compress.commands.distill import distill
from dskd_compress.commands.doctor import doctor
from dskd_compress.commands.export import export
from dskd_compress.commands.fleet import fleet
from dskd_compress.commands.models import app as models
from dskd_compress.commands.push_to_hub import push_to_hub
from dskd_compress.commands.recipes import app as recipes
from dskd_compress.commands.report import report
from dskd_compress.commands.run import run
from dskd_compress.commands.settings import TrainingCommand
from dskd_compress.commands.train import train
from dskd_compress.commands.tune import tune
from dskd_compress.commands.validate import validate
from dskd_compress.interrupt import (
    ctrl_c_came,
    forget_ctrl_c,
    make_resume_command,
    watch_for_ctrl_c,
)
from dskd_compress.launch import get_process_rank
from dskd_compress.shortages import explain_error, first_line
from dskd_compress.standard_output import guard_output
from dskd_export.errors import (
    DskdError,
    EnvironmentProblem,
    Interrupted,
    ProcessLost,
    TrainingDiverged,
    UsageError,
)

PROGRAM = "dskd-compress"

_INTERRUPTED = "Interrupted."
_PIPE_CLOSED = 141  # what a shell reports for a program that was ended by SIGPIPE

app = typer.Typer(
    name=PROGRAM,
    rich_markup_mode="rich",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

PIPELINE = "The pipeline, in order"
app.command(rich_help_panel=PIPELINE)(run)
app.command(rich_help_panel=PIPELINE, cls=TrainingCommand)(train)
app.command(rich_help_panel=PIPELINE, cls=TrainingCommand)(distill)
app.command(rich_help_panel=PIPELINE)(tune)
app.command(rich_help_panel=PIPELINE)(export)
app.command(rich_help_panel=PIPELINE, cls=BuildCommand)(build)
app.command(rich_help_panel=PIPELINE)(validate)
app.command(rich_help_panel=PIPELINE)(benchmark)
app.command(rich_help_panel=PIPELINE)(report)

OTHER = "Other commands"
app.command(rich_help_panel=OTHER)(ab)
app.command(rich_help_panel=OTHER)(compare)
app.command(rich_help_panel=OTHER)(dashboard)
app.command(rich_help_panel=OTHER, cls=DeployCommand)(deploy)
app.command(rich_help_panel=OTHER)(doctor)
app.command(rich_help_panel=OTHER)(fleet)
app.command("push-to-hub", rich_help_panel=OTHER)(push_to_hub)
app.add_typer(bundle, name="bundle", rich_help_panel=OTHER)
app.add_typer(models, name="models", rich_help_panel=OTHER)
app.add_typer(recipes, name="recipes", rich_help_panel=OTHER)


def _unwrap(text: str) -> str:
    """Join the lines of every paragraph but the examples; Rich would keep their breaks."""
    paragraphs = inspect.cleandoc(text).split("\n\n")
    return "\n\n".join(one if one.startswith(" ") else one.replace("\n", " ") for one in paragraphs)


for _group in (app, bundle, models, recipes):
    for _command in _group.registered_commands:
        _command.help = _unwrap(getattr(_command.callback, "__doc__", None) or "")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"{PROGRAM} {__version__}")
        raise typer.Exit


# What several processes can share; of any other command each would do all the work, and write over the others.
_TRAINS = ("train", "distill", "tune")


@app.callback()
def common(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error. Accepted anywhere on the line.")
    ] = False,
) -> None:
    """Compress a timm model: train a small student from it with DSKD, export, validate and benchmark it.

    Exit codes: 0 success, 1 bug, 2 command line or recipe, 3 images or model,
    4 this machine, 5 limit exceeded, 6 not shown to pass, 130 interrupted.

    [bold]Examples[/bold]

      dskd-compress run --out runs/demo
      dskd-compress distill --teacher resnet34 --student resnet18 --data photos --out runs/r18
      dskd-compress recipes list
    """
    place = get_process_rank()
    if place.world_size > 1 and context.invoked_subcommand not in _TRAINS:
        raise UsageError(
            f"{context.invoked_subcommand} was started as {place.world_size} processes.",
            "Use torchrun for train, distill and tune alone; run the others without it.",
        )


class Bug(DskdError):
    """An error that nobody foresaw."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: without the program's name; None takes those of the process.

    Returns:
        The exit code.
    """
    watch_for_ctrl_c()
    given = list(sys.argv[1:] if arguments is None else arguments)
    with guard_output() as lost:
        code = _run(given)
        sys.stdout.flush()
        forget_ctrl_c()
        if code != 0 or lost.error is None:
            return code
        if isinstance(lost.error, BrokenPipeError):  # the reader left, as `head` does: nobody is listening
            return _PIPE_CLOSED
        failure = EnvironmentProblem(
            f"Standard output cannot be written: {lost.error.strerror}.",
            "All files are written; only the printed text is lost. Redirect stdout to another place.",
        )
        _show(failure, None, json_output=False)
        return failure.exit_code


def _run(given: list[str]) -> int:
    options = given[: given.index("--")] if "--" in given else given
    debug, json_output = "--debug" in options, "--json" in options
    rest = [word for word in options if word != "--debug"] + given[len(options) :]
    try:
        code = app(args=rest, prog_name=PROGRAM, standalone_mode=False)
        sys.stdout.flush()
        if code == 130:  # newer Typers make this of a KeyboardInterrupt
            raise KeyboardInterrupt
        return code if isinstance(code, int) else 0
    except SystemExit:
        raise  # shell completion ends this way
    except BaseException as error:
        if ctrl_c_came() and not isinstance(error, Interrupted):
            cause, error = error, KeyboardInterrupt()
            error.__cause__ = cause
        if type(error).__name__ == "NoArgsIsHelpError":
            error.show()  # type: ignore[attr-defined]
            return 2
        failure = describe(error)
        if isinstance(failure, Interrupted):
            failure.hint = _describe_resuming(rest, failure)
        if _is_reported_here(error):
            _show(failure, error if debug else None, json_output)
        if get_process_rank().world_size > 1:
            # At once: taking down what joins the processes would wait for the others, which may be gone.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(failure.exit_code)
        return failure.exit_code


def _describe_resuming(arguments: Sequence[str], failure: Interrupted) -> str | None:
    """Describe how an interrupted command is resumed; None where it starts anew."""
    if get_process_rank().world_size > 1:
        return "Resume with the same torchrun command."
    command = make_resume_command(arguments, failure.run)
    return None if command is None else f"Resume with: {command}"


def _is_reported_here(error: BaseException) -> bool:
    """Whether this process reports an error that the processes which train with it have as well."""
    place = get_process_rank()
    if isinstance(error, (Interrupted, TrainingDiverged, UsageError)):
        return place.is_main
    if isinstance(error, ProcessLost):
        return place.local_rank <= 1  # two on each machine: one of them may be the lost one
    return True


def describe(error: BaseException) -> DskdError:
    """Turn any error into what is reported; everything that nobody foresaw is our bug."""
    error = explain_error(error)
    if isinstance(error, DskdError):
        return error
    if isinstance(error, (KeyboardInterrupt, typer.Abort)):
        return Interrupted(_INTERRUPTED)
    # Typer carries its own copy of Click or uses Click's, by version; both errors look alike.
    if hasattr(error, "format_message") and hasattr(error, "show"):
        context = getattr(error, "ctx", None)
        command = context.command_path if context is not None else PROGRAM
        return UsageError(error.format_message().replace("Value error, ", "", 1), f"See: {command} --help")
    return Bug(
        f"this is a bug in dskd-compress: {type(error).__name__}: {first_line(error)}",
        "Run the same command with --debug and report the traceback.",
    )


def _show(failure: DskdError, traceback_of: BaseException | None, json_output: bool) -> None:
    if traceback_of is not None:
        import traceback

        traceback.print_exception(type(traceback_of), traceback_of, traceback_of.__traceback__, file=sys.stderr)
    color = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    red, end = ("\033[1;31m", "\033[0m") if color else ("", "")
    place = get_process_rank()
    where = "" if place.is_main else f"process {place.rank} of {place.world_size}: "
    code = None if failure.code is None else str(failure.code)
    prefix = f"{red}error:{end} {where}{code + ': ' if code else ''}"
    if isinstance(failure, Interrupted):  # on request: no error
        if failure.message != _INTERRUPTED:
            sys.stderr.write(f"{_printable(failure.message)}\n")
        sys.stderr.write(f"{_printable(' '.join(filter(None, (_INTERRUPTED, failure.hint))))}\n")
    else:
        sys.stderr.write(f"{prefix}{_printable(failure.message)}\n")
        if failure.hint:
            sys.stderr.write(f"hint: {_printable(failure.hint)}\n")
    if json_output and place.is_main:
        from dskd_compress.console import is_document_written, write_document

        # A gate that failed after its document was printed needs no second one.
        if not is_document_written():
            faults = {"faults": [_describe(one) for one in failure.problems]} if failure.problems else {}
            write_document({"error": {**_describe(failure), **faults}})


def _describe(failure: DskdError) -> dict[str, object]:
    """The facts of an error, for its document."""
    return {
        "kind": type(failure).__name__,
        "code": None if failure.code is None else str(failure.code),
        "message": failure.message,
        "hint": failure.hint,
        "exit_code": failure.exit_code,
    }


def _printable(text: str) -> str:
    """File names may hold anything; nothing of it reaches the terminal as a control sequence."""
    return "".join(sign if sign.isprintable() or sign == "\n" else repr(sign)[1:-1] for sign in text)
