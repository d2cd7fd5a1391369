"""`onnxlrp explain`: pictures, arrays, texts and tables in, heatmaps out."""

from __future__ import annotations

import hashlib
import json
import statistics
from dataclasses import asdict, fields
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from onnxlrp.cli.alone import explain_items
from onnxlrp.cli.crew import Crew, Done, explain_blocks
from onnxlrp.cli.doubts import doubt, mistrust
from onnxlrp.cli.options import (
    Sectioned,
    batch_option,
    colours_option,
    labels_option,
    preprocessing_options,
    source_options,
    threads_option,
    worker_options,
)
from onnxlrp.cli.paths import Place
from onnxlrp.cli.progress import shown
from onnxlrp.cli.sources import NOTHING, features_of, given, targeted
from onnxlrp.cli.terminal import echo
from onnxlrp.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from onnxlrp.cli.watch import Round
    from onnxlrp.inputs.targets import Targets
    from onnxlrp.running.explainer import Explainer
    from onnxlrp.running.results import Record, Writer
    from onnxlrp.running.stream import Failure, How

JOURNAL = "journal.jsonl"
FORMATS = ("sheet", "heatmap", "overlay", "html", "csv", "npy", "npz", "hdf5", "parquet", "zarr")
SHARDED = ("parquet", "zarr")
SHARD = 256
"""So many items make a block."""
DRAWN = 100
"""So many rows of tables are drawn without being asked for."""


def _formats(_: click.Context, __: click.Parameter, text: str | None) -> tuple[str, ...] | None:
    chosen = None if text is None else tuple(word.strip() for word in text.split(","))
    for word in chosen or ():
        if word not in FORMATS:
            raise click.BadParameter(f"{word} is none of {', '.join(FORMATS)}")
    return chosen


