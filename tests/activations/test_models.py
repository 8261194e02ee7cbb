"""Loading: what is there is loaded as it is, what is not is refused in one line, random twins come from a seed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from conftest import ARCHITECTURES, CONTEXT, PARALLEL, SIZES

from activations.errors import TwinprobeError
from activations.models import ModelSpec, embedded_twins, fingerprint, load_model, resolve, wrap

if TYPE_CHECKING:
    from conftest import MakeModel

    from activations.models import LoadedModel

TWINS = ("code", "text", "text-seed2")


def refusal(action: Callable[[], Any]) -> str:
    """The one line that ``action`` fails with."""
    with pytest.raises(TwinprobeError) as caught:
        action()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600
    return str(caught.value)


@pytest.fixture
def folder(model_folder: Path, tmp_path: Path) -> Path:
    """A copy of the saved model that a test may damage."""
    return Path(shutil.copytree(model_folder, tmp_path / "model"))


def rename_weight(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    weights["model.layers.1.mlp.up.weight"] = weights.pop("model.layers.1.mlp.up_proj.weight")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def shrink_weight(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"] = weights["model.norm.weight"][:-1].clone()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def pickle_weights(folder: Path) -> None:
    from safetensors.torch import load_file

    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


DAMAGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "holds no weights; expected model.safetensors"),
    "no config": (lambda f: (f / "config.json").unlink(), "holds no config.json; expected a Hugging Face model folder"),
    "broken config": (lambda f: (f / "config.json").write_text("{"), "could not be loaded: "),
    "empty config": (lambda f: (f / "config.json").write_text("{}"), "could not be loaded: "),
    "unknown type": (lambda f: (f / "config.json").write_text('{"model_type": "nosuch"}'), "could not be loaded: "),
    "no tokenizer": (lambda f: [p.unlink() for p in f.glob("tokenizer*")], "could not be loaded: "),
    "broken tokenizer": (lambda f: (f / "tokenizer.json").write_text("{}"), "could not be loaded: "),
    "cut tokenizer": (
        lambda f: (f / "tokenizer.json").write_text((f / "tokenizer.json").read_text()[:-9]),
        "could not be loaded: ",
    ),
    "empty weights": (lambda f: (f / "model.safetensors").write_bytes(b""), "could not be loaded: "),
    "cut weights": (
        lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:-100]),
        "could not be loaded: ",
    ),
    "missing weight": (rename_weight, "lack 1 of the model's tensors (model.layers.1.mlp.up_proj.weight)"),
    "wrong shape": (shrink_weight, "could not be loaded: "),
    "pickle only": (pickle_weights, "pass --allow-pickle if you trust them"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_folder_is_refused(folder: Path, damage: str) -> None:
    act, expected = DAMAGES[damage]
    act(folder)
    said = refusal(lambda: load_model(str(folder)))
    assert expected in said
    assert str(folder) in said


def test_pickle_weights_load_when_allowed(folder: Path, model_folder: Path) -> None:
    pickle_weights(folder)
    assert (
        load_model(ModelSpec(str(folder), allow_pickle=True)).fingerprint == load_model(str(model_folder)).fingerprint
    )


def test_pickle_weights_never_run_code(folder: Path, tmp_path: Path) -> None:
    """Even where pickles are allowed, they are read by torch's restricted loader."""
    pickle_weights(folder)
    evidence = tmp_path / "ran"

    class Evil:
        def __reduce__(self) -> Any:
            return Path.touch, (evidence,)

    torch.save({"model.norm.weight": Evil()}, folder / "pytorch_model.bin")
    refusal(lambda: load_model(str(folder)))
    assert "could not be loaded" in refusal(lambda: load_model(ModelSpec(str(folder), allow_pickle=True)))
    assert not evidence.exists()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("embedded:nosuch", "no embedded twin 'nosuch'; there are "),
        ("embedded:../twins", "no embedded twin '../twins'"),
        ("/no/such/folder", "model '/no/such/folder' is not a folder; expected a model folder or a hub name"),
        ("./nosuch", "model './nosuch' is not a folder"),
        ("a/b/c", "model 'a/b/c' is not a folder"),
        (__file__, "is not a folder"),
    ],
)
def test_a_name_that_cannot_be_a_model_is_refused(name: str, expected: str) -> None:
    assert expected in refusal(lambda: resolve(ModelSpec(name)))
    assert expected in refusal(lambda: load_model(name))


