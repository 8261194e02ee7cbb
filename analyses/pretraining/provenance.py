"""What a finished model says of how it was made."""

from __future__ import annotations

from typing import Any

from analyses.pretraining.processes import processes


def provenance(command: str) -> dict[str, Any]:
    """Command, device, number of processes and versions, for ``training.json``."""
    import torch
    import transformers

    crowd = processes()
    return {
        "device": torch.cuda.get_device_name(crowd.device) if crowd.device.type == "cuda" else crowd.device.type,
        "processes": crowd.count,
        "software": f"torch {torch.__version__}, transformers {transformers.__version__}",
        "command": command,
    }
