"""Benchmark answers beside activations: does a probe that is right tell that the model is right?"""
