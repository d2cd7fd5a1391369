"""Explainers at work: sessions, what they find out, item after item, what is written of it."""
