"""Names of model files from graphs of other machines."""

import pytest
from comfyui_wanvideo.wanvideo.errors import InputError


def put(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def test_lists_files_in_sub_folders(host, model_folder):
    put(model_folder, "a.safetensors", "wan/b.safetensors", "notes.txt")
    assert host.list_files("vae") == ["a.safetensors", "wan/b.safetensors"]


def test_lists_further_suffixes_when_asked(host, model_folder):
    put(model_folder, "a.safetensors", "wan/b.gguf")
    assert host.list_files("vae", extra_suffixes=(".gguf",)) == ["a.safetensors", "wan/b.gguf"]


def test_exact_name_is_taken_first(host, model_folder):
    put(model_folder, "a.safetensors", "wan/a.safetensors")
    assert (
        host.resolve_file("vae", "a.safetensors", input_name="model_name") == model_folder / "a.safetensors"
    )


@pytest.mark.parametrize(
    "saved",
    [
        "wan\\A.safetensors",
        "other/folder/a.safetensors",
        "A.SAFETENSORS",
        "D:\\ComfyUI\\models\\vae\\a.safetensors",
        "/srv/models/a.safetensors",
    ],
)
def test_name_of_another_machine_finds_the_file(host, model_folder, saved):
    put(model_folder, "wan/a.safetensors", "b.safetensors")
    found = host.resolve_file("vae", saved, input_name="model_name")
    assert found == model_folder / "wan" / "a.safetensors"


def test_of_equal_base_names_the_one_with_the_same_folder_wins(host, model_folder):
    put(model_folder, "2_1/a.safetensors", "2_2/a.safetensors")
    found = host.resolve_file("vae", "WanVideo\\2_2\\a.safetensors", input_name="model_name")
    assert found == model_folder / "2_2" / "a.safetensors"


def test_missing_file_is_an_error_with_input_folder_and_near_matches(host, model_folder):
    put(model_folder, "Wan2_1_VAE_bf16.safetensors")
    with pytest.raises(InputError) as error:
        host.resolve_file("vae", "Wan2_1_VAE_fp32.safetensors", input_name="model_name")
    message = str(error.value)
    assert message.startswith("model_name: 'Wan2_1_VAE_fp32.safetensors' is not in")
    assert str(model_folder) in message
    assert "similar: Wan2_1_VAE_bf16.safetensors" in message


def test_name_cannot_leave_the_folder(host, model_folder):
    put(model_folder.parent, "secret.safetensors")
    with pytest.raises(InputError):
        host.resolve_file("vae", "../secret.safetensors", input_name="model_name")


@pytest.mark.parametrize("name", ["", None])
def test_no_choice_is_an_error(host, model_folder, name):
    with pytest.raises(InputError, match="no file chosen"):
        host.resolve_file("vae", name, input_name="model_name")


def test_check_accepts_a_found_file_and_a_linked_input(host, model_folder):
    put(model_folder, "a.safetensors")
    assert host.check_file("vae", "x\\A.safetensors", input_name="model_name") is True
    assert host.check_file("vae", None, input_name="model_name") is True


def test_check_answers_with_the_message(host, model_folder):
    assert "is not in the folder" in host.check_file("vae", "b.safetensors", input_name="model_name")


def test_fingerprint_changes_with_the_file(host, model_folder):
    put(model_folder, "a.safetensors")
    before = host.file_fingerprint("vae", "a.safetensors")
    (model_folder / "a.safetensors").write_bytes(b"longer")
    assert host.file_fingerprint("vae", "a.safetensors") != before


def test_fingerprint_of_a_missing_file_is_no_error(host, model_folder):
    assert host.file_fingerprint("vae", "a.safetensors") == ("", 0, 0)


def test_user_folder_lies_in_comfyuis_user_directory(host, monkeypatch, tmp_path):
    import folder_paths

    monkeypatch.setattr(folder_paths, "user_directory", str(tmp_path))
    folder = host.user_folder("text_embeds")
    assert folder.is_dir()
    assert folder.is_relative_to(tmp_path)


@pytest.fixture
def gguf_folder(model_folder, monkeypatch, tmp_path):
    """What ComfyUI-GGUF registers, with a path of its own."""
    import folder_paths

    folder = tmp_path / "elsewhere"
    folder.mkdir()
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "vae_gguf", ([str(folder)], {".gguf"}))
    return folder


def test_gguf_files_are_found_where_another_pack_registered_them(host, gguf_folder, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules["comfyui_wanvideo.nodes.host.files"].GGUF_FOLDERS, "vae", "vae_gguf")
    put(gguf_folder, "wan/a.gguf")
    assert host.list_files("vae", extra_suffixes=host.GGUF) == ["wan/a.gguf"]
    found = host.resolve_file("vae", "A.gguf", input_name="model", extra_suffixes=host.GGUF)
    assert found == gguf_folder / "wan" / "a.gguf"


def test_listing_gguf_files_leaves_comfyuis_own_list_alone(host, model_folder):
    import folder_paths

    put(model_folder, "a.gguf")
    assert host.list_files("vae", extra_suffixes=host.GGUF) == ["a.gguf"]
    assert folder_paths.get_filename_list("vae") == []
