"""`onnxlrp serve`: explainers in the browser, from this machine and for it alone."""

from __future__ import annotations

import errno
import json
import sys
import webbrowser
from contextlib import suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import click

from onnxlrp.cli.paths import Place
from onnxlrp.cli.terminal import echo
from onnxlrp.errors import InputError
from onnxlrp.files import check_regular

HERE = "127.0.0.1"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".wasm": "application/wasm",
}
_READ = {
    ".onnx", ".npy", ".npz", ".csv", ".tsv", ".txt", ".json",
    ".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".avif",
}  # fmt: skip


@click.command(short_help="Open explainers in the browser: drop a picture, see its map.")
@click.argument("files", metavar="[EXPLAINER]...", nargs=-1, type=Place())
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    metavar="N",
    default=0,
    help="By default one that is free.",
)
@click.option("--no-browser", is_flag=True, help="Print the address, and open nothing.")
def serve(files: tuple[Path, ...], port: int, no_browser: bool) -> None:
    """Open a page on which an explainer runs in the browser, by WebGPU or WebAssembly.

    EXPLAINER, up to two of the same model, is opened at once; what it is to explain may follow, a
    picture, a table (.csv, .tsv) or arrays (.npy, .npz), and names of classes (.txt, .json). Of
    an explainer of texts the tokenizer beside it is taken, and the text is typed. The page is
    answered on 127.0.0.1 only, and sends nothing anywhere. Ctrl-C ends it.
    """
    # Interrupted is how a server ends well.
    with server(files, port) as running, suppress(KeyboardInterrupt):
        address = f"http://{HERE}:{running.server_port}/"
        echo(f"{address} (Ctrl-C ends it)")
        if not no_browser:
            webbrowser.open(address)
        running.serve_forever()


def server(files: tuple[Path, ...], port: int = 0) -> ThreadingHTTPServer:
    """Return a server of the page and of some files, on 127.0.0.1, that is not yet running.

    Tokenizers beside explainers are served, too.

    Raises
    ------
    InputError
        A file is missing or nothing that the page reads, an .onnx is no explainer or keeps its
        weights in another file, there are more than two or of two models, or the port is taken.
    OSError
        A file or the port cannot be opened.

    """
    from onnxlrp.inputs.tokens import beside

    served: list[Path] = []
    models: dict[Path, str] = {}
    for file in files:
        if file.is_dir():
            raise InputError(f"{file} is a folder: give explainers, and what they are to explain")
        check_regular(file)
        if not file.is_file():
            raise InputError(f"{file}: no such file")
        ending = file.suffix.lower()
        if ending not in _READ:
            raise InputError(
                f"{file} is nothing that the page reads: give explainers (.onnx), pictures, tables "
                "(.csv, .tsv), arrays (.npy, .npz), names of classes (.txt, .json)"
            )
        served.append(file)
        if ending == ".onnx":
            models[file] = _model(file)
            tokenizer = beside(file)
            if tokenizer is not None and tokenizer not in served:
                served.append(tokenizer)
    if len(models) > 2 or len(set(models.values())) > 1:
        named = ", ".join(map(str, models))
        raise InputError(f"the page compares two explainers of one model, not {named}")
    try:
        return _Server((HERE, port), partial(_Answers, tuple(served)))
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        raise InputError(f"port {port} is taken: give another, or none for one free") from error


def _model(file: Path) -> str:
    """Return the SHA-256 of the model of an explainer, whose weights must be in it."""
    import onnx
    from google.protobuf.message import DecodeError
    from onnx.external_data_helper import uses_external_data

    from onnxlrp.running.contract import Contract

    try:
        proto = onnx.load(file, load_external_data=False)
    except DecodeError:
        raise InputError(f"{file} is not an ONNX file, or it is cut short") from None
    contract = Contract.read({entry.key: entry.value for entry in proto.metadata_props})
    if contract is None:
        raise InputError(
            f"{file} is a plain model: make an explainer of it with `onnxlrp convert {file} "
            "explainer.onnx`"
        )
    if any(uses_external_data(tensor) for tensor in proto.graph.initializer):
        raise InputError(
            f"{file} keeps its weights in another file, which a page cannot read: convert without "
            "--external-data"
        )
    return contract.model_sha256


class _Server(ThreadingHTTPServer):
    """Answers several requests at once, and keeps off the terminal that a browser has gone."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Tell of what is not foreseen."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Answers(BaseHTTPRequestHandler):
    """Answers for the page's files, and for those given, and for nothing else."""

    def __init__(self, files: tuple[Path, ...], *arguments: object) -> None:
        self._files = files
        super().__init__(*arguments)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        """Answer one request."""
        # A page elsewhere whose name leads here must not read what is here.
        host = self.headers.get("Host", "").rsplit(":", 1)[0]
        if host not in (HERE, "localhost"):
            self.send_error(403)
            return
        path = unquote(urlsplit(self.path).path).lstrip("/") or "index.html"
        content = self._content(path)
        if content is None:
            self.send_error(404)
            return
        body, packed = content
        self.send_response(200)
        self.send_header("Content-Type", _TYPES.get(Path(path).suffix, "application/octet-stream"))
        if packed:
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-cache")
        self.send_header("X-Content-Type-Options", "nosniff")
        # With these two a page may use threads.
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        self.end_headers()
        self.wfile.write(body)

    def _content(self, path: str) -> tuple[bytes, bool] | None:
        """Return what a path stands for, and whether it is packed; None for nothing."""
        if path == "given.json":
            listed = [
                {"name": file.name, "address": f"given/{place}"}
                for place, file in enumerate(self._files)
            ]
            return json.dumps(listed).encode(), False
        folder, _, name = path.rpartition("/")
        if folder == "given":
            found = dict(zip(map(str, range(len(self._files))), self._files, strict=True))
            try:
                return (found[name].read_bytes(), False) if name in found else None
            except OSError:
                # It was taken away meanwhile, which the page tells of.
                return None
        if folder not in ("", "ort", "tokenizers") or name.startswith("."):
            return None
        place = resources.files("onnxlrp.web").joinpath(folder)
        for ending in ("", ".gz"):
            file = place.joinpath(name + ending)
            if name and file.is_file():
                return file.read_bytes(), bool(ending)
        return None

    def log_message(self, *_: object) -> None:
        """Keep requests off the terminal."""
