"""One process, or several that split every batch: ``accelerate launch -m cli.main pretrain ...``.

Every process holds the whole model and reads the same batches; each takes the rows of its own, gradients are summed over all,
and every process takes the same step. The first one writes.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Processes:
    """This process among those that train together."""

    device: torch.device
    rank: int = 0
    count: int = 1
    accelerator: Any = None

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def wait(self) -> None:
        """Wait until every process is here."""
        if self.count > 1:
            self.accelerator.wait_for_everyone()

    def sum(self, value: torch.Tensor) -> torch.Tensor:
        """The sum of a tensor over all processes."""
        return self.accelerator.reduce(value, reduction="sum")

    def sum_gradients(self, model: torch.nn.Module) -> None:
        """Replace each gradient by its sum over all processes."""
        import torch

        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        summed = self.sum(torch.cat([gradient.flatten() for gradient in gradients]))
        parts = summed.split([gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))


@cache
def processes() -> Processes:
    """This process: one of several where a launcher says so (``WORLD_SIZE``), on a GPU where there is one."""
    import torch

    on_gpu = torch.cuda.is_available()
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Processes(torch.device("cuda" if on_gpu else "cpu"))
    from accelerate import Accelerator, InitProcessGroupKwargs

    # The others wait while the first one prepares the data and scores a model.
    patience = InitProcessGroupKwargs(timeout=timedelta(days=7))
    accelerator = Accelerator(cpu=not on_gpu, kwargs_handlers=[patience])
    return Processes(accelerator.device, accelerator.process_index, accelerator.num_processes, accelerator)
