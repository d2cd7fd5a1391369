"""What must hold whatever is given: an explainer that runs as its model does, or one clear line."""

from __future__ import annotations

import logging
import os
import re
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
from fuzz.isolation import MEMORY, SECONDS
from fuzz.mutations import mutated_model, options

import onnxlrp
from onnxlrp.running.contract import fits

PYTHON = re.compile(
    r"Traceback|object has no attribute|object is not|list index out of|not subscriptable|"
    r"unpack|NoneType|positional argument|unhashable|bad allocation|bad_alloc|^[A-Z]\w*Error\b"
)
"""How Python and C++ talk where nobody has thought of the user."""


class SlowError(Exception):
    """More than `SECONDS` were taken."""


@contextmanager
def bounded() -> Iterator[None]:
    """Stop Python that takes more than a minute; fail what took more than 4 GB."""

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


@contextmanager
def silent() -> Iterator[None]:
    """Check that no library logs what would reach the user's terminal."""
    heard: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: heard.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
    assert not heard, heard


def is_clear(error: BaseException) -> None:
    """Check that an error's text is one line, but for a list of nodes, and for a reader."""
    said = str(error)
    assert said.strip(), f"{type(error).__name__} says nothing"
    assert not PYTHON.search(said), said
    if not isinstance(error, onnxlrp.UnsupportedError):
        assert "\n" not in said.strip(), said


def surroundings(folder: Path) -> None:
    """Put beside a model what its external data may point at."""
    (folder / "weights").write_bytes(np.linspace(-1, 1, 200, dtype=np.float32).tobytes())
    (folder / "empty").touch()
    (folder / "folder").mkdir()
    (folder / "outside").symlink_to("/etc/passwd")
    (folder / "circle").symlink_to("circle")
    os.mkfifo(folder / "pipe")


def converts_or_says_why(
    content: bytes,
    folder: Path,
    composite: str = "epsilon_plus_flat",
    external_data: bool = False,
    **chosen: Any,
) -> str:
    """Convert a model from its bytes; return `converted`, or the line that says why not."""
    path, written = folder / "model.onnx", folder / "explainer.onnx"
    path.write_bytes(content)
    for file in (written, folder / "explainer.onnx.data"):
        file.unlink(missing_ok=True)
    there = sorted(folder.iterdir())
    with bounded(), warnings.catch_warnings(), silent():
        warnings.simplefilter("ignore")
        try:
            conversion = onnxlrp.convert(path, composite, **chosen)
            conversion.save(written, external_data=external_data)
        except (onnxlrp.OnnxlrpError, OSError) as error:
            is_clear(error)
            assert sorted(folder.iterdir()) == there
            return str(error)
    onnx.checker.check_model(str(written), full_check=True)
    runs_as_its_model(path, _session(written))
    return "converted"


def runs_as_its_model(path: Path, explainer: ort.InferenceSession) -> None:
    """The explainer computes what the model computes, wherever onnxruntime runs that at all."""
    wanted = feeds(explainer.get_inputs())
    # One class for however many samples there are.
    if "target" in wanted:
        wanted["target"] = np.array([-1])
    if wanted.get("weights") is not None:
        wanted["weights"] = wanted["weights"][:1]
    added = ("target", "weights")
    given = {k: v for k, v in wanted.items() if k not in added and not k.startswith("mask_")}
    if any(array is None for array in wanted.values()):
        return
    # onnxruntime's exceptions share no base class of their own.
    try:
        model = _session(path)
        names = [output.name for output in model.get_outputs()]
        expected = dict(zip(names, model.run(None, given), strict=True))
        declared = {one.name: one.shape for one in model.get_outputs()}
    except Exception:
        return
    # A model that says something else of its results than it computes fails only when it runs.
    if not all(fits(expected[name].shape, declared[name]) for name in names):
        return
    names = [output.name for output in explainer.get_outputs()]
    found = dict(zip(names, explainer.run(None, wanted), strict=True))
    for name in expected.keys() & found.keys():
        array = expected[name]
        scale = max(float(np.abs(array[np.isfinite(array)]).max(initial=0)), 1e-30)
        np.testing.assert_allclose(found[name], array, rtol=1e-3, atol=1e-4 * scale)


def feeds(inputs: list[ort.NodeArg]) -> dict[str, Any]:
    """Draw what a model reads, small; None for what is too large or no tensor of numbers."""
    random, found = np.random.default_rng(0), {}
    for one in inputs:
        # Masks broadcast.
        free = 1 if one.name.startswith("mask_") else 2
        sizes = [size if isinstance(size, int) and size >= 0 else free for size in one.shape]
        kind = {"tensor(float)": "f4", "tensor(double)": "f8", "tensor(float16)": "f2"}
        whole = {"tensor(int64)": "i8", "tensor(int32)": "i4", "tensor(bool)": "?"}
        if np.prod(sizes, dtype=np.float64) > 1e6 or one.type not in kind | whole:
            found[one.name] = None
        elif one.type in kind:
            found[one.name] = random.normal(size=sizes).astype(kind[one.type])
        else:
            found[one.name] = np.zeros(sizes, whole[one.type])
    return found


def _session(path: Path) -> ort.InferenceSession:
    settings = ort.SessionOptions()
    settings.log_severity_level = 4
    settings.intra_op_num_threads = 1
    return ort.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])


def attempt(seed: int) -> str:
    """Convert the model of a seed with the options of that seed, in a folder of its own."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        surroundings(folder)
        return converts_or_says_why(mutated_model(seed), folder, **options(seed))
