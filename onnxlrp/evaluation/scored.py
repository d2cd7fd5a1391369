"""The model whose score is followed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import RemoveUnusedNodesPass

from onnxlrp.compiler.composite import Composite
from onnxlrp.compiler.conversion import convert
from onnxlrp.compiler.default_composite import DEFAULT_COMPOSITE
from onnxlrp.errors import InputError
from onnxlrp.evaluation.medium import Feeds
from onnxlrp.inputs.columns import Columns
from onnxlrp.inputs.preprocessing import Preprocessing
from onnxlrp.running.contract import Contract, Tensor, tensor
from onnxlrp.running.explainer import Explainer
from onnxlrp.running.explanation import Explanation
from onnxlrp.runtime import first_line, open_session


class ScoredModel:
    """A model up to the score that is followed while its input is changed.

    Parameters
    ----------
    path : an ONNX classifier with a symbolic batch
    composite : one that has a line for each of its nodes; the default one if None
    preprocessing : how pictures become its input, where it reads pictures
    explained : name of the input that is judged, where it has several
    probability : follow what the model puts out instead of the logits it comes from; of a model
        that puts out logits, their softmax, or of a single one its sigmoid
    threads : for one operator on the CPU

    Attributes
    ----------
    inputs : the model's own, by name
    explained : names of those that relevance is computed for
    columns : of tables, how what several inputs read is joined; None where one is judged

    Raises
    ------
    ModelError, UnsupportedError, CompositeError
        As for `convert`.
    InputError
        The model fixes its batch.

    """

    def __init__(
        self,
        path: Path,
        composite: Composite | None = None,
        preprocessing: Preprocessing | None = None,
        *,
        explained: str | None = None,
        probability: bool = False,
        threads: int | None = None,
    ) -> None:
        if composite is not None:
            composite.check_alone()
        self.path = path
        self.preprocessing = preprocessing
        self.probability = probability
        self.threads = threads
        self.columns: Columns | None = None
        self._wanted = None if explained is None else [explained]
        proto = convert(
            path,
            composite or DEFAULT_COMPOSITE,
            inputs=self._wanted,
            preprocessing=preprocessing,
            target="top",
        ).to_proto()
        contract = Contract.read({entry.key: entry.value for entry in proto.metadata_props})
        assert contract is not None
        self._signs = contract.signs
        self._own = probability and (contract.output != contract.score or bool(contract.signs))
        self.explained = list(contract.relevance)
        wanted = contract.output if self._own else contract.score
        typed = [*proto.graph.value_info, *proto.graph.output]
        score = next((value for value in typed if value.name == wanted), None)
        if score is None:
            original = onnx.load(path, load_external_data=False)
            score = next(v for v in original.graph.output if v.name == wanted)
        del proto.graph.output[:]
        proto.graph.output.append(score)
        # onnxruntime runs nodes that lead to no output, too.
        pruned = ir.from_proto(proto)
        RemoveUnusedNodesPass()(pruned)
        self._session = open_session(
            ir.to_proto(pruned).SerializeToString(), str(path), "cpu", threads
        )
        self.inputs: Mapping[str, Tensor] = {
            value.name: tensor(value) for value in self._session.get_inputs()
        }
        if isinstance(self.inputs[self.explained[0]].shape[0], int):
            raise InputError(f"{path} fixes its batch: export it with a symbolic one")

    def explainer(self, composite: Composite, model: onnx.ModelProto | None = None) -> Explainer:
        """Convert the model, or one of its inputs and outputs."""
        composite.check_alone()
        conversion = convert(
            self.path if model is None else model,
            composite,
            inputs=self._wanted,
            preprocessing=self.preprocessing,
        )
        if model is None:
            conversion.warn()
        return Explainer(conversion.to_proto().SerializeToString(), threads=self.threads)

    def relevance(self, explanation: Explanation) -> NDArray[Any]:
        """Return the relevance of the input that is judged, of the batch's only sample."""
        found = explanation.relevance
        if self.columns is not None:
            return self.columns.joined(found, 0)
        own = found[self.explained[0]] if isinstance(found, Mapping) else found
        single: NDArray[Any] = np.asarray(own)[0]
        return single

    def scores(self, feeds: Feeds) -> NDArray[Any]:
        """Return the scores of what the model reads, [B, classes].

        Raises
        ------
        InputError
            onnxruntime fails on the values, or what comes out is not finite.

        """
        try:
            values = self._session.run(None, dict(feeds))[0]
        # onnxruntime's exceptions share no base class of their own.
        except Exception as error:
            raise InputError(f"onnxruntime failed: {first_line(error)}") from error
        values = values.reshape(len(feeds[self.explained[0]]), -1)
        made = self._made(values)
        if not np.isfinite(made).all():
            raise InputError("the model's scores are NaN or infinite")
        return made

    def _made(self, values: NDArray[Any]) -> NDArray[Any]:
        from scipy.special import expit, softmax

        if not self.probability:
            return np.asarray(values * np.array(self._signs) if self._signs else values)
        if self._own:
            # The logarithm of a probability stands for it.
            return np.asarray(np.exp(values) if (values <= 0).all() else values)
        return np.asarray(softmax(values, axis=1) if values.shape[1] > 1 else expit(values))
