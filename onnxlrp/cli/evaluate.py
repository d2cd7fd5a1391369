"""`onnxlrp evaluate`: which composite's heatmaps say best what the model looks at."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnxlrp.cli.doubts import doubt
from onnxlrp.cli.options import MOST_THREADS, chosen_preprocessing, preprocessing_options
from onnxlrp.cli.progress import progress
from onnxlrp.cli.terminal import echo
from onnxlrp.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from onnxlrp.compiler.composite import Composite

SHUFFLED = "randomised.json"
FEW = 20
"""Intervals of fewer pictures say little."""


@click.command(short_help="Judge composites by flipping pixels.")
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--data",
    "sources",
    multiple=True,
    required=True,
    metavar="FOLDER|FILE",
    help="Pictures: files, folders, or uint8 [N, H, W, C] in .npy or .npz. Repeatable.",
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
    ".npy, or .npz, [N, C, H, W] or [N, H, W] in the order of the data. Repeatable.",
)
@click.option(
    "-o",
    "--output",
    "folder",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder for the results; made if missing.",
)
@click.option("--images", type=click.IntRange(min=1), metavar="N", help="So many, by chance.")
@click.option(
    "--flips",
    type=click.IntRange(min=1),
    metavar="L",
    help="How many; all by default, 100 where pictures are larger than 64x64.",
)
@click.option(
    "--region",
    type=click.IntRange(min=1),
    metavar="N",
    help="Side of what is flipped; 1 by default, 9 where pictures are larger than 64x64.",
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
    type=click.Choice(["uniform", "mean", "blur", "inpainting"]),
    default="uniform",
    show_default=True,
    help="By what.",
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
    type=click.IntRange(min=1),
    metavar="N",
    help="Report the area after so many flips, too. Repeatable.",
)
@click.option(
    "--every",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="N",
    help="Run the model after every N flips only: an approximation, and N times as fast.",
)
@click.option(
    "--probability",
    is_flag=True,
    help="Follow the model's own output, such as a probability, not the logit.",
)
@click.option(
    "--masks",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Where relevance should lie, in the order of the data, .npy or .npz: bool [N, H, W], or "
    "boxes [N, 4] of left, top, right, bottom in pixels of what the model sees.",
)
@click.option(
    "--randomise",
    type=click.IntRange(min=1),
    metavar="N",
    help="Also shuffle the model's weights layer by layer, and correlate the maps of N pictures.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--batch", type=click.IntRange(min=1), default=64, show_default=True)
@click.option(
    "--threads", type=click.IntRange(1, MOST_THREADS), help="For one operator on the CPU."
)
@click.option("--overwrite", is_flag=True, help="Start anew where FOLDER holds results.")
@preprocessing_options
def evaluate(
    model: Path,
    sources: tuple[str, ...],
    composites: tuple[str, ...],
    maps: tuple[str, ...],
    folder: Path,
    images: int | None,
    flips: int | None,
    region: int | None,
    stride: int | None,
    replacement: Any,
    orders: tuple[str, ...],
    prefixes: tuple[int, ...],
    every: int,
    probability: bool,
    masks: Path | None,
    randomise: int | None,
    seed: int,
    batch: int,
    threads: int | None,
    overwrite: bool,
    **options: Any,
) -> None:
    """Judge composites by the score of MODEL's class while pixels are replaced.

    A good map makes the score fall fast when the most relevant pixels go first (a small AUC
    descending), and hold when the least relevant do (a large AUC ascending); a map that says
    nothing does as well as the random order. The folder gets results.csv, results.json,
    curves.png, and journal.jsonl with the numbers of each picture; a run that was interrupted goes
    on where it stopped. What each number means: docs/evaluation.md.
    """
    import numpy as np

    from onnxlrp.compiler.composite import Composite
    from onnxlrp.evaluation import Flipping, Judge, Picture, Study
    from onnxlrp.evaluation.measures import box_mask
    from onnxlrp.evaluation.report import write_report
    from onnxlrp.evaluation.study import RANDOM, ROW
    from onnxlrp.inputs.items import collect
    from onnxlrp.running.journal import Journal

    preprocessing = chosen_preprocessing(options)
    if preprocessing is None:
        raise InputError("say how pictures are made, as in --preprocess imagenet")
    items = collect(sources, 3)
    named = [text.partition("=") for text in maps]
    if not all(name and path for name, _, path in named):
        raise InputError("--maps takes NAME=FILE, such as zennit=zennit.npy")
    names = [*composites, *(name for name, _, _ in named)]
    twice = [name for name in names if [*names, RANDOM].count(name) > 1]
    if twice:
        raise InputError(f"two methods are called {twice[0]}")
    if not names:
        raise InputError("name what is to be judged: --composite NAME, or --maps NAME=FILE")
    given = {name: _for_each(Path(path), len(items), "maps") for name, _, path in named}
    inside = None if masks is None else _for_each(masks, len(items), "masks")
    methods = {name: Composite.load(name) for name in composites}
    size = preprocessing.pixels(items[0].picture()).shape[:2]
    if max(size) > 64:
        region = region or 9
        flips = flips or min(100, Flipping(None, region, stride).count(size))
    flipping = Flipping(flips, region or 1, stride, replacement, every, seed)
    judge = Judge(
        model,
        methods,
        flipping,
        preprocessing,
        prefixes=prefixes,
        orders=orders,
        probability=probability,
        batch=batch,
        threads=threads,
    )
    chosen = list(range(len(items)))
    if images is not None and images < len(items):
        # The first of a permutation, so that a larger subset contains a smaller one.
        chosen = np.random.default_rng(seed).permutation(len(items))[:images].tolist()
    settings = {
        "model": hashlib.sha256(model.read_bytes()).hexdigest(),
        "methods": {name: composite.to_toml() for name, composite in methods.items()},
        "maps": sorted(given),
        **asdict(flipping),
        "orders": sorted(orders),
        "at": sorted(prefixes),
        "probability": probability,
        "preprocessing": preprocessing.to_json(),
    }

    def picture(number: int) -> Picture:
        pixels = preprocessing.pixels(items[number].picture())
        mask = None if inside is None else inside[number]
        if mask is not None and mask.shape == (4,):
            mask = box_mask(mask, pixels.shape[:2])
        its_maps = {name: array[number] for name, array in given.items()}
        return Picture(items[number].name, number, pixels, its_maps, mask)

    judge.check(picture(chosen[0]))
    folder.mkdir(parents=True, exist_ok=True)
    if overwrite:
        (folder / SHUFFLED).unlink(missing_ok=True)
    with Journal(folder / "journal.jsonl", settings, ROW, overwrite=overwrite) as journal:
        done = {row["item"]: row["digest"] for row in journal.records}
        before = [number for number in chosen if items[number].name in done]
        for number in before:
            if picture(number).digest != done[items[number].name]:
                raise InputError(
                    f"{folder} holds results of another {items[number].name}, of other maps or "
                    "masks of it, or of another place of it in the data: give another folder, or "
                    "--overwrite to start anew"
                )
        with progress(len(chosen), "pictures", len(before)) as advance:
            for number in chosen:
                if items[number].name not in done:
                    journal.append(judge(picture(number)))
                    advance()
        wanted = {items[number].name for number in chosen}
        found = [row for row in journal.records if row["item"] in wanted]
    study = Study(found, [*names, *([RANDOM] if "random" in orders else [])])
    show(write_report(folder, study, settings | {"images": len(found)}))
    echo(
        f"Pictures: {len(study)}, {preprocessing.in_words()}. Means with 95 % bootstrap intervals, "
        f"in {folder}."
    )
    if flipping.region == 1 and flipping.replacement == "uniform":
        echo(
            "Note: single pixels replaced by random colours favour noisy maps, which can beat "
            "smooth ones that a person prefers; --region 8 or --replace blur asks more of them",
            err=True,
        )
    if len(found) < FEW:
        echo(f"Warning: intervals of fewer than {FEW} pictures are rough", err=True)
    doubt([row["flat"] for row in found], [row["class"] for row in found])
    if randomise is not None:
        few = [items[number] for number in chosen[:randomise]]
        values = np.stack([preprocessing(item.picture()) for item in few])
        show_randomised(model, methods, values, folder, seed)


def _for_each(path: Path, count: int, noun: str) -> NDArray[Any]:
    """Open an array with an entry for each picture."""
    from onnxlrp.inputs.items import load_array

    array = load_array(path)
    if len(array) != count:
        raise InputError(f"{path} has {len(array)} {noun} for {count} pictures")
    return array


def show(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print the means, and the differences to the first method."""
    from onnxlrp.cli import tables
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
        columns = f"name {measure.replace(' ', '_')}> minus_the_first>"
        tables.show(tables.table(columns, lines))


def show_randomised(
    model: Path,
    methods: dict[str, Composite],
    images: NDArray[np.float32],
    folder: Path,
    seed: int,
) -> None:
    """Print and write, layer by layer from the top, how maps change as weights are shuffled."""
    import json

    from onnxlrp.cli import tables
    from onnxlrp.evaluation.randomisation import randomise
    from onnxlrp.evaluation.study import interval
    from onnxlrp.files import write

    found = {
        name: {
            layer: interval(values) for layer, values in randomise(model, composite, images, seed)
        }
        for name, composite in methods.items()
    }
    layers = list(next(iter(found.values()), {}))
    for name, steps in found.items():
        echo(
            f"{name}: Spearman's correlation with the untouched model's maps "
            f"of {len(images)} pictures"
        )
        tables.show(
            tables.table("node correlation>", [(layer, str(steps[layer])) for layer in layers])
        )
    whole = {
        "pictures": len(images),
        "methods": {
            name: {layer: interval._asdict() for layer, interval in steps.items()}
            for name, steps in found.items()
        },
    }
    write(folder / SHUFFLED, lambda file: file.write(json.dumps(whole, indent=1).encode()))
