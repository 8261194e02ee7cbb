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
from conftest import ARCHITECTURES, CONTEXT, ENCODER_DECODERS, ENCODERS, PARALLEL, SIZES
from reference import every_site

from activations.checking import self_check
from activations.engines.hooks import forward
from activations.errors import TwinprobeError
from activations.models import ModelSpec, embedded_twins, fingerprint, load_model, resolve, wrap
from activations.sites import Shape

if TYPE_CHECKING:
    from conftest import MakeModel

    from activations.models import LoadedModel

TWINS = ("code", "code-added", "text", "text-seed2")


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
    assert loaded.d_head == (6 if architecture in ("gemma2", "qwen3") else 4)
    assert loaded.context == CONTEXT
    assert loaded.parallel is (architecture in PARALLEL)
    assert not loaded.model.training
    assert loaded.module("blocks.2.attn.o").weight.shape.numel() == loaded.n_heads * loaded.d_head * loaded.d_model
    assert loaded.path("blocks.3.attn") is None
    assert loaded.path("no.such.part") is None
    assert "no module for 'blocks.3.attn'" in refusal(lambda: loaded.module("blocks.3.attn"))


def test_the_shapes_of_two_stacks(tiny: Callable[[str], LoadedModel]) -> None:
    loaded = tiny("t5")
    assert (loaded.kind, loaded.n_layers, loaded.n_heads, loaded.d_model, loaded.d_head) == (
        "encoder-decoder", 5, 4, SIZES["hidden_size"], 4,
    )  # fmt: skip
    assert loaded.shapes == {"encoder": Shape(3, 4, 4), "decoder": Shape(2, 4, 4)}
    assert loaded.context == CONTEXT
    assert [str(site) for site in loaded.sites("decoder.resid_post.*")] == [
        "decoder.resid_post.0", "decoder.resid_post.1",
    ]  # fmt: skip


def test_the_decoder_stack_reads_the_text_after_its_start_token(tiny: Callable[[str], LoadedModel]) -> None:
    ids, mask = torch.tensor([[5, 6, 7], [8, 9, 2]]), torch.tensor([[1, 1, 1], [1, 1, 0]])
    inputs = tiny("t5").inputs(ids, mask)
    assert inputs["decoder_input_ids"].tolist() == [[2, 5, 6, 7], [2, 8, 9, 2]]
    assert inputs["decoder_attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 1, 0]]
    assert tiny("llama").inputs(ids, mask).keys() == tiny("roberta").inputs(ids, mask).keys()
    assert "decoder_input_ids" not in tiny("llama").inputs(ids, mask)


def test_key_heads_are_counted(tiny: Callable[[str], LoadedModel]) -> None:
    counts = {name: tiny(name).n_kv_heads for name in ("llama", "gpt2", "gpt-bigcode", "phi3", "roberta")}
    assert counts == {"llama": 2, "gpt2": 4, "gpt-bigcode": 1, "phi3": 2, "roberta": 4}


def test_the_context_of_relative_positions_is_what_the_model_was_trained_on(make_model: MakeModel) -> None:
    loaded = make_model("t5", n_positions=None)
    assert loaded.context == 512
    loaded.tokenizer.model_max_length = 77
    assert loaded.context == 77


def test_roberta_s_context_leaves_out_the_positions_it_skips(tiny: Callable[[str], LoadedModel]) -> None:
    loaded = tiny("roberta")
    assert loaded.context == CONTEXT
    with torch.no_grad():
        loaded.model(torch.full((1, CONTEXT), 7))
        with pytest.raises((IndexError, RuntimeError)):
            loaded.model(torch.full((1, CONTEXT + 1), 7))


@pytest.mark.parametrize(
    ("architecture", "fields", "kind"),
    [
        ("roberta", {"architectures": ["RobertaModel"]}, "encoder"),
        ("roberta", {"architectures": None}, "encoder"),
        ("roberta", {"is_decoder": True}, "decoder"),
        ("t5", {}, "encoder-decoder"),
        ("llama", {}, "decoder"),
        ("gpt2", {"architectures": ["GPT2Model"]}, "decoder"),
    ],
)
def test_the_kind_is_read_from_the_configuration(
    tiny: Callable[[str], LoadedModel], tmp_path: Path, architecture: str, fields: dict[str, Any], kind: str
) -> None:
    plain = tiny(architecture)
    plain.model.save_pretrained(tmp_path)
    plain.tokenizer.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **fields}))
    loaded = load_model(str(tmp_path), check=False)
    assert (
        loaded.kind == loaded.provenance()["kind"] == kind if kind != "decoder" or architecture != "roberta" else True
    )
    assert type(loaded.model).__name__.endswith({"decoder": ("ForCausalLM", "LMHeadModel"), "encoder": "ForMaskedLM",
                                                 "encoder-decoder": "ForConditionalGeneration"}[kind])  # fmt: skip
    closing = {"decoder": None, "encoder": 1, "encoder-decoder": 1}[kind]
    assert loaded.closing == closing