def test_a_hub_model_is_loaded_from_safetensors_only(
    model_folder: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a local hub cache, as a download would leave it."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    pickle_weights(folder)
    for name, source in (("safe", model_folder), ("pickled", folder)):
        cached = tmp_path / "hub" / f"models--org--{name}"
        shutil.copytree(source, cached / "snapshots" / ("0" * 40))
        (cached / "refs").mkdir()
        (cached / "refs" / "main").write_text("0" * 40)
    loaded = load_model("org/safe")
    assert loaded.fingerprint == load_model(str(model_folder)).fingerprint
    assert loaded.provenance()["commit"] == "0" * 40
    assert "'org/pickled' could not be loaded" in refusal(lambda: load_model("org/pickled"))
    assert load_model(ModelSpec("org/pickled", allow_pickle=True)).fingerprint == loaded.fingerprint
    assert "'org/safe' could not be loaded" in refusal(lambda: load_model(ModelSpec("org/safe", revision="other")))


def test_a_hub_name_that_is_not_there_is_refused() -> None:
    said = refusal(lambda: load_model("twinprobe-tests/no-such-model"))
    assert "model 'twinprobe-tests/no-such-model' could not be loaded: " in said


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("dtype", "float8", "dtype 'float8' is not known; expected one of float32, bfloat16, float16, auto"),
        ("device", "gpu", "device 'gpu' is not known; expected cpu, cuda, cuda:0 or mps"),
        ("device", "", "device '' is not known"),
        ("device", "cuda:99", "device 'cuda:99' is not there"),
        ("device", "xpu", "device 'xpu' is not there"),
        ("attention", "nosuch", "could not be loaded: "),
    ],
)
def test_an_unknown_option_is_refused(model_folder: Path, field: str, value: str, expected: str) -> None:
    assert expected in refusal(lambda: load_model(replace(ModelSpec(str(model_folder)), **{field: value})))


def test_a_slow_tokenizer_is_refused(folder: Path) -> None:
    for path in folder.glob("tokenizer*"):
        path.unlink()
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "ByT5Tokenizer"}))
    assert "not a fast tokenizer" in refusal(lambda: load_model(str(folder)))


def test_an_architecture_without_a_table_of_paths_is_refused(make_model: MakeModel) -> None:
    from transformers import CpmAntConfig, CpmAntForCausalLM

    tokenizer = make_model("llama").tokenizer
    config = CpmAntConfig(
        hidden_size=16, num_attention_heads=2, dim_head=8, dim_ff=16, num_hidden_layers=1, vocab_size=9
    )
    loaded = wrap(CpmAntForCausalLM(config), tokenizer, "cpm")
    assert "CpmAntForCausalLM is not known to TransformerLens" in refusal(lambda: loaded.n_layers)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_shapes_are_read_from_any_architecture(tiny: Callable[[str], LoadedModel], architecture: str) -> None:
    loaded = tiny(architecture)
    assert (loaded.n_layers, loaded.n_heads, loaded.d_model) == (3, 4, SIZES["hidden_size"])
    assert loaded.d_head == (6 if architecture == "gemma2" else 4)
    assert loaded.context == CONTEXT
    assert loaded.parallel is (architecture in PARALLEL)
    assert not loaded.model.training
    assert loaded.module("blocks.2.attn.o").weight.shape.numel() == loaded.n_heads * loaded.d_head * loaded.d_model
    assert loaded.path("blocks.3.attn") is None
    assert loaded.path("no.such.part") is None
    assert "no module for 'blocks.3.attn'" in refusal(lambda: loaded.module("blocks.3.attn"))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "auto"])
