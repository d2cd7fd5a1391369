"""Work spread over processes and machines by Ray Data; imported only where workers are asked for.

What is read, and in which batches, Ray does not decide: it gets numbered pieces of work, hands them
to actors that hold a session each, and starts actors that died, and what they were at, again.
"""

from __future__ import annotations

import logging
import os
import pickle
import shutil
import socket
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from onnxlrp.errors import InputError, OnnxlrpError
from onnxlrp.extras import needed
from onnxlrp.runtime import first_line

TRIES = 4
"""After so many deaths on one piece of work it is left out."""
_STORE = 256 * 2**20
"""Bytes of shared memory for a cluster on this machine: what goes through it is small."""


class Task(Protocol):
    """What workers do; sent to each of them once."""

    def open(self) -> Any:
        """Make what all pieces of work need, such as a session."""
        ...

    def __call__(self, opened: Any, piece: Any, /) -> Any:
        """Do a piece of work, which must do no harm if it was begun before."""
        ...


def spread(
    task: Task,
    pieces: Sequence[Any],
    folder: Path,
    *,
    workers: int,
    cores: int,
    cuda: bool,
    address: str | None,
) -> Iterator[tuple[int, Any]]:
    """Do pieces of work in any order.

    Parameters
    ----------
    task, pieces : what workers do, and on what, both pickled
    folder : one that all workers see
    workers : actors that do it
    cores : that each takes
    cuda : whether each takes a GPU, too
    address : of a cluster that runs, `auto` for that of this machine; if None one is started here,
        and ended

    Yields
    ------
    the piece's place in `pieces`, and what the task made of it; None where workers died on it
    `TRIES` times

    Raises
    ------
    InputError
        Ray is not installed or not to be reached, the cluster lacks what workers need, or as the
        task.
    OSError
        As the task.

    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Its C++ side writes to stderr, of workers that die, too, which is no news here.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    ray, data = needed("ray", "ray"), needed("ray.data", "ray")
    tries = folder / ".tries"
    shutil.rmtree(tries, ignore_errors=True)
    tries.mkdir(parents=True)
    # A user who works with Ray may have started it.
    own = not ray.is_initialized()
    if own:
        _start(ray, workers, cores, cuda, address)
    try:
        wanted = {"CPU": workers * cores} | ({"GPU": workers} if cuda else {})
        there = ray.cluster_resources()
        for kind, count in wanted.items():
            if there.get(kind, 0) < count:
                raise InputError(
                    f"the Ray cluster has {there.get(kind, 0):.0f} {kind}s, and {workers} workers "
                    f"need {count}: give fewer --workers, or less --threads"
                )
        data.DataContext.get_current().enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)
        rows = [{"number": n, "piece": pickle.dumps(piece)} for n, piece in enumerate(pieces)]
        done = data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            _Worker,
            batch_size=1,
            batch_format="numpy",
            compute=data.ActorPoolStrategy(size=workers),
            fn_constructor_args=(pickle.dumps(task), str(tries.resolve()), os.getcwd()),
            num_cpus=cores,
            num_gpus=1 if cuda else None,
        )
        for row in done.iter_rows():
            made = pickle.loads(row["made"])
            if isinstance(made, Exception):
                raise made
            yield int(row["number"]), made
    finally:
        if own:
            ray.shutdown()
        shutil.rmtree(tries, ignore_errors=True)


def _start(ray: Any, workers: int, cores: int, cuda: bool, address: str | None) -> None:
    """Join a cluster, or start one on this machine that is as large as what is asked for."""
    options: dict[str, Any] = {"logging_level": logging.CRITICAL, "log_to_driver": False}
    if address is None:
        options |= {
            "num_cpus": workers * cores,
            "include_dashboard": False,
            "object_store_memory": _STORE,
        }
    try:
        if address not in (None, "auto"):
            # Ray itself would try for minutes.
            host, _, port = str(address).rpartition(":")
            socket.create_connection((host.rpartition("/")[2], int(port or 0)), 10).close()
        # Without an address of its own, Ray takes one that the environment names.
        with _silent():
            ray.init(address or "local", **options)
    except (OSError, OverflowError, RuntimeError, ValueError) as error:
        where = (
            f"the Ray cluster at {address} cannot be reached" if address else "Ray does not start"
        )
        raise InputError(f"{where}: {first_line(error)}") from None


@contextmanager
def _silent() -> Iterator[None]:
    """Keep what code in C++ writes to stderr, which is how loud it was told to be, from there."""
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


class _Worker:
    """An actor: it opens what it needs when it gets its first piece of work."""

    def __init__(self, task: bytes, tries: str, folder: str) -> None:
        # Names of files are as they were where the run was started.
        os.chdir(folder)
        self._task = task
        self._tries = Path(tries)
        self._opened: tuple[Task, Any] | None = None

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        (number,), (piece,) = batch["number"], batch["piece"]
        return {"number": [number], "made": [pickle.dumps(self._made(number, piece))]}

    def _made(self, number: int, piece: bytes) -> Any:
        mark = self._tries / str(number)
        with mark.open("ab") as file:
            if file.tell() >= TRIES:
                return None
            file.write(b".")
        try:
            if self._opened is None:
                task = pickle.loads(self._task)
                self._opened = task, task.open()
            task, opened = self._opened
            made = task(opened, pickle.loads(piece))
        except OnnxlrpError as error:
            return InputError(str(error))
        except OSError as error:
            return error
        except Exception:
            return RuntimeError(traceback.format_exc())
        mark.unlink(missing_ok=True)
        return made
