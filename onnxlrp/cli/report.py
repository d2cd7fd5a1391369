"""`onnxlrp report`: one page with all maps of a set, side by side where explainers are several."""

from __future__ import annotations

import shlex
import sys
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnxlrp.cli.options import (
    Sectioned,
    batch_option,
    colours_option,
    labels_option,
    preprocessing_options,
    source_options,
)
from onnxlrp.cli.paths import Made, Place
from onnxlrp.cli.progress import progress, shown
from onnxlrp.cli.sources import NOTHING, features_of, given, targeted
from onnxlrp.cli.terminal import echo
from onnxlrp.errors import InputError
from onnxlrp.files import write

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from onnxlrp.running.explainer import Explainer
    from onnxlrp.running.stream import How, Source


@click.command(
    cls=Sectioned, short_help="Write one page with the maps of many items, to look through."
)
@click.argument("explainer", type=Place())
@click.argument("inputs", metavar="[INPUT]...", nargs=-1)
@click.option(
    "--beside",
    multiple=True,
    type=Place(),
    metavar="EXPLAINER",
    help="Another explainer of the same model, whose maps stand beside. Repeatable.",
)
@click.option(
    "--model",
    type=Place(),
    metavar="MODEL",
    help="The model itself: each explainer is audited against it, on the first item.",
)
@source_options
@click.option(
    "-o",
    "--output",
    required=True,
    type=Made(".html", ".htm", dir_okay=False),
    metavar="FILE.html",
    help="The page.",
)
@click.option(
    "--target",
    metavar="N|NAME|top|A-B|FILE",
    help="The class to explain, as for `explain`.",
)
@labels_option
@click.option(
    "--truth",
    metavar="folders|COLUMN|FILE",
    help="Of which class items truly are, so that wrong ones can be looked at: as the folders they "
    "are in are called, a column of tables, or a file as for --target.",
)
@click.option("--title", help="The page's heading.")
@colours_option
@batch_option
@preprocessing_options
def report(
    explainer: Path,
    inputs: tuple[str, ...],
    beside: tuple[Path, ...],
    model: Path | None,
    output: Path,
    target: str | None,
    labels: Path | None,
    truth: str | None,
    title: str | None,
    colours: str,
    batch: int,
    **options: Any,
) -> None:
    """Explain each INPUT and write one page: maps over pictures, scores, what speaks loudest.

    INPUT is what `explain` takes. The page is one file, and asks nobody for anything; it can be
    searched, filtered, and sorted by score, by doubt, and by how much explainers disagree. Behind
    the items stands what the numbers mean, and how the maps were made.
    """
    from importlib.metadata import version

    import onnxruntime

    from onnxlrp.drawing.colours import colour_map
    from onnxlrp.inputs.preprocessing import Preprocessing
    from onnxlrp.inputs.truth import read_truth
    from onnxlrp.reporting import Show, card, page, thumbnail_side
    from onnxlrp.running.explainer import Explainer

    colour_map(colours)
    if not inputs and not options["text"]:
        raise click.UsageError(NOTHING)
    files = [explainer, *beside]
    with ExitStack() as opened:
        with shown():
            runs = [
                opened.enter_context(
                    Explainer(file, tokenizer=options["tokenizer"], most=options["tokens"])
                )
                for file in files
            ]
        first = runs[0]
        for file, run in zip(files, runs, strict=True):
            if run.contract.references:
                raise InputError(f"{file} takes its reference when it runs: convert with one in it")
            if run.contract.model_sha256 != first.contract.model_sha256:
                raise InputError(f"{file} explains another model than {explainer}")
        items, how = given(first, inputs, output, options)
        asks = [
            targeted(run, file, items, target, labels)
            for file, run in zip(files, runs, strict=True)
        ]
        named = asks[0][0]
        if any(targets.best > 1 for _, targets in asks):
            raise InputError("a report has one class an item: give --target top")
        show = Show(
            how if isinstance(how, Preprocessing) else None,
            named,
            features_of(first, how),
            all(run.score_is_output for run in runs),
            colours,
            thumbnail_side(len(items), len(files)),
        )
        known = read_truth(truth, items, inputs, named, first.classes) if truth else {}
        entries, failures = _explained(
            runs, items, [targets for _, targets in asks], how, show, batch, known
        )
        with shown():
            audits = [
                _audit(model, file, run, items, how) if model else []
                for file, run in zip(files, runs, strict=True)
            ]
    if not entries:
        raise InputError(f"nothing could be explained: {failures[0][0]}: {failures[0][1]}")
    cards = [card(file, audit) for file, audit in zip(files, audits, strict=True)]
    made = {
        "made": datetime.now().astimezone().isoformat(" ", "minutes"),
        "by": f"onnxlrp {version('onnxlrp')}, onnxruntime {onnxruntime.__version__}",
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "items": how.in_words() if how else "as the model reads them",
        "colours": colours,
    }
    text = page(title or explainer.stem, entries, cards, failures, colours, made)
    # Names of files may hold bytes that are no letters.
    write(output, lambda file: file.write(text.encode(errors="replace")))
    echo(f"{output}: {len(entries)} items, {output.stat().st_size / 1e6:.1f} MB")
    if failures:
        echo(f"{len(failures)} could not be explained; the page lists them", err=True)
        raise click.exceptions.Exit(1)


def _explained(
    runs: Sequence[Explainer],
    items: Sequence[Source],
    targets: Sequence[Any],
    how: How,
    show: Any,
    batch: int,
    truth: Mapping[str, int],
) -> tuple[list[dict[str, Any]], list[tuple[str, str]]]:
    """Explain every item by every explainer; what fails in one is in no entry."""
    from onnxlrp.reporting import entry
    from onnxlrp.running.stream import Failure, explain

    entries, failures = [], []
    streams = [
        explain(run, items, each, how, batch=batch) for run, each in zip(runs, targets, strict=True)
    ]
    with progress(len(items), "items") as advance:
        for results in zip(*streams, strict=True):
            failed = next((one for one in results if isinstance(one, Failure)), None)
            if failed is None:
                try:
                    done = [one for one in results if not isinstance(one, Failure)]
                    entries.append(entry(done, show, truth.get(done[0].sample.item.name)))
                except InputError as error:
                    failures.append((results[0].sample.item.source, str(error)))
            else:
                failures.append((failed.item.source, failed.reason))
            advance()
    return entries, failures


def _audit(
    model: Path, explainer: Path, run: Explainer, items: Sequence[Source], how: How
) -> list[str]:
    """Hold an explainer against its model, on the first item that can be read."""
    from onnxlrp.audit import check
    from onnxlrp.audit.words import verdict
    from onnxlrp.inputs.text import Reader
    from onnxlrp.running.stream import prepare

    sample = prepare(items[0], run, how)
    if isinstance(how, Reader) and sample.tokens is not None:
        feeds = how.feeds([sample.tokens])
    else:
        feeds = {next(iter(run.inputs)): sample.values[None]}
    audit = check(str(model), str(explainer), feeds)
    return [*verdict(audit), "PASSED" if audit.passed else "FAILED"]
