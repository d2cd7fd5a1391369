"""`onnxlrp evaluate`: which composite's heatmaps say best what the model looks at."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnxlrp.cli.crew import Crew
from onnxlrp.cli.doubts import doubt
from onnxlrp.cli.judging import Asked
from onnxlrp.cli.options import (
    Sectioned,
    amount,
    preprocessing_options,
    seed_option,
    threads_option,
    worker_options,
)
from onnxlrp.cli.paths import Place
from onnxlrp.cli.progress import progress, shown
from onnxlrp.cli.samples import KINDS
from onnxlrp.cli.terminal import echo
from onnxlrp.errors import InputError
from onnxlrp.extras import needed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from onnxlrp.compiler.composite import Composite
    from onnxlrp.evaluation import ScoredModel
    from onnxlrp.evaluation.flipping import Amount
    from onnxlrp.evaluation.medium import Feeds

SHUFFLED = "randomised.json"
FEW = 20
"""Intervals of fewer samples say little."""


@click.command(
    cls=Sectioned, short_help="Judge composites by flipping pixels, tokens, features or moments."
)
@click.argument("model", type=Place())
@click.option(
    "--data",
    "sources",
    multiple=True,
    required=True,
    metavar="FOLDER|FILE",
    help="Pictures: files, folders, or uint8 [N, H, W, C] in .npy or .npz. Signals and tables: "
    "floats as the model reads them; tables also .csv. Text: files with a text a line, .csv or "
    ".tsv (see --column); "
    "or numbers of tokens [N, T], in .npz by the names of the model's inputs. Repeatable.",
)
@click.option(
    "--composite",
    "composites",
    multiple=True,
    metavar="NAME|FILE",
    help="A method; also with additions, as in 'binder2016_epsilon; epsilon=1; LRN: identity'. "
    "Repeatable.",
)
@click.option(
    "--maps",
    multiple=True,
    metavar="NAME=FILE",
    help="A method whose relevance another library computed for the class that the model predicts: "
    ".npy, or .npz, in the order of the data, of the input's shape or without its channels. "
    "Repeatable.",
)
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
    "--as",
    "kind",
    type=click.Choice(KINDS),
    help="What the model reads; by its input's type and axes where it is not said.",
)
@click.option(
    "--input", "explained", metavar="NAME", help="The input to judge, if the model has several."
)
@click.option(
    "--images", type=click.IntRange(min=1), metavar="N", help="Judge so many, drawn by chance."
)
@click.option(
    "--flips",
    type=amount,
    metavar="L|%",
    help="How many, or a share such as 50%; all by default, 100 where pictures are larger than "
    "64x64.",
)
@click.option(
    "--region",
    type=click.IntRange(min=1),
    metavar="N",
    help="Side of what is flipped; 1 by default, 9 where pictures are larger than 64x64. Of "
    "signals the length of a window; by default so that there are at most 100.",
)
@click.option(
    "--stride",
    type=click.IntRange(min=1),
    metavar="N",
    help="From one region to the next; the side by default, less to let them overlap.",
)
@click.option(
    "--replace",
    "replacement",
    metavar="WHAT",
    help="By what. Pictures: uniform, mean, blur, inpainting. Text: mask, unknown, a token's "
    "number, remove, cut. Tables: mean, median, column, a number. Signals: mean, zero, linear, "
    "noise, blur, a number. The first is the default.",
)
@click.option("--column", metavar="NAME", help="The column of a .csv or .tsv that holds texts.")
@click.option(
    "--features",
    type=Place(),
    metavar="FILE",
    help="Names of a table's features in the order of the model; they find its columns.",
)
@click.option(
    "--ignore",
    "ignored",
    multiple=True,
    metavar="NAME",
    help="A column of tables that the model does not read. Repeatable.",
)
@click.option(
    "--tokenizer",
    type=Place(),
    metavar="FILE",
    help="A tokenizer.json that splits texts and tells which tokens are special; by default the "
    "one beside MODEL, <stem>.tokenizer.json or tokenizer.json.",
)
@click.option(
    "--pad",
    type=click.IntRange(min=0),
    metavar="ID",
    help="The token that fills up; never flipped.",
)
@click.option(
    "--special",
    type=click.IntRange(min=0),
    multiple=True,
    metavar="ID",
    help="A token that is never flipped, besides the tokenizer's special ones. Repeatable.",
)
@click.option(
    "--axis",
    type=int,
    metavar="N",
    default=-1,
    show_default=True,
    help="Which of a signal's axes, without the batch's, is time.",
)
@click.option(
    "--order",
    "orders",
    multiple=True,
    type=click.Choice(["descending", "ascending", "random"]),
    default=("descending", "ascending", "random"),
    help="Most relevant first, least relevant first, by chance; all by default. Repeatable.",
)
@click.option(
    "--at",
    "prefixes",
    multiple=True,
    type=amount,
    metavar="N|%",
    help="Report the area after so many flips, too, or after a share such as 20%. Repeatable.",
)
@click.option(
    "--every",
    type=click.IntRange(min=1),
    metavar="N",
    help="Run the model after every N flips only: an approximation, and N times as fast. 1 by "
    "default; of features and tokens so that there are at most 100 runs.",
)
@click.option(
    "--probability",
    is_flag=True,
    help="Follow the model's own output, such as a probability, not the logit.",
)
@click.option(
    "--masks",
    metavar="FILE",
    type=Place(),
    help="Where relevance should lie, in the order of the data, .npy or .npz: bool [N, H, W], of "
    "tokens, features or moments [N, T], or boxes [N, 4] of left, top, right, bottom in pixels of "
    "what the model sees.",
)
@click.option(
    "--randomise",
    type=click.IntRange(min=1),
    metavar="N",
    help="Also shuffle the model's weights layer by layer, and correlate the maps of N samples.",
)
@seed_option
@click.option(
    "--batch",
    type=click.IntRange(min=1),
    metavar="N",
    default=64,
    show_default=True,
    help="Samples to a run of the model.",
)
@threads_option
@worker_options
@click.option("--overwrite", is_flag=True, help="Start anew where FOLDER holds results.")
@preprocessing_options
def evaluate(
    model: Path,
    sources: tuple[str, ...],
    composites: tuple[str, ...],
    maps: tuple[str, ...],
    folder: Path,
    kind: str | None,
    explained: str | None,
    images: int | None,
    replacement: str | None,
    orders: tuple[str, ...],
    prefixes: tuple[Amount, ...],
    probability: bool,
    masks: Path | None,
    randomise: int | None,
    seed: int,
    batch: int,
    threads: int | None,
    workers: int | None,
    address: str | None,
    overwrite: bool,
    **options: Any,
) -> None:
    """Judge composites by the score of MODEL's class while parts of its input are replaced.

    A good map makes the score fall fast when the most relevant pixels, tokens, features or moments
    go first (a small AUC descending), and hold when the least relevant do (a large AUC ascending);
    a map that says nothing does as well as the random order. The folder gets results.csv,
    results.json, curves.png, and journal.jsonl with the numbers of each sample; a run that was
    interrupted goes on where it stopped, and of composites named later, with those before, only the
    new ones are judged. What each number means: docs/evaluation.md.
    """
    import numpy as np

    from onnxlrp.evaluation import Study
    from onnxlrp.evaluation.report import write_report
    from onnxlrp.evaluation.study import RANDOM, ROW, joined
    from onnxlrp.running.journal import Journal

    asked = Asked(
        model,
        sources,
        composites,
        maps,
        kind,
        explained,
        replacement,
        orders,
        prefixes,
        probability,
        masks,
        seed,
        batch,
        (threads or 1) if workers else threads,
        options,
    )
    if address and not workers:
        raise InputError("--ray says where --workers run: give both")
    if workers:
        needed("ray", "ray")
    scored, methods, names, judge, found_names, sample = asked.open()
    medium, flipping, preprocessing = judge.medium, judge.flipping, scored.preprocessing
    count = len(found_names)
    chosen = list(range(count))
    if images is not None and images < count:
        # The first of a permutation, so that a larger subset contains a smaller one.
        chosen = np.random.default_rng(seed).permutation(count)[:images].tolist()
    settings = {
        "model": hashlib.sha256(model.read_bytes()).hexdigest(),
        "maps": sorted(set(names) - set(methods)),
        "samples": medium.samples,
        "places": medium.places,
        **asdict(flipping),
        **medium.settings,
        "orders": sorted(orders),
        "at": sorted(map(str, prefixes)),
        "probability": probability,
    }

    # Where all have one size, the first tells; else a later one may have too few for what is asked.
    for number in chosen[: 1 if medium.even else None]:
        judge.check(sample(number))
    folder.mkdir(parents=True, exist_ok=True)
    if overwrite:
        (folder / SHUFFLED).unlink(missing_ok=True)
    tomls = {name: composite.to_toml() for name, composite in methods.items()}
    versions = {name: hashlib.sha256(toml.encode()).hexdigest() for name, toml in tomls.items()}
    names = [*names, *([RANDOM] if "random" in orders else [])]
    fields = (*ROW, "composites")
    with Journal(folder / "journal.jsonl", settings, fields, overwrite=overwrite) as journal:
        _check_composites(folder, journal.records, versions)
        done = joined(journal.records)
        missing: dict[int, list[str]] = {}
        for number in chosen:
            item = found_names[number]
            if item in done and sample(number).digest != done[item]["digest"]:
                raise InputError(
                    f"{folder} holds results of another {item}, of other maps or masks of it, or "
                    "of another place of it in the data: give another folder, or --overwrite to "
                    "start anew"
                )
            judged = done[item]["methods"] if item in done else {}
            missing[number] = [name for name in names if name not in judged]
        rest = [number for number in chosen if missing[number]]
        pieces = [(number, missing[number]) for number in rest]
        rows: Iterator[tuple[int, Any]] = (
            (place, judge(sample(number), wanted)) for place, (number, wanted) in enumerate(pieces)
        )
        if workers and rest:
            rows = Crew(workers, asked.threads or 1, False, address)(asked, pieces, folder)
        lost: list[str] = []
        with progress(len(chosen), medium.samples, len(chosen) - len(rest)) as advance:
            for place, row in rows:
                number = rest[place]
                item = found_names[number]
                if row is None:
                    lost.append(item)
                    continue
                done |= joined([done[item], row] if item in done else [row])
                made = {name: versions[name] for name in missing[number] if name in versions}
                journal.append(row | {"composites": made})
                advance()
    if lost:
        raise InputError(f"whoever judged {', '.join(lost[:5])} died of it: is memory enough?")
    found = [_of_methods(done[found_names[number]], names) for number in chosen]
    study = Study(found, names)
    show(write_report(folder, study, settings | {"methods": tomls, "images": len(found)}))
    how = f", {preprocessing.in_words()}" if preprocessing is not None else ""
    echo(
        f"{medium.samples.capitalize()}: {len(study)}{how}; {medium.places} become: "
        f"{medium.replacement}. Means with 95 % bootstrap intervals, in {folder}."
    )
    if medium.samples == "pictures" and medium.replacement == "uniform" and flipping.region == 1:
        echo(
            "Note: single pixels replaced by random colours favour noisy maps, which can beat "
            "smooth ones that a person prefers; --region 8 or --replace blur asks more of them",
            err=True,
        )
    if len(found) < FEW:
        echo(f"Warning: intervals of fewer than {FEW} {medium.samples} are rough", err=True)
    doubt([row["flat"] for row in found], [row["class"] for row in found])
    if randomise is not None:
        few = [medium.feeds(sample(number)) for number in chosen[:randomise]]
        show_randomised(scored, methods, few, folder, seed)


def _check_composites(
    folder: Path, records: Sequence[Mapping[str, Any]], versions: Mapping[str, str]
) -> None:
    """Check that what was judged under a composite's name was that composite."""
    for name, version in versions.items():
        if any(record["composites"].get(name, version) != version for record in records):
            raise InputError(
                f"{folder} holds results of another composite called {name}: rename the file, give "
                "another folder, or --overwrite to start anew"
            )


