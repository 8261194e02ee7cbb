"""The loop of every stage: its schedule, its checkpoints, and what it scores."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from analyses.pretraining.architectures import new_model
from analyses.pretraining.design import Architecture, Optimisation
from analyses.pretraining.loop import UNSCORED, Batch, learning_rate, loss_function, optimise

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SHAPE = Architecture(hidden_size=8, intermediate_size=8, layers=1, heads=2, context=8)


def batches(step: int) -> Batch:
    ids = torch.randint(40, (3, 8), generator=torch.Generator().manual_seed(step))
    return Batch(ids, ids)


def trained(
    steps: int,
    checkpoint: Path,
    batch_at: Callable[[int], Batch] = batches,
    stop_at: int | None = None,
    **settings: float,
) -> tuple[list[float], dict[str, torch.Tensor]]:
    def report(_name: str, done: int, _total: int, _note: str) -> None:
        if done == stop_at:
            raise KeyboardInterrupt

    model = new_model(SHAPE, seed=0, vocab_size=40)
    options = Optimisation.model_validate(
        {"precision": "float32", "checkpoint_every": 2, "learning_rate": 0.1} | settings
    )
    losses = optimise(model, batch_at, steps, options, checkpoint, "run", report)
    return losses, model.state_dict()


def test_the_rate_warms_up_and_decays_to_a_tenth() -> None:
    rates = [learning_rate(step, 200, 0.5, 0.1) for step in range(200)]
    assert rates[0] == pytest.approx(0.5 / 20)
    assert rates[19] == max(rates) == pytest.approx(0.5)
    assert rates[:20] == sorted(rates[:20])
    assert rates[19:] == sorted(rates[19:], reverse=True)
    assert rates[-1] == pytest.approx(0.05, rel=0.01)
    assert learning_rate(0, 1, 0.5, 0.1) == 0.5


@pytest.mark.parametrize("stop_at", [1, 2, 5, 6])
def test_stopped_anywhere_it_goes_on_as_if_nothing_had_happened(tmp_path: Path, stop_at: int) -> None:
    losses, weights = trained(7, tmp_path / "whole.pt")
    with pytest.raises(KeyboardInterrupt):
        trained(7, tmp_path / "cut.pt", stop_at=stop_at)
    assert (tmp_path / "cut.pt").exists() == (stop_at > 1)
    again, same = trained(7, tmp_path / "cut.pt")
    assert again == losses
    assert len(set(losses)) == 7
    assert all(torch.equal(same[name], weight) for name, weight in weights.items())


def test_no_loss_is_taken_on_what_is_not_scored(tmp_path: Path) -> None:
    """Against cross-entropy by hand; what stands where nothing is scored has no say in the next token's loss."""
    model = new_model(SHAPE, seed=0, vocab_size=40).eval()
    ids = batches(0).ids
    labels = ids.clone()
    labels[0, 3:] = UNSCORED
    labels[1] = UNSCORED
    with torch.no_grad():
        value = loss_function(model, "float32")(ids, labels).item()
        logs = torch.log_softmax(model(input_ids=ids).logits, -1)
    scored = [(0, 1), (0, 2), *((2, place) for place in range(1, 8))]
    expected = -sum(float(logs[row, place - 1, ids[row, place]]) for row, place in scored) / len(scored)
    assert value == pytest.approx(expected, abs=1e-5)


def test_progress_says_loss_and_time_left(tmp_path: Path) -> None:
    seen: list[tuple[str, int, int, str]] = []
    options = Optimisation(precision="float32")
    optimise(
        new_model(SHAPE, seed=0, vocab_size=40), batches, 3, options, tmp_path / "c.pt", "mine",
        lambda *said: seen.append(said),
    )  # fmt: skip
    assert [said[:3] for said in seen] == [("mine", step, 3) for step in (1, 2, 3)]
    assert all(note.startswith("loss 3.") and note.endswith("min left") for *_, note in seen)


def steep_model() -> PreTrainedModel:
    """One whose gradients are far larger than what they are clipped to, and not always by as much."""
    model = new_model(SHAPE, seed=0, vocab_size=40)
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(100)
    return model


def test_steps_are_those_of_adamw_on_clipped_gradients(tmp_path: Path) -> None:
    """Against the same steps written out."""
    options = Optimisation(precision="float32", learning_rate=0.05, weight_decay=0.3, warmup=0.5)
    ours, theirs = steep_model(), steep_model()
    losses = optimise(ours, batches, 6, options, tmp_path / "c.pt", "run", lambda *_: None)
    adamw = torch.optim.AdamW(theirs.parameters(), betas=(0.9, 0.95), weight_decay=0.3)
    norms = []
    for step in range(6):
        ids = batches(step).ids
        loss = theirs(input_ids=ids, labels=ids).loss
        loss.backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(theirs.parameters(), 1.0)))
        adamw.param_groups[0]["lr"] = learning_rate(step, 6, 0.05, 0.5)
        adamw.step()
        adamw.zero_grad()
        assert losses[step] == pytest.approx(loss.item(), rel=1e-4)
    assert min(norms) > 1
    assert max(norms) > 1.2 * min(norms)
    for name, weight in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], weight, rtol=1e-3, atol=1e-4)
