"""`onnxlrp explain`: pictures in, heatmaps out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnxlrp.cli.options import TOP, chosen_preprocessing, preprocessing_options, target_number
from onnxlrp.errors import InputError
from onnxlrp.files import write

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from onnxlrp.explainer import Explainer
    from onnxlrp.preprocessing import Preprocessing


@click.command(short_help="Draw why an explainer's model gives pictures their class.")
@click.argument("explainer", type=click.Path(path_type=Path))
@click.argument(
    "images", metavar="IMAGE...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@click.option(
    "-o",
    "--output",
    "folder",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder for the results; made if missing.",
)
@click.option(
    "--target",
    type=target_number,
    metavar="N|top",
    help="The class to explain; by default the top one, or that written into the explainer.",
)
@preprocessing_options
def explain(
    explainer: Path, images: tuple[Path, ...], folder: Path, target: int | None, **options: Any
) -> None:
    """Explain why EXPLAINER's model gives IMAGE its class.

    For each IMAGE the folder gets NAME.relevance.npy (float32, the model's input shape),
    NAME.heatmap.png and NAME.overlay.png: red speaks for the class, blue against it.
    Preprocessing options override what the explainer stores.
    """
    from onnxlrp.explainer import Explainer

    _refuse_equal_names(images)
    run = Explainer(explainer)
    if len(run.inputs) > 1:
        raise InputError(
            f"{explainer} has several inputs ({', '.join(run.inputs)}): run it from Python, "
            "with onnxlrp.Explainer"
        )
    written = run.contract.target
    if target is not None and written not in ("", "top" if target == TOP else str(target)):
        raise InputError(f"class {written} is written into {explainer}: leave --target out")
    target = TOP if target is None or written else target
    preprocessing = chosen_preprocessing(options, run.preprocessing)
    if preprocessing is None:
        raise InputError(
            f"{explainer} does not say how its pictures are made: name it, as in --preprocess "
            "imagenet, or spell it out, as in --resize 32 --crop 32 --scale 1/255"
        )
    folder.mkdir(parents=True, exist_ok=True)
    failed = 0
    for image in images:
        try:
            line = _explain_one(run, preprocessing, image, folder, target)
        except InputError as error:
            failed += 1
            known = str(image) in str(error)
            click.echo(f"Error: {error if known else f'{image}: {error}'}", err=True)
        else:
            click.echo(f"{image}: {line}")
    if failed:
        raise click.exceptions.Exit(1)


def _refuse_equal_names(images: tuple[Path, ...]) -> None:
    seen: dict[str, Path] = {}
    for image in images:
        other = seen.setdefault(image.stem, image)
        if other is not image:
            raise InputError(f"{other} and {image} would write the same files: explain them apart")


def _explain_one(
    run: Explainer, preprocessing: Preprocessing, path: Path, folder: Path, target: int
) -> str:
    """Write one picture's files; return what is to be said about it."""
    import numpy as np

    from onnxlrp.heatmap import heatmap, overlay
    from onnxlrp.items import load_picture

    picture = load_picture(path)
    (expected,) = run.inputs.values()
    explanation = run(_as_dtype(preprocessing(picture), expected.dtype)[None], target)
    relevance = np.asarray(explanation.relevance)[0]
    drawn = heatmap(relevance, preprocessing.layout)
    enlarged = drawn.width // preprocessing.crop_of(picture).width
    over = overlay(relevance, preprocessing.crop_of(picture, enlarged), preprocessing.layout)
    write(folder / f"{path.stem}.relevance.npy", lambda buffer: np.save(buffer, relevance))
    write(folder / f"{path.stem}.heatmap.png", lambda buffer: drawn.save(buffer, format="PNG"))
    write(folder / f"{path.stem}.overlay.png", lambda buffer: over.save(buffer, format="PNG"))
    name = "score" if run.score_is_output else run.contract.output
    return account(
        name, int(explanation.target[0]), float(explanation.score[0]), float(relevance.sum())
    )


def account(name: str, target: int, score: float, total: float) -> str:
    """Say how much of a score its relevance accounts for; only logits are comparable to it."""
    share = f" ({total / score:.1%} of the score)" if name == "score" and score else ""
    return f"class {target}, {name} {score:.4g}, relevance sums to {total:.4g}{share}"


def _as_dtype(array: NDArray[np.float32], dtype: str) -> NDArray[np.generic]:
    converted: NDArray[np.generic] = array.astype(dtype)
    if converted.dtype.kind in "iu" and (converted != array).any():
        raise InputError(
            f"the model reads whole numbers ({dtype}), but the preprocessing leaves others: "
            "drop scale, mean and std"
        )
    return converted