def test_weights_arrive_as_saved(model_folder: Path, make_model: MakeModel, dtype: str) -> None:
    loaded = load_model(ModelSpec(str(model_folder), dtype=dtype))
    compute = torch.float32 if dtype == "auto" else getattr(torch, dtype)
    assert loaded.model.dtype == compute
    assert loaded.provenance()["compute_dtype"] == str(compute).removeprefix("torch.")
    expected = make_model("llama").model.state_dict()
    found = loaded.model.state_dict()
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor.to(compute)), name


def test_provenance_is_plain_json(model_folder: Path) -> None:
    spec = ModelSpec(str(model_folder), attention="eager")
    record = load_model(spec).provenance()
    assert json.loads(json.dumps(record)) == record
    assert record["name"] == str(model_folder)
    assert record["attention_kernel"] == "eager"
    assert record["architecture"] == "LlamaForCausalLM"
    assert (record["layers"], record["width"], record["heads"], record["context"]) == (3, 16, 4, CONTEXT)
    assert record["parameters"] == sum(p.numel() for p in load_model(spec).model.parameters())


def test_the_fingerprint_is_of_the_weights_alone(model_folder: Path, folder: Path) -> None:
    first, second = load_model(str(model_folder)), load_model(str(folder))
    assert first.fingerprint == second.fingerprint
    assert first.fingerprint.startswith("full:")
    with torch.no_grad():
        second.model.model.layers[2].mlp.down_proj.weight[3, 5] += 1e-6
    assert fingerprint(second.model) != first.fingerprint
    assert fingerprint(first.model.to(torch.bfloat16)) != first.fingerprint


def test_the_fingerprint_of_a_large_model_samples_every_tensor(
    make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("activations.models.FULL_HASH_BYTES", 1000)
    model = make_model("llama").model
    before = fingerprint(model)
    assert before.startswith("sampled:")
    assert before == fingerprint(make_model("llama").model)
    with torch.no_grad():
        model.model.layers[1].input_layernorm.weight[0] += 1
    assert fingerprint(model) != before


def test_random_init_draws_from_its_seed_and_leaves_torch_s_alone(model_folder: Path) -> None:
    def state(seed: int, dtype: str = "float32") -> dict[str, torch.Tensor]:
        weights: dict[str, torch.Tensor] = load_model(
            ModelSpec(str(model_folder), random_init=seed, dtype=dtype)
        ).model.state_dict()
        return weights

    torch.manual_seed(123)
    before = torch.random.get_rng_state()
    first, again, other = state(0), state(0), state(1)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(first[name], again[name]) for name in first)
    matrices = [name for name, tensor in first.items() if tensor.dim() == 2]
    assert matrices
    trained = load_model(str(model_folder)).model.state_dict()
    assert all(not torch.equal(first[name], other[name]) for name in matrices)
    assert all(not torch.equal(first[name], trained[name]) for name in matrices)
    assert all(torch.equal(state(0, "bfloat16")[name], first[name].to(torch.bfloat16)) for name in first)


def test_random_init_needs_no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    assert load_model(ModelSpec(str(folder), random_init=3)).n_layers == 3


def test_the_three_twins_are_embedded() -> None:
    assert embedded_twins() == sorted(TWINS)


@pytest.mark.parametrize("name", embedded_twins())
def test_an_embedded_twin_loads(name: str) -> None:
    loaded = load_model(f"embedded:{name}")
    assert loaded.tokenizer.is_fast
    assert loaded.tokenizer.bos_token_id is not None
    assert len(loaded.tokenizer) <= loaded.model.config.vocab_size


def test_a_tokenizer_of_another_model_is_refused(make_model, tokenizer) -> None:
    with pytest.raises(TwinprobeError, match="use the tokenizer it was trained with") as refused:
        wrap(make_model("llama", vocab_size=50).model, tokenizer, "mixed")
    assert "\n" not in str(refused.value)
