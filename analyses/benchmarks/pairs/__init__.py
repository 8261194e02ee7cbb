"""Pairs of models on benchmarks: published scores by stratum, gains beside what was found inside the models."""
