"""`onnxlrp explain`: pictures, arrays, texts and tables in, heatmaps out."""

from __future__ import annotations

import hashlib
import json
import statistics
import sys
import time
import warnings
from dataclasses import asdict, fields
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import click

from onnxlrp.cli.crew import Crew, Done, explain_blocks
from onnxlrp.cli.doubts import doubt, mistrust
from onnxlrp.cli.options import (
    MOST_THREADS,
    Sectioned,
    colours_option,
    labels_option,
    preprocessing_options,
    source_options,
    worker_options,
)
from onnxlrp.cli.progress import progress, shown
from onnxlrp.cli.sentences import complain, tell
from onnxlrp.cli.sources import NOTHING, features_of, given, targeted
from onnxlrp.cli.terminal import echo
from onnxlrp.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from onnxlrp.cli.watch import Round
    from onnxlrp.inputs.targets import Targets
    from onnxlrp.running.explainer import Explainer
    from onnxlrp.running.journal import Journal
    from onnxlrp.running.results import Record, Writer
    from onnxlrp.running.stream import Failure, How, Source

JOURNAL = "journal.jsonl"
FORMATS = ("sheet", "heatmap", "overlay", "html", "csv", "npy", "npz", "hdf5", "parquet", "zarr")
SHARDED = ("parquet", "zarr")
SHARD = 256
"""So many items make a block."""
EVERY = 2.0
"""Seconds after which tables are written again while more is explained."""
FEW = 50
"""So many items get a line each on a terminal, too."""
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
@click.argument("explainer", type=click.Path(path_type=Path))
@click.argument("inputs", metavar="[INPUT]...", nargs=-1)
@source_options
@click.option(
    "-o",
    "--output",
    "folder",
    required=True,
    type=click.Path(path_type=Path),
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
@click.option(
    "--batch",
    type=click.IntRange(min=1),
    metavar="N",
    default=4,
    show_default=True,
    help="Samples to a run.",
)
@click.option(
    "--device",
    type=click.Choice(["cpu", "cuda"]),
    default="cpu",
    show_default=True,
    help="Where it runs.",
)
@click.option(
    "--threads",
    type=click.IntRange(1, MOST_THREADS),
    metavar="N",
    help="Threads for one operator on the CPU.",
)
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
    from onnxlrp.inputs.columns import Columns
    from onnxlrp.inputs.preprocessing import Preprocessing
    from onnxlrp.inputs.references import read_references
    from onnxlrp.inputs.text import Reader
    from onnxlrp.running.blocks import Job, divided
    from onnxlrp.running.explainer import Explainer
    from onnxlrp.running.journal import Journal
    from onnxlrp.running.results import OF_PICTURES, OF_TEXTS, Record, Writer
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
    wrong = set(formats or ()) & set(OF_PICTURES if reader else OF_TEXTS)
    wrong -= {"csv"} if named_features else set()
    if wrong:
        kind = "pictures, not of texts" if reader else "texts"
        raise InputError(f"--format {min(wrong)} is one of {kind}")
    if formats is None:
        formats = ("sheet", "html", "csv") if reader else ("sheet", "npy")
        if isinstance(how, Columns):
            formats = ("sheet", "csv")
            if len(items) > DRAWN or watch:
                formats = ("csv",)
                which = "rows to come" if watch else f"more than {DRAWN} rows"
                echo(f"of {which} no bars are drawn: --format sheet,csv does", err=True)
    elif reader is None and len(explained.shape) != 4 and set(OF_PICTURES) & set(formats):
        raise InputError("the model reads no pictures: of drawings there is only --format sheet")
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
            _conclude(run, done, how, targets, writer)
            raise click.exceptions.Exit(1 if done.failed else 0)
        every = chain(begun, coming)
        failures = _explain(run, every, targets, writer, journal, batch, watch=watch)
    if failures and not watch:
        raise click.exceptions.Exit(1)


def _explain(
    run: Explainer,
    every: Iterable[Round],
    targets: Targets,
    writer: Writer,
    journal: Journal,
    batch: int,
    *,
    watch: bool,
) -> list[Failure]:
    """Explain round after round; then write what belongs to the set as a whole."""
    from onnxlrp.running.results import archived, write_hdf5

    failures: list[Failure] = []
    items: Sequence[Source] = ()
    how: How = None
    before, seconds = len(journal.records), 0.0
    try:
        for one in every:
            start = time.perf_counter()
            failures = [*one.failures, *(old for old in failures if not one.void(old))]
            items, how = one.items or items, one.how or how
            try:
                _round(run, one, targets, writer, journal, batch, failures, watch=watch)
            finally:
                seconds += time.perf_counter() - start
    except KeyboardInterrupt:
        if not watch:
            raise
        # It may have come while tables were written.
        _tabulate(journal, writer, failures)
    count = len(journal.records) - before + len(failures)
    start = time.perf_counter()
    rows = [row for entry in _entries(journal).values() for row in entry.rows]
    if writer.shared:
        _draw_all(run, items, how, rows, writer)
    if "hdf5" in writer.formats and rows:
        write_hdf5(writer.folder / "attribution.h5", rows, archived(rows, writer))
    seconds += time.perf_counter() - start
    _conclude(run, Done(rows, failures, count, seconds, bool(failures)), how, targets, writer)
    return failures


def _conclude(run: Explainer, done: Done, how: How, targets: Targets, writer: Writer) -> None:
    """Tell what was done, and what there is to doubt about it."""
    rows = done.rows
    _summarise(rows, done.failures, done.tried, done.seconds, how)
    first = {row.item: row for row in reversed(rows)}
    chosen = targets.best > 0 and run.contract.target in ("", "top")
    predicted = [row.target for row in first.values() if isinstance(row.target, int) and chosen]
    doubt([row.flat for row in first.values()], predicted)
    against = bool(run.contract.reference_scores)
    mistrust([row.account for row in first.values()], against, writer.features is not None)


def _round(
    run: Explainer,
    one: Round,
    targets: Targets,
    writer: Writer,
    journal: Journal,
    batch: int,
    failures: list[Failure],
    *,
    watch: bool,
) -> None:
    """Explain what the journal does not hold yet; `failures` gets what could not be."""
    from onnxlrp.running.results import written
    from onnxlrp.running.stream import Failure, Result

    taken = _taken(journal, one.items)
    if taken and not watch:
        raise InputError(taken[0].reason)
    for failure in taken:
        complain(failure)
    failures += taken
    names = {failure.item.name for failure in taken}
    items = [item for item in one.items if item.name not in names]
    before = _done(journal, items, writer)
    rest = [item for item in items if item.name not in before]
    digests = {item.name: _digest(item) for item in rest}
    score = "score" if run.score_is_output else run.contract.output
    verbose = not sys.stderr.isatty() or len(rest) <= FEW
    told = time.perf_counter()
    if before and not watch:
        echo(f"{len(before)} of {len(items)} items were done before", err=True)
    try:
        with (
            warnings.catch_warnings(record=True, action="once") as noticed,
            progress(len(items), "items", len(before)) as advance,
        ):
            for result, done in written(run, rest, targets, one.how, writer, batch):
                if isinstance(done, Failure):
                    failures.append(done)
                    complain(done)
                else:
                    digest = digests[done[0].item]
                    entry: dict[str, Any] = {
                        "rows": [asdict(row) for row in done],
                        "digest": digest,
                    }
                    if isinstance(result, Result) and writer.features is not None:
                        entry["lines"] = [writer.line(one) for one in result.explained]
                    journal.append(entry)
                    if verbose:
                        tell(result, done, score, writer)
                advance()
                if watch and time.perf_counter() - told > EVERY:
                    _tabulate(journal, writer, failures)
                    told = time.perf_counter()
    finally:
        _tabulate(journal, writer, failures)
    for notice in noticed:
        echo(f"Warning: {notice.message}", err=True)


def _tabulate(journal: Journal, writer: Writer, failures: Sequence[Failure]) -> None:
    """Write the tables of all that is explained."""
    from onnxlrp.running.results import write_features, write_tables

    entries = _entries(journal).values()
    rows = [row for entry in entries for row in entry.rows]
    write_tables(writer.folder, rows, failures)
    if writer.features is not None and "csv" in writer.formats:
        lines = [line for entry in entries for line in entry.lines]
        write_features(writer, zip(rows, lines, strict=True))


class _Entry(NamedTuple):
    """What the journal holds of an item: its rows, the digest of what it was read from, cells."""

    rows: list[Record]
    digest: str | None
    lines: Sequence[str]


def _entries(journal: Journal) -> dict[str, _Entry]:
    """Return the journal's last entry of each item."""
    from onnxlrp.running.results import Record

    found = {}
    for entry in journal.records:
        rows = [Record(**row) for row in entry["rows"]]
        found[rows[0].item] = _Entry(rows, entry.get("digest"), entry.get("lines", ()))
    return found


def _digest(item: Source) -> str | None:
    """Return the digest of an item's file; None where it cannot be read, which is told later."""
    try:
        return item.digest
    except (InputError, OSError):
        return None


def _taken(journal: Journal, items: Sequence[Source]) -> list[Failure]:
    """Return the items whose names others have in the folder."""
    from onnxlrp.running.stream import Failure

    sources = {name: entry.rows[0].source for name, entry in _entries(journal).items()}
    return [
        Failure(
            item,
            f"the folder holds results of {sources[item.name]} under the name {item.name}, "
            f"which {item.source} would get: give another folder",
        )
        for item in items
        if sources.get(item.name, item.source) != item.source
    ]


def _done(journal: Journal, items: Sequence[Source], writer: Writer) -> set[str]:
    """Return the names of the items that were explained as they are now, with all their files."""
    entries = _entries(journal)
    return {
        item.name
        for item in items
        if item.name in entries
        and entries[item.name].digest == _digest(item)
        and all(writer.written(row) for row in entries[item.name].rows)
    }


def _draw_all(
    run: Explainer, items: Sequence[Source], how: How, rows: Sequence[Record], writer: Writer
) -> None:
    """Draw every map with colours that are full where the strongest map's are."""
    from onnxlrp.running.stream import prepare

    full = max((row.full for row in rows), default=0.0)
    found = {item.name: item for item in items}
    with progress(len(rows), "drawings") as advance:
        for row in rows:
            if row.item in found:
                sample = prepare(found[row.item], run, how)
                writer.draw(sample, row, full)
            advance()


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
