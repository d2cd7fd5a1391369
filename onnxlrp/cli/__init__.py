"""The `onnxlrp` command, one file for each of its own commands."""

import click

from onnxlrp.cli.check import check
from onnxlrp.cli.compare import compare
from onnxlrp.cli.composites import composites
from onnxlrp.cli.convert import convert
from onnxlrp.cli.demo import demo
from onnxlrp.cli.evaluate import evaluate
from onnxlrp.cli.explain import explain
from onnxlrp.cli.group import OneLineErrors
from onnxlrp.cli.inspect import inspect
from onnxlrp.cli.report import report
from onnxlrp.cli.serve import serve
from onnxlrp.cli.sheet import sheet
from onnxlrp.cli.terminal import echo


def _tell_versions(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if not wanted or context.resilient_parsing:
        return
    from onnxlrp.runtime import versions

    for name, said in versions().items():
        echo(f"{name} {said}")
    context.exit()


@click.group(
    cls=OneLineErrors,
    commands=[
        demo,
        convert,
        explain,
        report,
        serve,
        sheet,
        inspect,
        check,
        evaluate,
        compare,
        composites,
    ],
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_tell_versions,
    help="Show versions and what onnxruntime runs on, for reports of faults, and exit.",
)
def main() -> None:
    """Ask an ONNX classifier why: Layer-wise Relevance Propagation, compiled into ONNX.

    `onnxlrp demo` shows it on a bundled network and photograph.
    """
