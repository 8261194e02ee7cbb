"""One model of a pair against the other: patching across, grafting weights, similarity."""
