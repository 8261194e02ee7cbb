"""The pretraining lab: identical models trained on different mixes of prose and source code."""
