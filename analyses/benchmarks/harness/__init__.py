"""Runs of lm-evaluation-harness itself (Gao et al., github.com/EleutherAI/lm-evaluation-harness) on a loaded model."""
