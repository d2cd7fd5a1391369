"""How much memory one contestant of `speed.py` takes, in a process of its own.

    python benchmarks/peak.py CONTESTANT NETWORK INPUTS.npy [FILE.onnx]

Prints by how many bytes the process's peak grows from right before it loads the network to after
one run on one thread. What a contestant does not need is not imported.
"""

from __future__ import annotations

import gc
import sys
from pathlib import Path

import numpy as np


def highest() -> int:
    """Return this process's peak so far; `ru_maxrss` would begin at its parent's."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def by_onnxruntime(inputs: Path, file: Path) -> int:
    """Open a model or an explainer and run it."""
    # Imported before memory is looked at: it is not the network's.
    import onnxruntime  # noqa: F401

    from onnxlrp.runtime import open_session

    data, before = np.load(inputs), highest()
    session = open_session(file, file.name, "cpu", 1)
    explains = any(value.name == "target" for value in session.get_inputs())
    target = {"target": np.array([-1])} if explains else {}
    session.run(["relevance"] if explains else None, {"data": data} | target)
    return highest() - before


def by_torch(contestant: str, name: str, inputs: Path) -> int:
    """Build a network and run it, or a peer on it."""
    import peers
    import torch
    from networks import NETWORKS

    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    network, x = NETWORKS[name], torch.from_numpy(np.load(inputs))
    gc.collect()
    before = highest()
    module = network.build()
    if contestant == "torch":
        peers.forward(module, x)()
    elif contestant == "LXT":
        peers.lxt(module, x, network.main)()
    else:
        with peers.zennit(module, x, network.main, copied=False) as call:
            call()
    return highest() - before


if __name__ == "__main__":
    contestant, name, inputs, *files = sys.argv[1:]
    print(
        by_onnxruntime(Path(inputs), Path(files[0]))
        if files
        else by_torch(contestant, name, Path(inputs))
    )
