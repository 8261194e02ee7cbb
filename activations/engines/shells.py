"""A model's modules once more around the same weights, for engines that rebuild the modules they are given."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def shell(model: PreTrainedModel) -> PreTrainedModel:
    """A copy of ``model`` whose modules, buffers and configuration are its own and whose parameters are the model's.

    What is done to the copy's modules does not show in ``model``, and no second set of weights is held. The copy must
    not be trained, moved or cast: that would reach the shared parameters.
    """
    return copy.deepcopy(model, {id(parameter): parameter for parameter in model.parameters()})
