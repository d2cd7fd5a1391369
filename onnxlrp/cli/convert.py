"""`onnxlrp convert`: a model in, its explainer out."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from onnxlrp.cli.check import as_object, audited, show
from onnxlrp.cli.options import (
    Sectioned,
    composite_options,
    conversion_arguments,
    graph_options,
    preprocessing_options,
)
from onnxlrp.cli.paths import Made, Place
from onnxlrp.cli.progress import shown
from onnxlrp.cli.terminal import dump, echo
from onnxlrp.errors import InputError
from onnxlrp.files import naming, write


@click.command(cls=Sectioned, short_help="Compile a classifier into its explainer.")
@click.argument("model", type=Place())
@click.argument("explainer", required=False, type=Made(dir_okay=False))
@composite_options
@graph_options
@preprocessing_options
@click.option(
    "--features",
    type=Place(),
    metavar="FILE",
    help="Names of a table's features in the order of the model, one a line, or JSON; they find "
    "its columns.",
)
@click.option(
    "--triton",
    type=Place(file_okay=False),
    metavar="DIR",
    help="Instead of EXPLAINER, write DIR/MODEL_explainer/1/model.onnx and its config.pbtxt: a "
    "model repository of Triton, or KServe.",
)
@click.option("--external-data", is_flag=True, help="Write the weights into a file beside it.")
@click.option(
    "--load-check/--no-load-check",
    default=True,
    help="Write it only if onnx finds it valid and onnxruntime loads it.",
)
@click.option(
    "--verify", is_flag=True, help="Then audit it on a random input, as `onnxlrp check` does."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
def convert(
    model: Path,
    explainer: Path | None,
    features: Path | None,
    triton: Path | None,
    external_data: bool,
    load_check: bool,
    verify: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Compile the classifier MODEL into EXPLAINER, both ONNX files.

    EXPLAINER takes MODEL's inputs and `target` (int64, one class a picture, -1 for the top one), or
    `weights`, and returns MODEL's outputs and `relevance`, in the input's shape.
    """
    start = time.perf_counter()
    if (explainer is None) == (triton is None):
        raise click.UsageError("give either EXPLAINER, a file, or --triton DIR")
    if triton is not None:
        from onnxlrp.running.triton import explainer_path

        explainer = explainer_path(triton, model)
    assert explainer is not None
    if triton is None and not explainer.parent.is_dir():
        raise InputError(f"{explainer.parent}: no such folder to write the explainer to")

    import onnxlrp
    from onnxlrp.cli import tables
    from onnxlrp.inputs.targets import load_labels

    names = load_labels(features) if features else ()
    if features and not names:
        raise InputError(f"{features} names no feature")
    arguments, alone = conversion_arguments(options), ""
    with shown():
        conversion = onnxlrp.convert(model, features=names, **arguments)
        if triton is None:
            with naming(explainer):
                loaded = conversion.save(explainer, external_data=external_data, check=load_check)
        else:
            from onnxlrp.running.triton import save

            kept = {"external_data": external_data, "check": load_check}
            loaded, alone = save(conversion, explainer, **kept)
    reads_tokens = any("int" in dtype and len(shape) == 2 for _, dtype, shape in conversion.inputs)
    copied = _with_tokenizer(model, explainer) if reads_tokens else None
    seconds = time.perf_counter() - start
    warnings = [*conversion.warnings]
    if load_check and not loaded:
        warnings.append("onnxruntime is not installed: that the explainer loads is not checked")
    if alone:
        warnings.append(f"max_batch_size is 0, so Triton runs each request alone: {alone}")
    for warning in warnings:
        echo(f"Warning: {warning}", err=True)
    if as_json:
        files = {"model": tables.file_size(model), "explainer": tables.file_size(explainer)}
        summary = tables.summary(conversion) | {"bytes": files, "seconds": round(seconds, 3)}
    else:
        tables.show(
            tables.rules(conversion.nodes), tables.values(conversion.inputs, conversion.outputs)
        )
        for line in tables.kinds(conversion):
            echo(line)
        echo(
            f"{model} ({tables.size_text(model)}) -> {explainer} "
            f"({tables.size_text(explainer)}) in {seconds:.1f} s; "
            f"relevance starts from '{conversion.score}'"
        )
        if copied is not None:
            echo(f"{copied}: the tokenizer beside {model}, for `onnxlrp explain`")
    audit = audited(model, explainer) if verify else None
    if as_json:
        told = {} if audit is None else {"audit": as_object(audit)}
        dump(summary | told)
    elif audit is not None:
        echo()
        show(audit)
    if audit is not None and not audit.passed:
        raise click.exceptions.Exit(1)


def _with_tokenizer(model: Path, explainer: Path) -> Path | None:
    """Put the tokenizer that lies beside a model beside its explainer, too."""
    from onnxlrp.inputs.tokens import beside

    found, there = beside(model), beside(explainer)
    if found is None or (there is not None and there.read_bytes() == found.read_bytes()):
        return None
    copied = explainer.with_name(f"{explainer.stem}.tokenizer.json")
    write(copied, lambda file: file.write(found.read_bytes()))
    return copied
