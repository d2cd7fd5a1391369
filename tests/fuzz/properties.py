"""What must hold whatever is given: an explainer that runs as its model does, or one clear line."""

from __future__ import annotations

import resource
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from fuzz.mutations import mutated_model

import onnxlrp

MEMORY = 4 << 30
SECONDS = 60


class SlowError(Exception):
    """More than `SECONDS` were taken."""


@contextmanager
def bounded() -> Iterator[None]:
    """Stop what takes more than a minute; fail what took more than 4 GB."""

    def stop(*_: Any) -> None:
        raise SlowError

    before, peak = signal.signal(signal.SIGALRM, stop), _peak()
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    # The peak may be another test's.
    assert _peak() == peak or _peak() < MEMORY


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def converts_or_says_why(content: bytes, folder: Path) -> str:
    """Convert a model from its bytes; return `converted`, or the one line that says why not."""
    path, written = folder / "model.onnx", folder / "explainer.onnx"
    path.write_bytes(content)
    written.unlink(missing_ok=True)
    with bounded(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            onnxlrp.convert(path, "epsilon_plus_flat").save(written)
        except onnxlrp.OnnxlrpError as error:
            assert sorted(file.name for file in folder.iterdir()) == ["model.onnx"]
            said = str(error)
            assert said
            assert "Traceback" not in said
            return said
    runs_as_its_model(path, written)
    return "converted"


def runs_as_its_model(path: Path, written: Path) -> None:
    """The explainer computes what the model computes, wherever onnxruntime runs that at all."""
    model = onnx.load(path)
    feeds = {}
    named = {tensor.name for tensor in model.graph.initializer}
    for value in model.graph.input:
        kind = value.type.tensor_type
        sizes = [dim.dim_value or 2 for dim in kind.shape.dim]
        if (
            value.name in named
            or np.prod(sizes, dtype=np.float64) > 1e6
            or min(sizes, default=1) < 0
        ):
            return
        dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
        feeds[value.name] = np.random.default_rng(0).normal(size=sizes).astype(dtype)
    expected = _run(path, feeds)
    if expected is None:
        return
    session = _session(written)
    wanted = {given.name for given in session.get_inputs()} - set(feeds)
    found = _run(written, feeds | {name: np.array([-1]) for name in wanted})
    assert found is not None, "the model runs and its explainer does not"
    for name, array in expected.items():
        scale = max(float(np.abs(array[np.isfinite(array)]).max(initial=0)), 1e-30)
        np.testing.assert_allclose(found[name], array, rtol=1e-3, atol=1e-4 * scale)


def _session(path: Path) -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _run(path: Path, feeds: dict[str, Any]) -> dict[str, Any] | None:
    # onnxruntime's exceptions share no base class of their own.
    try:
        session = _session(path)
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(None, feeds), strict=True))
    except Exception:
        return None


def wrong_among(start: int, end: int) -> list[str]:
    """Try a range of seeds, in whatever process this is; return what did not hold."""
    wrong = []
    for seed in range(start, end):
        with TemporaryDirectory() as folder:
            try:
                converts_or_says_why(mutated_model(seed), Path(folder))
            # Whatever it is, it is what this looks for.
            except BaseException as error:
                wrong.append(f"seed {seed}: {type(error).__name__}: {error}")
    return wrong
