"""`onnxlrp compare`: whether explanations are the same."""

from __future__ import annotations

from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnxlrp.cli.options import (
    TOP,
    Sectioned,
    chosen_preprocessing,
    numbers,
    preprocessing_options,
    refuse_tables,
    seed_option,
    target_number,
)
from onnxlrp.cli.paths import Made, Place
from onnxlrp.cli.progress import shown
from onnxlrp.cli.terminal import dump, echo
from onnxlrp.compiler.default_composite import DEFAULT_COMPOSITE
from onnxlrp.drawing.default_colours import DEFAULT_COLOURS
from onnxlrp.errors import InputError
from onnxlrp.files import write, write_csv

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL import Image

    from onnxlrp.evaluation.comparison import Maps, Pair
    from onnxlrp.inputs.items import Item
    from onnxlrp.inputs.preprocessing import Preprocessing
    from onnxlrp.inputs.targets import Difference

DISTANCES = ("relative L2", "relative max")
WORST = 4
SAME = 1e-3


@click.command(cls=Sectioned, short_help="Ask whether explanations are the same.")
@click.argument("first", type=Place(exists=True))
@click.argument("others", nargs=-1, required=True, type=Place(exists=True))
@click.option(
    "--data",
    multiple=True,
    metavar="FOLDER|FILE",
    help="What explainers and models are run on: pictures, arrays, folders. Repeatable.",
)
@click.option(
    "--random", type=click.IntRange(min=1), metavar="N", help="Or on so many random inputs."
)
@seed_option
@click.option(
    "--composite",
    default=DEFAULT_COMPOSITE,
    show_default=True,
    metavar="NAME|FILE",
    help="For models that are no explainers yet.",
)
@click.option(
    "--target",
    type=target_number,
    default="top",
    metavar="N|top|N-M",
    help="The class that explainers and models explain; the best of each item by default; N-M is "
    "the difference of two scores.",
)
@click.option(
    "--top",
    type=numbers,
    default="0.01,0.05",
    show_default=True,
    metavar="X,...",
    help="Shares of the entries whose strongest are intersected.",
)
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0),
    metavar="T",
    help="Exit with status 1 if max |B - A| / max |A| is larger for any item.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
@click.option("--csv", "table", type=Made(), metavar="FILE", help="A table of every item.")
@click.option("--plot", type=Made(".png"), metavar="FILE.png", help="Draw the worst items.")
@preprocessing_options
def compare(
    first: Path,
    others: tuple[Path, ...],
    data: tuple[str, ...],
    random: int | None,
    seed: int,
    composite: str,
    target: int | Difference,
    top: tuple[float, ...],
    tolerance: float | None,
    as_json: bool,
    table: Path | None,
    plot: Path | None,
    **options: Any,
) -> None:
    """Measure each of OTHERS against FIRST.

    Each is an explainer, a model, or relevance of any library: .npy, .npz, HDF5 with a dataset
    `attribution`, or a folder that `onnxlrp explain` wrote. They are called the same where no entry
    of any item differs by more than a thousandth of the item's largest relevance.
    """
    from onnxlrp.compiler.composite import Composite
    from onnxlrp.evaluation import comparison
    from onnxlrp.inputs.items import collect

    if data and random:
        raise InputError("--data and --random exclude each other")
    if any(not 0 < share <= 1 for share in top):
        raise InputError("--top takes shares above 0 and up to 1, such as 0.01")
    paths = [first, *others]
    chosen, start = Composite.load(composite), None if isinstance(target, int) else str(target)
    with shown():
        runs = {
            path: comparison.open_explainer(path, chosen, start)
            for path in paths
            if comparison.is_run(path)
        }
    if runs and not (data or random):
        raise InputError(f"say what to run {next(iter(runs))} on: --data FOLDER, or --random N")
    refuse_tables(data, "compare runs on pictures and arrays")
    axes = min(
        (len(one.shape) - 1 for run in runs.values() for one in run.inputs.values()), default=3
    )
    preprocessing = chosen_preprocessing(options)
    images = _random_images(next(iter(runs.values())), random, seed) if runs and random else None
    names = [item.name for item in collect(data, axes)] if data and set(paths) - set(runs) else None

    def maps(path: Path) -> Maps:
        if path not in runs:
            return comparison.read_maps(path, names)
        # What is written into an explainer need not be chosen.
        chosen = TOP if runs[path].contract.target == str(target) else target
        if images is not None:
            return comparison.random_maps(str(path), runs[path], images, chosen)
        return comparison.run_maps(str(path), runs[path], data, preprocessing, chosen)

    with shown():
        reference = maps(first)
        pairs = [comparison.compare(reference, maps(path), top) for path in others]
    if table is not None:
        write_csv(table, _rows(pairs))
    if plot is not None:
        stored = next((run.preprocessing for run in runs.values() if run.preprocessing), None)
        drawn = _drawn(pairs, collect(data, axes) if data else (), stored or preprocessing)
        write(plot, lambda file: drawn.save(file, format="PNG"))
    if as_json:
        dump([_as_object(pair) for pair in pairs])
    else:
        _show(pairs)
    worst = max(pair.measures[pair.worst()[0]]["relative max"] for pair in pairs)
    if tolerance is not None and not worst <= tolerance:
        echo(f"Error: they differ by {worst:.2e}, more than {tolerance:g}", err=True)
        raise click.exceptions.Exit(1)


