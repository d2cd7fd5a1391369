"""Cases in processes of their own: what hangs, crashes or takes too much memory ends alone."""

from __future__ import annotations

import resource
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from multiprocessing.connection import Connection

MEMORY = 4 << 30
"""Bytes of address space that a case may take."""

SECONDS = 60
"""What a case may take."""

Attempt = Callable[[int], object]


def faults(attempt: Attempt, seeds: range, chunk: int = 1000) -> list[str]:
    """Try every seed, two at a time; return a line for each that raises, hangs or crashes."""
    chunks = [seeds[start : start + chunk] for start in range(0, len(seeds), chunk)]
    with ThreadPoolExecutor(2) as pool:
        return [
            line for lines in pool.map(lambda part: _chunk(attempt, part), chunks) for line in lines
        ]


def _chunk(attempt: Attempt, seeds: range) -> list[str]:
    """Try the seeds one after another, in a new process behind each that ends its own."""
    lines, done, context = [], 0, get_context("spawn")
    while done < len(seeds):
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(attempt, seeds[done:], theirs))
        process.start()
        theirs.close()
        try:
            while done < len(seeds) and ours.poll(SECONDS):
                fault = ours.recv()
                if fault:
                    lines.append(f"seed {seeds[done]}: {fault}")
                done += 1
        except EOFError:
            process.join()
            lines.append(f"seed {seeds[done]}: ended its process, status {process.exitcode}")
            done += 1
        else:
            if done < len(seeds):
                lines.append(f"seed {seeds[done]}: more than {SECONDS} s")
                done += 1
        process.kill()
        process.join()
    return lines


def _serve(attempt: Attempt, seeds: range, pipe: Connection) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    for seed in seeds:
        try:
            attempt(seed)
        # Whatever it is, it is what this looks for.
        except BaseException as error:
            pipe.send(f"{type(error).__name__}: {error}"[:1000])
        else:
            pipe.send("")
