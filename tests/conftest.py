"""Shared fixtures: tiny random models of every architecture, with a tiny tokenizer, all made on the spot and offline."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny models: a second thread costs more than it brings
os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is imported anywhere
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"

import functools
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

from activations.texts import Span, Text

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerFast

    from activations.models import LoadedModel

settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")

CORPUS = [
    "def area(width, height):\n    total = width * height\n    return total\n",
    "for name in names:\n    if name not in seen:\n        seen[name] = len(name)\n",
    "The captain put the coin into the red box, and the girl who saw it smiled.",
    "x = 1\ny = x + 2\nprint(y)\n# the value of the name is the value it holds\n",
    "When the rain had stopped, the old man (who had waited) went down to the sea.",
]
CONTEXT = 96
SIZES = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 4, "num_hidden_layers": 3}
GROUPED = {**SIZES, "num_key_value_heads": 2, "max_position_embeddings": CONTEXT}
GPT_SIZES = {"n_embd": 16, "n_layer": 3, "n_head": 4, "n_positions": CONTEXT}
GRANITE_FACTORS = {
    "embedding_multiplier": 3.0,
    "attention_multiplier": 0.4,
    "residual_multiplier": 0.5,
    "logits_scaling": 2.0,
}
EXPERTS = {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,  # in bfloat16, experts' rows must be multiples of 16 bytes
    "shared_expert_intermediate_size": 24,
}

ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", GROUPED),
    "qwen2": ("Qwen2Config", GROUPED),
    "gemma2": ("Gemma2Config", {**GROUPED, "head_dim": 6, "query_pre_attn_scalar": 6}),
    "gpt2": ("GPT2Config", GPT_SIZES),
    "neox-parallel": ("GPTNeoXConfig", {**SIZES, "max_position_embeddings": CONTEXT, "use_parallel_residual": True}),
    "neox-sequential": ("GPTNeoXConfig", {**SIZES, "max_position_embeddings": CONTEXT, "use_parallel_residual": False}),
    "codegen": ("CodeGenConfig", {**GPT_SIZES, "n_ctx": CONTEXT, "rotary_dim": 2}),
    "qwen3": ("Qwen3Config", {**GROUPED, "head_dim": 6}),
    "mistral": ("MistralConfig", GROUPED),
    "gpt-bigcode": ("GPTBigCodeConfig", GPT_SIZES),
    "starcoder2": ("Starcoder2Config", GROUPED),
    "phi3": ("Phi3Config", GROUPED),
    "granite": ("GraniteConfig", {**GROUPED, **GRANITE_FACTORS}),
    "qwen2-moe": ("Qwen2MoeConfig", {**GROUPED, **EXPERTS}),
}
"""Decoders of every residual layout the hooks must know: grouped and shared keys and values, norms of queries and keys,
post-norms, learned positions, parallel blocks, fused projections, scaled additions, experts."""
PARALLEL = ("neox-parallel", "codegen")
ENCODERS: dict[str, tuple[str, dict[str, Any]]] = {
    # RoBERTa's positions start after the padding id, which is 2 here.
    "roberta": ("RobertaConfig", {**SIZES, "max_position_embeddings": CONTEXT + 3}),
}
"""Masked language models; CodeBERT has RoBERTa's shape."""
ENCODER_DECODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "t5": (
        "T5Config",
        {"d_model": 16, "d_kv": 4, "d_ff": 24, "num_heads": 4, "num_layers": 3, "num_decoder_layers": 2}
        | {"n_positions": CONTEXT, "decoder_start_token_id": 2},
    ),
}
"""Models with two stacks, here of different depth; CodeT5 has T5's shape."""

MakeTokenizer = Callable[..., "PreTrainedTokenizerFast"]
MakeModel = Callable[..., "LoadedModel"]


def files(folder: Path) -> dict[str, bytes]:
    """Every file under a folder by its path in it."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """While active, the kernel refuses to let this process write further into any file (EFBIG)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB in memory; skips where mounting one is not allowed."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    command = [str(mount), "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if mount is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system needs root on Linux")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture(scope="session")
