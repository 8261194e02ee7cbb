"""Standard benchmarks read from local files in their authors' own formats, and asked as lm-evaluation-harness asks them."""
