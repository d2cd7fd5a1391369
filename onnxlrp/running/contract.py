"""What an explainer says about itself, and what its inputs and outputs look like."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from onnxlrp.errors import InputError, ModelError
from onnxlrp.inputs.points import Points, read_points
from onnxlrp.inputs.preprocessing import Preprocessing

_DTYPES = {
    "float": "float32",
    "double": "float64",
    "float16": "float16",
    **{f"{sign}int{bits}": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
    "bool": "bool",
}


class Tensor(NamedTuple):
    """What an input or output looks like; symbolic sizes are names, unknown ones None."""

    dtype: str
    shape: tuple[int | str | None, ...]

    def __str__(self) -> str:
        return f"{self.dtype} [{', '.join('?' if n is None else str(n) for n in self.shape)}]"


@dataclass(frozen=True)
class Contract:
    """What an explainer says about itself in its metadata.

    Attributes
    ----------
    version : of the onnxlrp that wrote it
    composite : TOML text, which rule each node got
    composite_name : what it was called; "" if that was not stored
    yields : what its maps hold: relevance, a gradient, a gradient times input, or the name of a
        class activation map
    feature_maps : the value of which a class activation map is; "" of all else
    points : where the gradient is averaged, in place of the input alone; None for that
    scaled : the values, inputs or tokens' rows, whose gradient is multiplied by them
    model_sha256 : hex digest of the explained model's file
    model_file : name of that file; "" of a model that was in memory
    score : name of the value explained, the logits
    output : name of the model's output that the score leads to
    target : the class that is written into the file, `"top"` or a number, or a difference such as
        `"3-5"`; "" where an input chooses
    target_input : name of the input that chooses the class; "" without one
    weights_input : name of the input that weights the scores instead; "" without one
    contrast : `"others"` or `"softmax"`, what a class is contrasted to; "" for nothing
    at, class_axis : where in a dense output the score is, as `convert` takes them; "" without one
    scores : output with the scores, summed over those places, [N, classes]; "" where the model has
        such an output itself
    relevance : output holding the relevance, by explained input
    intermediates : output holding the relevance, by value of the model
    signs : of the score, where it is one logit, in the score of each class; else empty
    silent : rule of each node of the model that relevance crosses without a node of its own
    several : whether one sample can be explained for several classes in one run
    masks : input that multiplies the relevance passing through, by value of the model
    reference_scores : output with the scores at the reference that contributions are differences
        from, [1, classes] or [N, classes]; "" without a reference
    reference : what that reference is, as `convert` was told; "" if that was not stored
    references : input that takes the reference, by explained input; empty where it is written in
    preprocessing : how pictures become the model's input, if it was stored
    features : names of the features of a table, by the input that reads them, if they were stored
    missing : inputs that may lack values, NaN, which the model fills in

    """

    version: str
    composite: str
    composite_name: str
    yields: str
    feature_maps: str
    points: Points | None
    scaled: tuple[str, ...]
    model_sha256: str
    model_file: str
    score: str
    output: str
    target: str
    target_input: str
    weights_input: str
    contrast: str
    at: str
    class_axis: str
    scores: str
    relevance: Mapping[str, str]
    intermediates: Mapping[str, str]
    signs: tuple[int, ...]
    silent: Mapping[str, str]
    several: bool
    masks: Mapping[str, str]
    reference_scores: str
    reference: str
    references: Mapping[str, str]
    preprocessing: Preprocessing | None
    features: Mapping[str, Sequence[str]]
    missing: tuple[str, ...]

    @property
    def sensitivity(self) -> bool:
        """Whether maps are gradients, or such times the input, which add up to no score."""
        return self.yields != "relevance"

    @property
    def explains(self) -> str:
        """What relevance starts from, in words."""
        if self.weights_input:
            said = f"all scores, times input '{self.weights_input}'"
        elif "-" in self.target:
            said = f"{self.target}, the difference of two scores"
        else:
            said = self.target or f"input '{self.target_input}'"
        against = {"others": ", against all others", "softmax": ", by the gradient of softmax"}
        said += against.get(self.contrast, "")
        if self.sensitivity:
            said += f", by its {self.yields}"
        if self.feature_maps:
            said += f" at '{self.feature_maps}'"
        if self.points is not None:
            said += f" {self.points}"
        if self.at:
            axis = f" (classes on axis {self.class_axis})" if self.class_axis else ""
            said += f", summed over --at {self.at} of '{self.output}'{axis}"
        return said + (", above those of the reference" if self.reference_scores else "")

    @classmethod
    def read(cls, metadata: Mapping[str, str]) -> Contract | None:
        """Read `metadata_props`; None where they are not an explainer's.

        Raises
        ------
        ModelError
            The metadata are an explainer's, but damaged.

        """
        if "onnxlrp.relevance" not in metadata:
            return None
        get = {key.removeprefix("onnxlrp."): text for key, text in metadata.items()}
        try:
            stored = get.get("preprocessing")
            return cls(
                version=get["version"],
                composite=get["composite"],
                composite_name=get.get("composite_name", ""),
                yields=get.get("yields", "relevance"),
                feature_maps=get.get("feature_maps", ""),
                points=read_points(json.loads(get["points"])) if get.get("points") else None,
                scaled=tuple(json.loads(get.get("scaled", "[]"))),
                model_sha256=get["model_sha256"],
                model_file=get.get("model_file", ""),
                score=get["score"],
                output=get["output"],
                target=get["target"],
                target_input=get.get("target_input", ""),
                weights_input=get.get("weights_input", ""),
                contrast=get.get("contrast", ""),
                at=get.get("at", ""),
                class_axis=get.get("class_axis", ""),
                scores=get.get("scores", ""),
                relevance=json.loads(get["relevance"]),
                intermediates=json.loads(get["intermediates"]),
                signs=tuple(json.loads(get.get("signs", "[]"))),
                silent=json.loads(get.get("silent", "{}")),
                several=json.loads(get.get("several", "false")),
                masks=json.loads(get.get("masks", "{}")),
                reference_scores=get.get("reference_scores", ""),
                reference=get.get("reference", ""),
                references=json.loads(get.get("references", "{}")),
                preprocessing=Preprocessing.from_json(stored) if stored else None,
                features=json.loads(get.get("features", "{}")),
                missing=tuple(json.loads(get.get("missing", "[]"))),
            )
        except (KeyError, json.JSONDecodeError, InputError) as error:
            raise ModelError(
                f"the explainer's metadata are damaged ({error}): convert again"
            ) from error


def tensor(value: Any) -> Tensor:
    """Return what an input or output of a session looks like."""
    element = value.type.removeprefix("tensor(").removesuffix(")")
    # A size without a name gets one of onnxruntime's own.
    shape = (None if str(size).startswith("unk__") else size for size in value.shape)
    return Tensor(_DTYPES.get(element, element), tuple(shape))


def check_content(name: str, array: NDArray[Any], missing: bool) -> None:
    """Check that an input holds numbers, all finite; NaN only where values may be `missing`.

    Raises
    ------
    InputError
        It does not.

    """
    if array.size == 0:
        raise InputError(f"input '{name}' is empty: {Tensor(str(array.dtype), array.shape)}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        if not missing:
            raise InputError(f"input '{name}' holds NaN or infinity")
        if np.isinf(array).any():
            raise InputError(f"input '{name}' holds infinity")


def fits(shape: Sequence[int], expected: Sequence[int | str | None]) -> bool:
    """Tell whether an array's shape is the one expected, wherever that gives a number."""
    return len(shape) == len(expected) and all(
        not isinstance(size, int) or size == actual
        for actual, size in zip(shape, expected, strict=True)
    )