@click.command(
    cls=Sectioned,
    short_help="Draw why an explainer's model gives pictures, texts or rows their class.",
)
@click.argument("explainer", type=Place())
@click.argument("inputs", metavar="[INPUT]...", nargs=-1)
@source_options
@click.option(
    "-o",
    "--output",
    "folder",
    required=True,
    type=Place(file_okay=False),
    metavar="FOLDER",
    help="Folder for the results; made if missing.",
)
@click.option(
    "--target",
    metavar="N|NAME|top|top:K|A-B|FILE",
    help="The class to explain: a number, a name, the best, the best K, or a file with one for "
    "each item. By default the best, or that written into the explainer. A-B, why A and not B, and "
    "files of weights need an explainer by convert --target weights.",
)
@click.option(
    "--reference",
    "against",
    multiple=True,
    metavar="mean|black|zero|FILE|FOLDER",
    help="Of an explainer by convert --reference input: what relevance is counted from. Over "
    "several, or all in a folder, maps are averaged (DeepSHAP).",
)
@labels_option
@click.option(
    "--format",
    "formats",
    callback=_formats,
    metavar="A,B,...",
    help="What to write: sheet (PNG), npy, npz, hdf5, parquet, zarr; of pictures heatmap, overlay "
    "(PNG), too, of texts html and csv, of tables csv. By default sheet,npy, of texts "
    f"sheet,html,csv, of tables sheet,csv, of more than {DRAWN} rows csv.",
)
@colours_option
@click.option(
    "--colour-scale",
    type=click.Choice(["item", "shared"]),
    default="item",
    show_default=True,
    help="One scale of colours for each map, or one for the whole set.",
)
@batch_option
@click.option(
    "--device",
    type=click.Choice(["cpu", "cuda"]),
    default="cpu",
    show_default=True,
    help="Where it runs.",
)
@threads_option
@click.option(
    "--shard",
    type=click.IntRange(min=1),
    metavar="N",
    help="Items to a file of parquet, zarr or hdf5, and to a piece of work; by default "
    f"{SHARD} where there are such files or --workers.",
)
@worker_options
@click.option("--overwrite", is_flag=True, help="Start anew where FOLDER holds results.")
@click.option(
    "--watch",
    is_flag=True,
    help="Stay, and explain what is put into the folders INPUT or changed there, until Ctrl-C.",
)
@preprocessing_options
def explain(
    explainer: Path,
    inputs: tuple[str, ...],
    folder: Path,
    target: str | None,
    against: tuple[str, ...],
    labels: Path | None,
    formats: tuple[str, ...] | None,
    colours: str,
    colour_scale: str,
    batch: int,
    device: Literal["cpu", "cuda"],
    threads: int | None,
    shard: int | None,
    workers: int | None,
    address: str | None,
    overwrite: bool,
    watch: bool,
    **options: Any,
) -> None:
    """Explain why EXPLAINER's model gives each INPUT its class.

    INPUT is a picture, an array (.npy, .npz: samples as the model reads them, or pictures as uint8
    [N, H, W, C]), a folder of both, or - for a list of such on standard input.

    Of a model that reads tokens INPUT is a text file, one text a line, a table (.csv, .tsv; see
    --column), a folder of both, or - for texts on standard input.

    Of a model that reads features INPUT is a table (.csv, .tsv), whose first line names them, or a
    folder of such. Inputs of one column are found by their names, and all where the names of
    features are known (--features); otherwise columns are read in their order, but for --ignore.

    For each item the folder gets NAME.sheet.png (the picture, its heatmap and both, or the text:
    orange speaks for the class, blue against it) and NAME.relevance.npy (in the model's input
    shape), of texts NAME.html and NAME.tokens.csv; for the set results.csv and results.json, of
    tables relevance.csv, a line for each row. A run that was interrupted goes on where it stopped.
    Preprocessing options override what the explainer stores.
    """
    from onnxlrp.cli.watch import Round, rounds, until_items
    from onnxlrp.drawing.colours import colour_map
    from onnxlrp.extras import needed
    from onnxlrp.inputs.preprocessing import Preprocessing
    from onnxlrp.inputs.references import read_references
    from onnxlrp.inputs.text import Reader
    from onnxlrp.running.blocks import Job, divided
    from onnxlrp.running.explainer import Explainer
    from onnxlrp.running.journal import Journal
    from onnxlrp.running.results import Record, Writer
    from onnxlrp.running.shards import check_forms

    colour_map(colours)
    if not inputs and not options["text"]:
        raise click.UsageError(NOTHING)
    if watch and colour_scale == "shared":
        raise click.UsageError("--colour-scale shared needs the whole set: leave --watch out.")
    with shown():
        run = Explainer(
            explainer,
            # What works is the workers'; this one only tells what the explainer is.
            "cpu" if workers else device,
            threads,
            tokenizer=options["tokenizer"],
            most=options["tokens"],
        )
    if bool(run.contract.references) != bool(against):
        raise InputError(
            f"{explainer} takes its reference when it runs: give --reference"
            if not against
            else f"{explainer} takes no reference when it runs: convert with --reference input"
        )
    coming: Iterator[Round] = iter(())
    begun = [Round(*given(run, inputs, folder, options))] if not watch else []
    if watch:
        coming = rounds(run, inputs, folder, options)
        begun = until_items(coming)
    if not begun:
        return
    items, how = begun[-1].items, begun[-1].how
    named, targets = targeted(run, explainer, items, target, labels)
    reader = how if isinstance(how, Reader) else None
    preprocessing = how if isinstance(how, Preprocessing) else None
    explained = run.inputs[next(iter(run.contract.relevance))]
    references = read_references(against, len(explained.shape) - 1, preprocessing)
    if references:
        run.against(references)
    named_features = features_of(run, how)
    shape = explained.shape
    formats = _suiting(formats, how, shape, many=watch or len(items) > DRAWN, cells=named_features)
    in_blocks = bool(workers or shard or set(SHARDED) & set(formats))
    if in_blocks and (watch or colour_scale == "shared"):
        one = "--watch" if watch else "--colour-scale shared"
        raise InputError(f"{one} does without --workers, --shard, and formats parquet and zarr")
    if address and not workers:
        raise InputError("--ray says where --workers run: give both")
    if workers:
        # Before a folder of results is made, and says that all items failed.
        needed("ray", "ray")
    forms = check_forms(formats) if in_blocks else ()
    writer = Writer(
        folder,
        tuple(one for one in formats if one not in forms),
        preprocessing,
        named,
        named_features,
        best=targets.best,
        logits=run.score_is_output,
        colours=colours,
        shared=colour_scale == "shared",
    )
    settings = {
        "explainer": hashlib.sha256(explainer.read_bytes()).hexdigest(),
        "target": json.loads(json.dumps(asdict(targets))),
        "labels": named,
        "preprocessing": preprocessing.to_json() if preprocessing else None,
        "tokenizer": hashlib.sha256(reader.content.encode()).hexdigest() if reader else None,
        "tokens": reader.most if reader else None,
        "features": named_features,
        "reference": [hashlib.sha256(one.tobytes()).hexdigest() for one in references],
        "format": formats,
        "colours": colours,
        "colour-scale": colour_scale,
        # Rows of a version that records something else cannot be gone on with.
        "columns": [field.name for field in fields(Record)],
    }
    if in_blocks:
        shard = shard or SHARD
        listed = hashlib.sha256(repr([(item.name, item.source) for item in items]).encode())
        settings |= {"shard": shard, "items": listed.hexdigest()}
    folder.mkdir(parents=True, exist_ok=True)
    with Journal(folder / JOURNAL, settings, ("rows",), overwrite=overwrite) as journal:
        if shard is not None:
            if not journal.records:
                # What was done is in the shards; here it is only said that there are some.
                journal.append({"rows": []})
            job = Job(
                explainer.resolve(),
                device,
                (threads or 1) if workers else threads,
                run.tokenizer,
                options["tokens"],
                references,
                targets,
                how,
                batch,
                writer,
                forms,
            )
            crew = Crew(workers, job.threads or 1, device == "cuda", address) if workers else None
            done = explain_blocks(job, run, divided(items, shard), crew, overwrite=overwrite)
        else:
            every = chain(begun, coming)
            done = explain_items(run, every, targets, writer, journal, batch, watch=watch)
        _conclude(run, done, how, targets, writer)
    if done.failed:
        raise click.exceptions.Exit(1)