@pytest.mark.parametrize("architecture", [*ENCODERS, *ENCODER_DECODERS])
def test_encoders_load_as_saved(tiny: Callable[[str], LoadedModel], tmp_path: Path, architecture: str) -> None:
    plain = tiny(architecture)
    plain.model.save_pretrained(tmp_path)
    plain.tokenizer.save_pretrained(tmp_path)
    loaded = load_model(str(tmp_path))
    assert loaded.fingerprint == plain.fingerprint
    assert loaded.provenance()["kind"] == loaded.kind
    assert load_model(ModelSpec(str(tmp_path), random_init=0)).fingerprint != plain.fingerprint
    ids, mask = torch.tensor([[5, 6, 7]]), torch.ones(1, 3, dtype=torch.long)
    for site, value in forward(plain, ids, mask, every_site(plain)).items():
        assert torch.equal(forward(loaded, ids, mask, [site])[site], value)


def test_an_encoder_may_come_without_its_head(make_model: MakeModel, tmp_path: Path) -> None:
    """As CodeBERT does: saved as a RobertaModel with a pooler."""
    from transformers import RobertaModel

    whole = make_model("roberta")
    body = RobertaModel(whole.model.config, add_pooling_layer=True)
    body.load_state_dict(whole.model.roberta.state_dict(), strict=False)
    body.save_pretrained(tmp_path)
    whole.tokenizer.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == ["RobertaModel"]
    first, second = load_model(str(tmp_path)), load_model(str(tmp_path))
    assert not torch.equal(first.model.lm_head.dense.weight, whole.model.lm_head.dense.weight)
    assert not torch.equal(first.model.lm_head.dense.weight, second.model.lm_head.dense.weight)
    assert first.fingerprint == second.fingerprint == whole.fingerprint
    with torch.no_grad():
        second.model.roberta.encoder.layer[2].output.dense.bias[0] += 1e-3
    assert fingerprint(second.model.roberta) != first.fingerprint


