"""Explanations of code: written by models, scored against references, two models compared."""
