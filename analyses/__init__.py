"""Floor 3: analyses: patching, statistics, benchmarks, pretraining, the paired study and its report."""