def _suiting(
    formats: tuple[str, ...] | None,
    how: How,
    shape: Sequence[object],
    *,
    many: bool,
    cells: object,
) -> tuple[str, ...]:
    """Return the formats asked for, or those that suit what is explained.

    Parameters
    ----------
    how, shape : how items are read, and of what shape they then are
    many : whether there are more than anybody looks at
    cells : what a line of a table has a column for, if maps are written as such

    Raises
    ------
    InputError
        One does not suit it.

    """
    from onnxlrp.inputs.columns import Columns
    from onnxlrp.inputs.text import Reader
    from onnxlrp.running.results import OF_PICTURES, OF_TEXTS

    texts = isinstance(how, Reader)
    wrong = set(formats or ()) & set(OF_PICTURES if texts else OF_TEXTS)
    wrong -= {"csv"} if cells else set()
    if wrong:
        kind = "pictures, not of texts" if texts else "texts"
        raise InputError(f"--format {min(wrong)} is one of {kind}")
    if formats is None and isinstance(how, Columns):
        if many:
            echo("no bars of so many rows, or of rows to come: --format sheet,csv draws", err=True)
        return ("csv",) if many else ("sheet", "csv")
    if formats is None:
        return ("sheet", "html", "csv") if texts else ("sheet", "npy")
    if not texts and len(shape) != 4 and set(OF_PICTURES) & set(formats):
        raise InputError("the model reads no pictures: of drawings there is only --format sheet")
    return formats


def _conclude(run: Explainer, done: Done, how: How, targets: Targets, writer: Writer) -> None:
    """Tell what was done, and what there is to doubt about it."""
    from onnxlrp.inputs.preprocessing import Preprocessing

    rows = done.rows
    _summarise(rows, done.failures, done.tried, done.seconds, how)
    first = {row.item: row for row in reversed(rows)}
    chosen = targets.best > 0 and run.contract.target in ("", "top")
    predicted = [row.target for row in first.values() if isinstance(row.target, int) and chosen]
    doubt([row.flat for row in first.values()], predicted)
    against = bool(run.contract.reference_scores)
    reference = "mean" if isinstance(how, Preprocessing) else "zero"
    reference = reference if writer.features is None else "TABLE.csv, its mean row,"
    mistrust([row.account for row in first.values()], against, reference)


def _summarise(
    rows: Sequence[Record],
    failures: Sequence[Failure],
    count: int,
    seconds: float,
    how: How,
) -> None:
    from onnxlrp.inputs.columns import Columns
    from onnxlrp.inputs.preprocessing import Preprocessing

    if rows and how is not None:
        nouns = {Preprocessing: "Pictures", Columns: "Rows"}
        echo(f"{nouns.get(type(how), 'Texts')} were {how.in_words()}", err=True)
    if count > 1:
        shares = [row.share for row in rows if row.share is not None]
        held = f"; in the median {statistics.median(shares):.1%} of the score" if shares else ""
        echo(
            f"{count - len(failures)} items in {seconds:.1f} s, "
            f"{count / seconds:.3g} a second{held}",
            err=True,
        )
    if len(failures) > 1:
        listed = ", ".join(failure.item.source for failure in failures[:5])
        more = f" and {len(failures) - 5} more" if len(failures) > 5 else ""
        echo(f"{len(failures)} failed, see failed.json: {listed}{more}", err=True)
