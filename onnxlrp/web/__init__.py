"""The page in the browser: static files, of which `onnxlrp serve` makes a page."""
