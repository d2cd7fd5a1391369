"""`onnxlrp evaluate`: which composite's heatmaps say best what the model looks at."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnxlrp.cli.options import chosen_preprocessing, preprocessing_options
from onnxlrp.cli.progress import progress
from onnxlrp.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from onnxlrp.composite import Composite
    from onnxlrp.evaluation import Picture, Study
    from onnxlrp.items import Item
    from onnxlrp.preprocessing import Preprocessing


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
@click.option("--probability", is_flag=True, help="Follow the probability, not the logit.")
@click.option(
    "--masks",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Where relevance should lie: bool [N, H, W] in the order of the data, .npy or .npz.",
)
@click.option(
    "--randomise",
    type=click.IntRange(min=1),
    metavar="N",
    help="Also shuffle the model's weights layer by layer, and correlate the maps of N pictures.",
)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--batch", type=click.IntRange(min=1), default=64, show_default=True)
@click.option("--threads", type=click.IntRange(min=1), help="For one operator on the CPU.")
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
    descending), and hold when the least relevant do. The folder gets results.csv, results.json and
    curves.png; a run that was interrupted goes on where it stopped.
    """
    import numpy as np

    from onnxlrp.composite import Composite
    from onnxlrp.evaluation import Flipping, Judge, Study
    from onnxlrp.evaluation.report import write_report
    from onnxlrp.evaluation.study import RANDOM
    from onnxlrp.items import collect, load_array
    from onnxlrp.journal import Journal

    preprocessing = chosen_preprocessing(options)
    if preprocessing is None:
        raise InputError("say how pictures are made, as in --preprocess imagenet")
    items = collect(sources, 3)
    given = {}
    for text in maps:
        name, _, path = text.partition("=")
        given[name] = load_array(Path(path))
    if masks is not None:
        given["masks"] = load_array(masks)
    for name, array in given.items():
        if len(array) != len(items):
            raise InputError(f"{name} has {len(array)} maps for {len(items)} pictures")
    inside = given.pop("masks", None)
    methods = {name: Composite.load(name) for name in composites}
    if not methods and not given:
        raise InputError("name what is to be judged: --composite NAME, or --maps NAME=FILE")
    large = max(preprocessing.pixels(items[0].picture()).shape[:2]) > 64
    flipping = Flipping(
        flips or (100 if large else None),
        region or (9 if large else 1),
        stride,
        replacement,
        every,
        seed,
    )
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
    chosen = np.arange(len(items))
    if images is not None and images < len(items):
        # The first of a permutation, so that a larger subset contains a smaller one.
        chosen = np.random.default_rng(seed).permutation(len(items))[:images]
    settings = {
        "model": hashlib.sha256(model.read_bytes()).hexdigest(),
        "methods": {name: composite.to_toml() for name, composite in methods.items()},
        "maps": sorted(given),
        "flipping": asdict(flipping),
        "orders": sorted(orders),
        "at": sorted(prefixes),
        "probability": probability,
        "preprocessing": preprocessing.to_json(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    with Journal(folder / "journal.jsonl", settings, overwrite=overwrite) as journal:
        done = {row["item"] for row in journal.records}
        rest = [int(number) for number in chosen if items[number].name not in done]
        with progress(len(chosen), "pictures", len(chosen) - len(rest)) as advance:
            for picture in _pictures(items, rest, preprocessing, given, inside):
                journal.append(judge(picture))
                advance()
        wanted = {items[number].name for number in chosen}
        found = [row for row in journal.records if row["item"] in wanted]
    names = [*methods, *given, *([RANDOM] if "random" in orders else [])]
    study = Study(found, names)
    write_report(folder, study, settings | {"images": len(found)})
    show(study)
    click.echo(f"{len(study)} pictures; means with 95 % bootstrap intervals, in {folder}")
    if randomise is not None:
        few = [items[number] for number in chosen[:randomise]]
        values = np.stack([preprocessing(item.picture()) for item in few])
        show_randomised(model, methods, values, folder, seed)


def show(study: Study) -> None:
    """Print the means, and the differences to the first method."""
    import numpy as np

    from onnxlrp.cli import tables

    first = study.methods[0]
    for measure in study.measures:
        lines = []
        for method in study.methods:
            if np.isnan(study.values(method, measure)).all():
                continue
            to_first = "" if method == first else str(study.difference(method, first, measure))
            lines.append((method, str(study.mean(method, measure)), to_first))
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
        click.echo(f"{name}: Spearman's correlation with the untouched model's maps")
        tables.show(
            tables.table("node correlation>", [(layer, str(steps[layer])) for layer in layers])
        )
    listed = {name: {k: v._asdict() for k, v in steps.items()} for name, steps in found.items()}
    write(
        folder / "randomised.json", lambda file: file.write(json.dumps(listed, indent=1).encode())
    )


def _pictures(
    items: list[Item],
    numbers: list[int],
    preprocessing: Preprocessing,
    maps: dict[str, NDArray[Any]],
    masks: NDArray[np.bool_] | None,
) -> Iterator[Picture]:
    from onnxlrp.evaluation import Picture

    for number in numbers:
        yield Picture(
            items[number].name,
            number,
            preprocessing.pixels(items[number].picture()),
            {name: array[number] for name, array in maps.items()},
            None if masks is None else masks[number],
        )
