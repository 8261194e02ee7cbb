"""Floor 2: what to probe for (tasks), and probes with the controls that make their scores mean something."""
