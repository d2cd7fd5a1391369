"""Run an explainer: pictures in, relevance out."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from onnxlrp.errors import InputError, ModelError
from onnxlrp.files import check_there
from onnxlrp.inputs.points import Points
from onnxlrp.inputs.preprocessing import Preprocessing
from onnxlrp.inputs.targets import TOP, Aim, check_weights
from onnxlrp.inputs.text import Reader, Tokens
from onnxlrp.inputs.tokens import beside
from onnxlrp.running.asked import Asked, Target
from onnxlrp.running.contract import Contract, Tensor, check_content, fits, tensor
from onnxlrp.running.explanation import Explanation
from onnxlrp.runtime import first_line, open_session
from onnxlrp.telling import tell

Reference = NDArray[Any] | Mapping[str, NDArray[Any]]

_TOGETHER = 16
"""How many points of samples go into one run."""


class Explainer:
    """An explainer in an onnxruntime session, open until `close` or the end of a `with` block.

    It may be called from several threads at once.

    Parameters
    ----------
    source : path of the explainer, or its bytes
    device : where it runs
    threads : for one operator on the CPU; onnxruntime's choice (one a core) if None
    tokenizer : `tokenizer.json` for texts; if None `<stem>.tokenizer.json` or `tokenizer.json`
        beside the explainer's file
    most : how many tokens of a text are read; None for as many as the model and tokenizer allow

    Attributes
    ----------
    contract : what the explainer says about itself
    inputs : the model's own inputs, without the target and masks
    tokenizer : the file that splits texts; None where there is none
    classes : number of classes; None if it depends on the input
    batch : how many samples a call takes, if the model fixes it
    several : whether a run explains one sample for several classes
    score_is_output : whether the logits are among the outputs, not only what comes after them

    Raises
    ------
    ModelError
        onnxruntime cannot load the file, or it is not an explainer.
    DeviceError
        onnxruntime is missing, or did not take the device.

    """

    def __init__(
        self,
        source: str | os.PathLike[str] | bytes,
        device: Literal["cpu", "cuda"] = "cpu",
        threads: int | None = None,
        *,
        tokenizer: str | os.PathLike[str] | None = None,
        most: int | None = None,
    ) -> None:
        self.tokenizer = None if tokenizer is None else Path(tokenizer)
        if tokenizer is None and not isinstance(source, bytes):
            self.tokenizer = beside(Path(source))
        self._most = most
        name = "the explainer" if isinstance(source, bytes) else str(source)
        if not isinstance(source, bytes):
            check_there(Path(source), name)
        tell("opening the explainer")
        session = self._session = open_session(source, name, device, threads)
        contract = Contract.read(session.get_modelmeta().custom_metadata_map)
        if contract is None:
            raise ModelError(
                f"{name} is a plain model, not an explainer: make one with "
                "`onnxlrp convert MODEL EXPLAINER`"
            )
        self.contract = contract
        inputs = {value.name: tensor(value) for value in session.get_inputs()}
        inputs.pop(contract.target_input, None)
        weights = inputs.pop(contract.weights_input, None)
        self._weights_dtype = "float32" if weights is None else weights.dtype
        self._references = {key: inputs.pop(name) for key, name in contract.references.items()}
        self._masks = {value: inputs.pop(name) for value, name in contract.masks.items()}
        self.inputs: Mapping[str, Tensor] = inputs
        self._doubted = False
        self._against: Sequence[Reference] | None = None
        self.several = contract.several
        self._outputs = {value.name: tensor(value) for value in session.get_outputs()}
        self._scores = contract.scores or contract.output
        self.score_is_output = bool(contract.scores)
        if contract.score in self._outputs and not contract.signs and not contract.scores:
            self._scores, self.score_is_output = contract.score, True
        self.classes = _class_count(self._outputs[self._scores].shape)
        first = inputs[next(iter(contract.relevance))].shape
        self.batch = first[0] if isinstance(first[0], int) else None

    def __repr__(self) -> str:
        wanted = ", ".join(f"{name} {tensor}" for name, tensor in self.inputs.items())
        classes = "" if self.classes is None else f", {self.classes} classes"
        return f"Explainer({wanted} -> relevance of '{self.contract.score}'{classes})"

    def close(self) -> None:
        """Give the session's memory back; calls fail from then on."""
        self._session = None

    def __enter__(self) -> Explainer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def preprocessing(self) -> Preprocessing | None:
        """How pictures become the model's input, if `convert` was told."""
        return self.contract.preprocessing

    @cached_property
    def reader(self) -> Reader:
        """What makes tokens of texts.

        Raises
        ------
        InputError
            There is no tokenizer, or as `onnxlrp.inputs.text.Reader`.
        OSError
            The tokenizer's file cannot be opened.

        """
        if self.tokenizer is None:
            raise InputError(
                "text needs the model's tokenizer: put tokenizer.json beside the explainer, or "
                "name it, as in --tokenizer FILE"
            )
        return Reader(self.tokenizer, self.inputs, list(self.contract.relevance), self._most)

    def __call__(
        self,
        images: NDArray[Any] | Mapping[str, NDArray[Any]] | Sequence[str],
        target: Target = TOP,
        masks: Mapping[str, NDArray[Any]] | None = None,
        *,
        weights: NDArray[Any] | Sequence[Any] | None = None,
        reference: Reference | Sequence[Reference] | None = None,
    ) -> Explanation:
        """Explain a batch, or one sample for several classes.

        Of one sample and K classes, what no class changes is computed once (but where the model
        makes one axis of the batch and another: there the sample goes in K times), and the
        explanation is as of K samples.

        Parameters
        ----------
        images : the model's input, [N, ...]; by input name where it has several; or N texts
        target : one class for all, one for each of N, or K for one sample; -1 or "top" is the
            highest scoring one; of an explainer that takes weights also differences, "3-5" or
            `Difference`
        masks : by value of the model that the explainer was converted to mask: what multiplies the
            relevance passing through it, of a shape that broadcasts to the value's; default 1
        weights : in place of a target, what multiplies the scores, real numbers [classes],
            [1, classes], [N, classes], or [K, classes] for one sample; of an explainer that was
            converted with target "weights"
        reference : what contributions are differences from, [1, ...] or [N, ...], by name where
            there are several inputs; of an explainer that was converted with reference "input". Of
            a list of such the explanation is the mean (Lundberg et al. 2017, DeepSHAP)

        Raises
        ------
        InputError
            An input is missing, unknown, or of another dtype or shape than the model's; a target
            is not a class, or not this explainer's to choose; weights are none; or onnxruntime
            fails on the values.

        """
        reference = self._against if reference is None else reference
        if isinstance(reference, list | tuple):
            if not reference:
                raise InputError("the list of references is empty")
            return Explanation.mean(
                [self(images, target, masks, weights=weights, reference=one) for one in reference]
            )
        assert not isinstance(reference, Sequence)
        if self._session is None:
            raise InputError("the explainer is closed")
        texts: tuple[Tokens, ...] = ()
        if isinstance(images, Sequence):
            listed = images and not isinstance(images, str)
            if not listed or not all(isinstance(text, str) for text in images):
                raise InputError("give an array, or texts as a list of str")
            texts = tuple(map(self.reader, images))
            images = self.reader.feeds(texts)
        assert not isinstance(images, Sequence)
        feeds = self._checked(images)
        count = len(feeds[next(iter(self.contract.relevance))])
        asked = self._asked(target, count)
        feeds |= self._mask_feeds(masks or {}) | self._reference_feeds(reference, count)
        contract, rows = self.contract, len(asked.plus)
        if weights is not None:
            feeds[contract.weights_input] = weights = self._weights(weights, target, count)
            rows = max(count, len(weights))
        elif contract.weights_input:
            feeds[contract.weights_input] = np.zeros((1, self.classes or 1), self._weights_dtype)
            if asked.open:
                scores = self._run(feeds, count)[self._scores].reshape(count, -1)
                asked = asked.resolved(_rows(scores, rows))
            own = asked.weights(self.classes or 1)
            feeds[contract.weights_input] = own.astype(self._weights_dtype)
        elif contract.target_input:
            feeds[contract.target_input] = asked.plus
        outputs = self._run(feeds, rows)
        relevance = {name: outputs.pop(output) for name, output in contract.relevance.items()}
        intermediates = {name: outputs.pop(out) for name, out in contract.intermediates.items()}
        outputs = {name: _rows(array, rows) for name, array in outputs.items()}
        scores = outputs[self._scores].reshape(rows, -1)
        outputs.pop(contract.scores, None)
        asked = asked.resolved(scores)
        if contract.points is not None:
            if contract.target_input:
                feeds[contract.target_input] = asked.plus
            relevance = self._averaged(contract.points, feeds, rows)
        explained, root = scores, outputs.pop(contract.reference_scores, None)
        if root is not None and self.score_is_output:
            explained = scores - root
        return Explanation(
            relevance=relevance if len(relevance) > 1 else next(iter(relevance.values())),
            outputs=outputs,
            target=asked.plus if weights is None else np.full(rows, TOP),
            score=asked.score(explained) if weights is None else (weights * explained).sum(axis=1),
            scores=scores,
            score_is_logit=self.score_is_output,
            intermediates=intermediates,
            inputs={name: _rows(feeds[name], rows) for name in contract.relevance},
            preprocessing=self.preprocessing,
            features=self.contract.features,
            aims=tuple(
                replace(
                    aim,
                    above=root is not None and self.score_is_output,
                    sensitivity=contract.sensitivity,
                )
                for aim in (
                    asked.aims(contract.contrast, contract.at)
                    if weights is None
                    else (Aim(None, at=contract.at),) * rows
                )
            ),
            texts=texts * rows if rows > count else texts,
            reference_scores=root,
        )

    def against(self, references: Sequence[NDArray[Any]]) -> None:
        """Let calls that are given no reference count from these, their explanations averaged.

        Parameters
        ----------
        references : arrays that broadcast to one sample of the only explained input

        Raises
        ------
        InputError
            The explainer takes no reference when it runs, or several; or one does not fit.

        """
        if len(self._references) != 1:
            raise InputError(
                "a reference is given to explainers of one input by convert --reference input"
            )
        (wanted,) = self._references.values()
        found = []
        for array in references:
            sizes = wanted.shape[1:]
            if len(sizes) == array.ndim:
                pairs = zip(sizes, array.shape, strict=True)
                sizes = tuple(n if isinstance(n, int) else own for n, own in pairs)
            try:
                # Of a size that is only a name numpy raises TypeError.
                found.append(np.broadcast_to(array, sizes)[None])  # type: ignore[arg-type]
            except (TypeError, ValueError):
                given = Tensor(str(array.dtype), array.shape)
                raise InputError(f"a sample takes {wanted}, and the reference is {given}") from None
        self._against = found

    def _averaged(
        self, points: Points, feeds: Mapping[str, NDArray[Any]], rows: int
    ) -> dict[str, NDArray[Any]]:
        """Average the gradient over points of each sample, several of them in one batch."""
        names = list(self.contract.relevance)
        count = len(feeds[names[0]])
        together = 1 if self.batch or rows > count else max(1, _TOGETHER // count)
        every = zip(*(points.at(feeds[name]) for name in names), strict=True)
        means = {name: np.zeros((rows, *feeds[name].shape[1:])) for name in names}
        while chunk := list(islice(every, together)):
            # Whatever has a row for each sample has one for each point.
            stacked = {
                key: np.concatenate([array] * len(chunk))
                if array.ndim and len(array) == count
                else array
                for key, array in feeds.items()
            }
            for place, name in enumerate(names):
                stacked[name] = np.concatenate([point[place][1] for point in chunk])
            outputs = self._run(stacked, rows * len(chunk))
            for place, name in enumerate(names):
                slopes = outputs[self.contract.relevance[name]]
                weights = np.array([point[place][0] for point in chunk])
                parted = slopes.reshape(len(chunk), *means[name].shape)
                means[name] += np.tensordot(weights, parted, axes=1)
        return {
            name: points.map(mean, feeds[name]).astype(feeds[name].dtype)
            for name, mean in means.items()
        }

    def _run(self, feeds: Mapping[str, NDArray[Any]], rows: int) -> dict[str, NDArray[Any]]:
        """Run the session for so many rows of relevance.

        One sample that cannot be explained for several classes goes in as often. That is certain
        only once it runs, where the model makes one axis of the batch and another.
        """
        session, contract = self._session, self.contract
        if session is None:
            raise InputError("the explainer is closed")
        several = rows > len(feeds[next(iter(contract.relevance))])
        if several and not self.several:
            feeds = {
                name: np.repeat(array, rows, axis=0) if name in self.inputs else array
                for name, array in feeds.items()
            }
        try:
            values = session.run(None, dict(feeds))
        # onnxruntime's exceptions share no base class of their own.
        except Exception as error:
            if several and self.several:
                self.several = False
                return self._run(feeds, rows)
            where = f" (is there a place {contract.at}?)" if contract.at else ""
            if self.tokenizer and "out of data bounds" in str(error):
                where = f" (is {self.tokenizer} the model's own tokenizer?)"
            raise InputError(f"onnxruntime failed{where}: {first_line(error)}") from error
        outputs = dict(zip(self._outputs, values, strict=True))
        for name in contract.relevance.values():
            if len(outputs[name]) != rows:
                raise InputError(
                    f"'{name}' has {len(outputs[name])} rows and not {rows}: the model mixes up "
                    "samples, explain them one by one"
                )
        return outputs

    def check_sample(self, sample: NDArray[Any]) -> None:
        """Check one sample, without the batch axis, for the model's only input.

        Raises
        ------
        InputError
            As for a call.

        """
        self._checked(np.broadcast_to(sample, (self.batch or 1, *sample.shape)))

    def _checked(self, images: NDArray[Any] | Mapping[str, NDArray[Any]]) -> dict[str, Any]:
        if not isinstance(images, Mapping):
            if len(self.inputs) != 1:
                names = ", ".join(f"'{name}'" for name in self.inputs)
                raise InputError(f"the explainer has several inputs: give a mapping of {names}")
            images = {next(iter(self.inputs)): images}
        for name in images.keys() - self.inputs.keys():
            names = ", ".join(f"'{known}'" for known in self.inputs)
            raise InputError(f"the explainer has no input '{name}', only {names}")
        for name, expected in self.inputs.items():
            if name not in images:
                raise InputError(f"input '{name}' is missing: it takes {expected}")
            array = images[name]
            if not isinstance(array, np.ndarray):
                raise InputError(f"input '{name}' takes a numpy array, not {type(array).__name__}")
            given = Tensor("string" if array.dtype.kind in "OU" else str(array.dtype), array.shape)
            if given.dtype != expected.dtype or not fits(array.shape, expected.shape):
                hint = self._hint(array, expected)
                raise InputError(f"input '{name}' takes {expected}, not {given}{hint}")
            check_content(name, array, name in self.contract.missing)
            if name in self.contract.relevance:
                self._check_range(name, array)
        return dict(images)

    def _hint(self, array: NDArray[Any], expected: Tensor) -> str:
        """Say how to make an array fit, where that is plain."""
        shape, axes = array.shape, len(expected.shape)
        if fits(shape, expected.shape):
            if array.dtype == np.uint8 and self.preprocessing is not None:
                return ": explainer.preprocessing(picture)[None] makes it of a picture"
            return f": give array.astype('{expected.dtype}')"
        if axes == len(shape) + 1 and fits((1, *shape), expected.shape):
            return ": the batch axis is missing, give array[None]"
        if axes == len(shape) == 4:
            for order in ((0, 3, 1, 2), (0, 2, 3, 1)):
                if fits(tuple(shape[axis] for axis in order), expected.shape):
                    return f": give array.transpose{order}"
        return ""

    def _check_range(self, name: str, array: NDArray[Any]) -> None:
        """Warn of values that no picture leads to, or that only a black one does."""
        if self.preprocessing is None or self._doubted:
            return
        least, greatest = min(self.preprocessing.bounds[0]), max(self.preprocessing.bounds[1])
        low, high = float(array.min()), float(array.max())
        span = greatest - least
        if low < least - 0.1 * span or high > greatest + 0.1 * span or 0 < high - low < 0.02 * span:
            # Once is enough for a hundred thousand.
            self._doubted = True
            warnings.warn(
                f"input '{name}' holds values of {low:.3g} to {high:.3g}; pictures, "
                f"{self.preprocessing.in_words()}, lie within {least:.3g} to {greatest:.3g}",
                stacklevel=2,
            )

    def _mask_feeds(self, masks: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        for value in masks.keys() - self._masks.keys():
            known = ", ".join(self._masks) or "none: convert with --mask"
            raise InputError(f"the explainer masks no value '{value}'; it masks {known}")
        return {
            self.contract.masks[value]: np.asarray(
                masks.get(value, np.ones((1,) * len(expected.shape))), expected.dtype
            )
            for value, expected in self._masks.items()
        }

    def _reference_feeds(self, reference: Reference | None, count: int) -> dict[str, NDArray[Any]]:
        names, wanted = self.contract.references, ", ".join(map(repr, self._references))
        if reference is None and not names:
            return {}
        if not names:
            raise InputError("this explainer takes no reference: convert with reference 'input'")
        if not isinstance(reference, Mapping):
            reference = {} if reference is None else {next(iter(names)): reference}
        if reference.keys() != names.keys():
            raise InputError(f"a reference is needed for {wanted}")
        feeds = {}
        for key, expected in self._references.items():
            array = np.asarray(reference[key])
            if not fits(array.shape, expected.shape) or len(array) not in (1, count):
                found = Tensor(str(array.dtype), array.shape)
                raise InputError(f"the reference of '{key}' takes {expected}, not {found}")
            if not np.isfinite(array).all():
                raise InputError(f"the reference of '{key}' holds NaN or infinity")
            feeds[names[key]] = array.astype(expected.dtype)
        return feeds

    def _asked(self, target: Target, count: int) -> Asked:
        """Return what to explain of each of `count` inputs, or what all of one."""
        many = self.batch is None and not self.contract.target
        asked = Asked.read(target, count, self.classes, several=many)
        written = self.contract.target
        if written:
            own = Asked.read(int(written) if written.isdecimal() else written, count)
            if not asked.same(own) and not asked.same(Asked.read(TOP, count)):
                raise InputError(
                    f"the class is written into this explainer ({written}): "
                    "convert without --target to choose it here"
                )
            return own
        if self.contract.target_input and asked.differs:
            raise InputError(
                "this explainer starts from one class: for a difference of two scores convert "
                "with --target weights, or write it in, as in --target 3-5"
            )
        return asked

    def _weights(self, given: Any, target: Target, count: int) -> NDArray[Any]:
        """Check weights of the scores and return them as the explainer reads them."""
        if not self.contract.weights_input:
            raise InputError(
                "this explainer takes no weights: convert with target 'weights' for one that does"
            )
        if not (isinstance(target, int) and target == TOP):
            raise InputError("give a target or weights, not both")
        array = np.asarray(given)
        rows = array[None] if array.ndim == 1 else array
        several = count == 1 and self.batch is None and len(rows) > 0
        shapes = ((1, self.classes), (len(rows) if several else count, self.classes))
        if array.dtype.kind not in "fiu" or rows.shape not in shapes:
            found = Tensor(str(array.dtype), array.shape)
            raise InputError(
                f"weights are real numbers, [{self.classes}] or [{count}, {self.classes}], not "
                f"{found}"
            )
        check_weights(rows, "weights")
        return rows.astype(self._weights_dtype)


def _rows(array: NDArray[Any], count: int) -> NDArray[Any]:
    """Give one sample, or what a model makes of it, as many rows as there are explanations."""
    one = array.ndim and len(array) == 1
    return np.broadcast_to(array, (count, *array.shape[1:])) if one and count > 1 else array


def _class_count(shape: tuple[int | str | None, ...]) -> int | None:
    """Return how many classes a score of this shape, [N, C, 1, ...] or [C], tells apart."""
    sizes = shape[1:] or shape
    return int(np.prod([int(n) for n in sizes if n])) if all(map(_known, sizes)) else None


def _known(size: int | str | None) -> bool:
    return isinstance(size, int)