def _of_methods(row: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {**row, "methods": {name: row["methods"][name] for name in names}}


def show(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print the means, and the differences to the first method."""
    from onnxlrp.cli import layout, tables
    from onnxlrp.evaluation.study import Interval

    found = {
        (row["measure"], row["method"], row["minus"]): str(
            Interval(row["mean"], row["low"], row["high"])
        )
        for row in rows
    }
    for measure in dict.fromkeys(row["measure"] for row in rows):
        methods = [method for name, method, minus in found if (name, minus) == (measure, None)]
        lines = [
            (method, found[measure, method, None], found.get((measure, method, methods[0]), ""))
            for method in methods
        ]
        columns = f"method {measure.replace(' ', '_')}> minus_the_first>"
        tables.show(layout.table(columns, lines))


def show_randomised(
    model: ScoredModel,
    methods: Mapping[str, Composite],
    feeds: Sequence[Feeds],
    folder: Path,
    seed: int,
) -> None:
    """Print and write, layer by layer from the top, how maps change as weights are shuffled."""
    import json

    from onnxlrp.cli import layout, tables
    from onnxlrp.evaluation.randomisation import randomise
    from onnxlrp.evaluation.study import interval
    from onnxlrp.files import write

    with shown():
        found = {
            name: {
                layer: interval(values)
                for layer, values in randomise(model, composite, feeds, seed)
            }
            for name, composite in methods.items()
        }
    layers = list(next(iter(found.values()), {}))
    for name, steps in found.items():
        echo(
            f"{name}: Spearman's correlation with the untouched model's maps "
            f"of {len(feeds)} samples"
        )
        tables.show(
            layout.table("node correlation>", [(layer, str(steps[layer])) for layer in layers])
        )
    whole = {
        "samples": len(feeds),
        "methods": {
            name: {layer: interval._asdict() for layer, interval in steps.items()}
            for name, steps in found.items()
        },
    }
    write(folder / SHUFFLED, lambda file: file.write(json.dumps(whole, indent=1).encode()))