def test_an_encoder_must_have_its_body(tiny: Callable[[str], LoadedModel], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    tiny("roberta").model.save_pretrained(tmp_path)
    tiny("roberta").tokenizer.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["roberta.encoder.layer.1.output.dense.bias"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert "lack 1 of the model's tensors (roberta.encoder.layer.1.output.dense.bias)" in refusal(
        lambda: load_model(str(tmp_path))
    )


OFFLOADED = ("llama", "gpt2", "qwen2-moe", "roberta", "t5")


def offload(model: Any, how: str, folder: Path) -> None:
    """Move the weights out of the model, all to memory, all to disk, or some to each, as ``device_map`` does."""
    from accelerate import cpu_offload, disk_offload, dispatch_model

    if how == "memory":
        cpu_offload(model, execution_device=torch.device("cpu"))
    elif how == "disk":
        disk_offload(model, str(folder), execution_device=torch.device("cpu"))
    else:
        names = [name for name, module in model.named_modules() if [*module.parameters(recurse=False)]]
        places = {name: ("disk" if number % 2 else "cpu") for number, name in enumerate(names)}
        tied = {
            "model.embed_tokens",
            "transformer.wte",
            "lm_head",
            "shared",
            "encoder.embed_tokens",
            "decoder.embed_tokens",
        }
        places |= {name: "cpu" for name in places if name in tied}
        dispatch_model(model, places, main_device="cpu", offload_dir=str(folder))


@pytest.mark.parametrize("how", ["memory", "disk", "mixed"])
@pytest.mark.parametrize("architecture", OFFLOADED)
def test_an_offloaded_model_is_the_plain_one(
    make_model: MakeModel, tiny: Callable[[str], LoadedModel], tmp_path: Path, architecture: str, how: str
) -> None:
    plain, model = tiny(architecture), make_model(architecture).model
    offload(model, how, tmp_path)
    loaded = wrap(model, plain.tokenizer, "offloaded")
    assert any(parameter.is_meta for parameter in model.parameters())
    assert loaded.device.type == "cpu"
    assert loaded.spec.device == "cpu"
    assert loaded.fingerprint == plain.fingerprint
    self_check(loaded)
    ids, mask = torch.tensor([[5, 6, 7, 8], [9, 10, 2, 2]]), torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    out = {name for name, parameter in model.named_parameters() if parameter.is_meta}
    for site, value in forward(plain, ids, mask, every_site(plain)).items():
        assert torch.equal(forward(loaded, ids, mask, [site])[site], value), site
        assert {name for name, parameter in model.named_parameters() if parameter.is_meta} == out
    json.dumps(loaded.provenance())


def test_a_fingerprint_of_weights_that_are_not_there_says_so(make_model: MakeModel) -> None:
    model = make_model("llama").model
    whole = fingerprint(model)
    model.model.layers[1].mlp.to("meta")
    assert fingerprint(model).startswith("partial:")
    assert whole.startswith("full:")


def test_a_device_map_places_the_model(model_folder: Path) -> None:
    loaded, plain = load_model(ModelSpec(str(model_folder), device_map="auto")), load_model(str(model_folder))
    assert loaded.fingerprint == plain.fingerprint
    assert loaded.provenance()["device_map"] == "auto"
    ids, mask = torch.tensor([[5, 6, 7]]).to(loaded.device), torch.ones(1, 3, dtype=torch.long).to(loaded.device)
    for site, value in forward(loaded, ids, mask, every_site(loaded)).items():
        torch.testing.assert_close(value.cpu(), forward(plain, ids.cpu(), mask.cpu(), [site])[site])
    said = refusal(lambda: load_model(ModelSpec(str(model_folder), device_map="nosuch")))
    assert "could not be loaded: " in said


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"quantization": "3bit"}, "quantization '3bit' is not known; expected one of 8bit, 4bit"),
        ({"quantization": "4bit"}, "quantization 4bit needs bitsandbytes, which is not installed; pip install"),
        ({"quantization": "8bit"}, "quantization 8bit needs bitsandbytes, which is not installed; pip install"),
        ({"device_map": "auto"}, "device_map 'auto' needs accelerate, which is not installed; pip install accelerate"),
        ({"device_map": "auto", "random_init": 0}, "random_init can not be combined with device_map 'auto'"),
        ({"quantization": "4bit", "random_init": 0}, "random_init can not be combined with quantization 4bit"),
    ],
)
def test_what_is_not_installed_or_excludes_another_option_is_said(
    model_folder: Path, monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], expected: str
) -> None:
    monkeypatch.setattr("activations.models.find_spec", lambda name: None)
    assert expected in refusal(lambda: load_model(ModelSpec(str(model_folder), **fields)))


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
    monkeypatch.setattr("activations.fingerprints.FULL_HASH_BYTES", 1000)
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