def _random_images(run: Any, count: int, seed: int) -> Any:
    """Draw normal values, [N, ...] as the first explainer reads them, pictures as [N, C, H, W]."""
    import numpy as np

    (expected,) = run.inputs.values()
    sizes = expected.shape[1:]
    if not all(isinstance(size, int) for size in sizes):
        raise InputError(f"{expected} leaves sizes free: give --data instead of --random")
    images = np.random.default_rng(seed).normal(size=(count, *sizes)).astype(np.float32)
    if len(sizes) == 3 and sizes[2] in (1, 3) and sizes[0] not in (1, 3):
        images = images.transpose(0, 3, 1, 2)
    return images


def _summary(pair: Pair) -> list[tuple[str, float, float, str]]:
    """Return each measure's median over the items, its worst value, and whose that is."""
    import statistics

    found = []
    for measure in next(iter(pair.measures.values())):
        values = {item: values[measure] for item, values in pair.measures.items()}
        pick = max if measure in DISTANCES else min
        item = pick(values, key=values.__getitem__)
        found.append((measure, statistics.median(values.values()), values[item], item))
    return found


def _verdict(pair: Pair) -> str:
    summary = {measure: (median, worst) for measure, median, worst, _ in _summary(pair)}
    worst, distance = summary["relative max"][1], summary["relative L2"][1]
    if worst <= SAME:
        return f"the same explanation within {worst:.1e} of the largest relevance"
    if 1 - summary["cosine"][1] <= SAME**2:
        return f"the same explanation but for a factor: relative L2 up to {distance:.2e}"
    return (
        f"different explanations: relative L2 {summary['relative L2'][0]:.2g} in the median, "
        f"{distance:.2g} at worst; correlation {summary['pearson'][0]:.3f} and "
        f"{summary['pearson'][1]:.3f}"
    )


def _show(pairs: Sequence[Pair]) -> None:
    from onnxlrp.cli import layout, tables

    for pair in pairs:
        rows = [
            (measure, f"{median:.3g}", f"{worst:.3g}", item)
            for measure, median, worst, item in _summary(pair)
        ]
        echo(f"{pair.other.origin} against {pair.one.origin}, {len(pair.measures)} items")
        tables.show(layout.table("measure median> worst> of", rows))
        for note in pair.notes:
            echo(f"Note: {note}")
        echo(_verdict(pair))


def _as_object(pair: Pair) -> dict[str, Any]:
    return {
        "first": pair.one.origin,
        "other": pair.other.origin,
        "verdict": _verdict(pair),
        "notes": list(pair.notes),
        "items": {
            # JSON has no infinity.
            item: {name: value if isfinite(value) else None for name, value in values.items()}
            for item, values in pair.measures.items()
        },
    }


def _rows(pairs: Sequence[Pair]) -> list[dict[str, Any]]:
    return [
        {"first": pair.one.origin, "other": pair.other.origin, "item": item, **values}
        for pair in pairs
        for item, values in pair.measures.items()
    ]


def _drawn(
    pairs: Sequence[Pair], items: Sequence[Item], preprocessing: Preprocessing | None
) -> Image.Image:
    """Draw the worst items of each pair: photograph, the two maps, each on its scale, difference.

    The difference is drawn on the larger of the two scales: maps that agree leave it blank. There
    is no column of photographs where those of some items are not known.
    """
    from onnxlrp.drawing.heatmap import full_scale, heatmap
    from onnxlrp.drawing.sheet import grid

    panels, captions, photographs = [], [], []
    alone = len(pairs) == 1
    found = {item.name: item for item in items}
    for pair in pairs:
        for name in pair.worst()[:WORST]:
            one, two = (_as_picture(maps.relevance[name]) for maps in (pair.one, pair.other))
            scales = full_scale(one), full_scale(two)
            drawn = zip((one, two, two - one), (*scales, max(scales)), strict=True)
            panels.append([heatmap(map_, full=full) for map_, full in drawn])
            photographs.append(_photograph(found.get(name), preprocessing, one.shape[1:]))
            values = pair.measures[name]
            captions.append(
                f"{name}{'' if alone else f' ({pair.other.origin})'}: relative max "
                f"{values['relative max']:.2g}, pearson {values['pearson']:.2f}; "
                f"full at ±{scales[0]:.3g}, ±{scales[1]:.3g}, ±{max(scales):.3g}"
            )
    other = pairs[0].other.origin if alone else "the other"
    columns = [pairs[0].one.origin, other, "difference"]
    known = [photograph for photograph in photographs if photograph is not None]
    if len(known) == len(panels):
        columns.insert(0, "photograph")
        panels = [[photograph, *row] for photograph, row in zip(known, panels, strict=True)]
    said = "each map on a scale of its own, the difference on the larger"
    return grid(panels, columns, captions, key=(DEFAULT_COLOURS, said))


def _photograph(
    item: Item | None, preprocessing: Preprocessing | None, size: tuple[int, int]
) -> Image.Image | None:
    """Return what the model saw in pixels of a map of (height, width), None if that is unknown."""
    import numpy as np

    from onnxlrp.drawing.heatmap import enlarged
    from onnxlrp.drawing.panels import seen
    from onnxlrp.inputs.stores import picture_of

    if item is None or preprocessing is None:
        return None
    try:
        picture = picture_of(item)
        known = preprocessing.pixels(picture).shape[:2] == size
    # Arrays of what the model reads are no pictures.
    except InputError:
        return None
    return enlarged(np.asarray(seen(preprocessing, picture).convert("RGB"))) if known else None


def _as_picture(relevance: Any) -> Any:
    """Return [C, H, W] of [H, W], [C, H, W] or [H, W, C]."""
    if relevance.ndim == 2:
        return relevance[None]
    if relevance.ndim != 3:
        raise InputError(f"--plot draws pictures, not maps of {relevance.ndim} axes")
    if relevance.shape[2] in (1, 3) and relevance.shape[0] not in (1, 3):
        return relevance.transpose(2, 0, 1)
    return relevance