def make_tokenizer() -> MakeTokenizer:
    """Build a byte-level BPE tokenizer of about 400 entries; ``trim_offsets`` as in GPT-2, or not as in Llama 3."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    def make(*, trim_offsets: bool = False) -> PreTrainedTokenizerFast:
        backend = Tokenizer(models.BPE())
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
        backend.post_processor = processors.ByteLevel(trim_offsets=trim_offsets)
        special = ["<|bos|>", "<|eos|>", "<|pad|>"]
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=400, show_progress=False, special_tokens=special, initial_alphabet=alphabet
        )
        backend.train_from_iterator(CORPUS, trainer)
        return PreTrainedTokenizerFast(
            tokenizer_object=backend, bos_token=special[0], eos_token=special[1], pad_token=special[2]
        )

    return make


@pytest.fixture(scope="session")
def tokenizer(make_tokenizer: MakeTokenizer) -> PreTrainedTokenizerFast:
    """The tiny tokenizer; do not change it."""
    return make_tokenizer()


@pytest.fixture(scope="session")
def make_model(make_tokenizer: MakeTokenizer) -> MakeModel:
    """Build a tiny random model of one of the architectures above; a fresh one on every call, equal for equal arguments."""
    import torch
    import transformers

    from activations.models import wrap

    kinds = {
        **dict.fromkeys(ARCHITECTURES, transformers.AutoModelForCausalLM),
        **dict.fromkeys(ENCODERS, transformers.AutoModelForMaskedLM),
        **dict.fromkeys(ENCODER_DECODERS, transformers.AutoModelForSeq2SeqLM),
    }

    def make(architecture: str, *, seed: int = 0, **overrides: Any) -> LoadedModel:
        name, fields = {**ARCHITECTURES, **ENCODERS, **ENCODER_DECODERS}[architecture]
        tokenizer = make_tokenizer()
        ends = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
        config = getattr(transformers, name)(**{**fields, **ends, "vocab_size": len(tokenizer), **overrides})
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = kinds[architecture].from_config(config)
            for parameter in model.parameters():
                _roughen(parameter)
        return wrap(model, tokenizer, f"tiny-{architecture}")

    return make


def _roughen(parameter: torch.Tensor) -> None:
    """Biases away from 0 and gains away from 1, so that leaving one out shows; activations of ordinary size."""
    import torch

    with torch.no_grad():
        parameter += 0.2 * torch.randn_like(parameter)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """For results bit by bit: sums are added up in another order with another number of threads."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny(make_model: MakeModel) -> Callable[[str], LoadedModel]:
    """The tiny model of an architecture, made once; do not change it."""
    return functools.cache(lambda architecture: make_model(architecture))


@pytest.fixture(scope="session")
def model_folder(make_model: MakeModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved tiny Llama with its tokenizer; do not change it, copy it."""
    folder = tmp_path_factory.mktemp("models") / "tiny-llama"
    loaded = make_model("llama")
    loaded.model.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def sample_texts() -> list[Text]:
    """Eight texts of very different lengths, with spans of one and of several tokens and one text without spans."""
    texts = [
        Text("short", "x"),
        Text("assign", "total = width", (Span("role", 0, 5, "def"), Span("role", 8, 13, "use")), "code"),
        Text("prose", "The captain put the coin into the red box.", (Span("box", 34, 41, "red"),), "prose"),
        Text(
            "accents", "Þorgerður sá 漢字 🙂 e\u0301", (Span("name", 0, 9), Span("sign", 13, 15), Span("face", 16, 17))
        ),
    ]
    return texts + [Text(f"corpus-{i}", text, (Span("whole", 0, 20),)) for i, text in enumerate(CORPUS[:4])]


@pytest.fixture(scope="session")
def study_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small study and its models in one folder (see ``study_models``); do not change it, copy it."""
    from study_models import make_study

    return make_study(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="session")
def finished_study(study_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of that study; do not change it, copy it."""
    from analyses.study.run import run_study
    from analyses.study.settings import read_study

    out = tmp_path_factory.mktemp("runs") / "small"
    run_study(read_study(study_file), out)
    return out
