"""Generated code: problems, programs in a sandbox, pass@k."""
