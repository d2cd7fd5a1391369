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
@click.version_option(package_name="onnxlrp", message="%(prog)s %(version)s", prog_name="onnxlrp")
def main() -> None:
    """Ask an ONNX classifier why: Layer-wise Relevance Propagation, compiled into ONNX.

    `onnxlrp demo` shows it on a bundled network and photograph.
    """
