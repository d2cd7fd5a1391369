"""The composites that ship, one TOML file each, read as `onnxlrp.composites`."""
