"""onnxruntime: imported only where something runs, and opened in one place."""

from __future__ import annotations

import contextlib
import io
import os
import platform
import warnings
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import MappingProxyType
from typing import Any

from onnxlrp.errors import DeviceError, ModelError

_PACKAGES = ("onnxruntime-gpu", "onnxruntime")
OLDEST = "1.30.0"
_INSTALL = (
    "pip install onnxruntime-gpu (Linux and Windows on x86-64) or pip install onnxruntime "
    "(everywhere else); not both, for they overwrite each other's files"
)


def open_session(
    source: str | os.PathLike[str] | bytes,
    name: str,
    device: str,
    threads: int | None = None,
    *,
    folder: Path | None = None,
    optimise: bool = True,
    denormals: bool = False,
    cuda_options: Mapping[str, str] = MappingProxyType({}),
) -> Any:
    """Open a model in onnxruntime.

    Parameters
    ----------
    source : path of the model, or its bytes
    name : what messages call it
    device : `cpu` or `cuda`
    threads : for one operator on the CPU; onnxruntime's choice if None
    folder : where the external data of a model given as bytes lie
    optimise : whether onnxruntime rewrites the graph and lays out weights anew, which takes longer
        than loading it, and reads weights that lie beside it
    denormals : whether numbers below 1.2e-38 are computed with, instead of taken for 0
    cuda_options : for the CUDA provider

    Raises
    ------
    ModelError
        onnxruntime cannot load it.
    DeviceError
        onnxruntime is missing, or did not take the device.

    """
    ort = _onnxruntime()
    options = ort.SessionOptions()
    # Exceptions carry what onnxruntime would also log.
    options.log_severity_level = 4
    # Relevance that fades on its way through a deep network becomes denormal, and some processors
    # compute with such numbers many times slower.
    options.add_session_config_entry("session.set_denormal_as_zero", "0" if denormals else "1")
    # A plan of memory, made at the first run, keeps up to twice what is needed, and saves no time.
    options.enable_mem_pattern = False
    if threads is not None:
        options.intra_op_num_threads = threads
    if not optimise:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.add_session_config_entry("session.disable_prepacking", "1")
    if folder is not None:
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", str(folder)
        )
    providers: list[Any] = ["CPUExecutionProvider"]
    if device == "cuda":
        _prepare_cuda(ort)
        providers.insert(0, ("CUDAExecutionProvider", dict(cuda_options)))
    elif device != "cpu":
        raise DeviceError(f"device is cpu or cuda, not {device!r}")
    try:
        session = ort.InferenceSession(
            source if isinstance(source, bytes) else os.fspath(source),
            options,
            providers=providers,
        )
    # onnxruntime's exceptions share no base class of their own.
    except Exception as error:
        raise ModelError(f"onnxruntime cannot load {name}: {first_line(error)}") from error
    if device == "cuda" and "CUDAExecutionProvider" not in session.get_providers():
        raise DeviceError(
            "onnxruntime could not start CUDA; what it logged above says which library is missing"
        )
    return session


def _onnxruntime() -> Any:
    try:
        import onnxruntime as ort
    except ImportError as error:
        raise DeviceError(f"explaining needs onnxruntime ({error}): {_INSTALL}") from error
    _warn_of_two()
    # What is left after one of the two packages was uninstalled from over the other.
    if not hasattr(ort, "InferenceSession"):
        raise DeviceError(
            "onnxruntime is damaged: uninstall onnxruntime and onnxruntime-gpu, then " + _INSTALL
        )
    _warn_of_old(ort.__version__)
    return ort


def _release(version: str) -> tuple[int, ...]:
    """Return the numbers of a version such as 1.29.0, without what a nightly build adds."""
    return tuple(int(part) for part in version.split(".")[:3] if part.isdigit())


def versions() -> dict[str, str]:
    """Tell what a report of a fault has to say: versions, the system, what onnxruntime runs on."""
    packages = ("onnxlrp", "onnx", "onnx-ir", "onnxscript", *_PACKAGES, "numpy")
    found = {name: version(name) for name in packages if _installed(name)}
    found["Python"] = platform.python_version()
    found["system"] = platform.platform()
    try:
        found["providers"] = ", ".join(_onnxruntime().get_available_providers())
    except DeviceError as error:
        found["providers"] = f"none: {error}"
    return found


@cache
def _warn_of_two() -> None:
    """Say so where both packages of onnxruntime are installed: the later one won, in part."""
    if all(map(_installed, _PACKAGES)):
        warnings.warn(
            "onnxruntime and onnxruntime-gpu are both installed, and overwrite each other's files: "
            "uninstall both, then " + _INSTALL,
            stacklevel=3,
        )


@cache
def _warn_of_old(found: str) -> None:
    """Say so where onnxruntime is older than any that is tested, as pip may leave it."""
    if _release(found) < _release(OLDEST):
        package = next(filter(_installed, _PACKAGES), _PACKAGES[-1])
        warnings.warn(
            f"onnxruntime {found} is older than {OLDEST}, the oldest that explainers are tested "
            f"with: pip install --upgrade {package}",
            stacklevel=3,
        )


def _installed(name: str) -> bool:
    try:
        return bool(version(name))
    except PackageNotFoundError:
        return False


def _prepare_cuda(ort: Any) -> None:
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        raise DeviceError(f"this onnxruntime is built without CUDA: {_INSTALL}")
    # Finds the CUDA and cuDNN that pip installed; its prints repeat what the session will log.
    if hasattr(ort, "preload_dlls"):
        with contextlib.redirect_stdout(io.StringIO()):
            ort.preload_dlls()


def first_line(error: Exception) -> str:
    """Return what an exception says, without the stack that onnxruntime appends."""
    return str(error).strip().partition("\n")[0]
