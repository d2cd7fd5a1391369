"""The composite that is used where none is named; docs/default_composite.md says why."""

DEFAULT_COMPOSITE = "default"
