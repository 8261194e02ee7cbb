"""Evaluations of a family of trained models, and their scores in the table that ``twinprobe slopes`` reads."""
