"""What the tables of every stage's design share."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Kind = Literal["prose", "code"]


class Table(BaseModel):
    """A TOML table that refuses unknown fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Optimisation(Table):
    """Optimiser and schedule of a stage: AdamW, linear warm-up, cosine decay to a tenth."""

    batch: int = Field(16, gt=0)
    learning_rate: float = Field(3e-3, gt=0)
    warmup: float = Field(0.03, ge=0, le=1)
    weight_decay: float = Field(0.1, ge=0)
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    compile: bool = False
    checkpoint_every: int = Field(200, gt=0)
