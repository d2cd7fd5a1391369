"""From a model to its explainer: load, canonicalise, analyse, assign rules, propagate, assemble."""
