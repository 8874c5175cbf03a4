"""Memory over many runs."""

import pytest
from comfyui_wanvideo.tools.tiny import make

from .graphs import node, text_to_images

RUNS = 20
WARM_UP = 5
ALLOWED_GROWTH = 0.03
GGUF_MODEL = "tiny_wan21_t2v_q8_0.gguf"


def plain(seed):
    return text_to_images(seed=seed, steps=1)


def swapped_and_packed(seed):
    """A model in GGUF whose block swap is another one in each run."""
    prompt = text_to_images(seed=seed, steps=1, model=GGUF_MODEL, loader={"block_swap_args": ["swap", 0]})
    prompt["swap"] = node(
        "WanVideoBlockSwap", blocks_to_swap=seed % 5, offload_img_emb=False, offload_txt_emb=True
    )
    return prompt


@pytest.mark.parametrize("prompt_of", [plain, swapped_and_packed])
def test_a_queue_of_twenty_runs_leaves_memory_flat(comfy, prompt_of):
    """Each with another seed; in the second case the model is loaded anew in each, too."""
    make.write(comfy.base / "models", (GGUF_MODEL,))
    sizes = []
    for number in range(WARM_UP + RUNS):
        run = comfy.run(prompt_of(1000 + number), keep={"x": ["decode", 0]})
        assert run.status == "success", run.message
        if number >= WARM_UP - 1:
            sizes.append(comfy.resident_bytes())
    assert max(sizes[-3:]) <= sizes[0] * (1 + ALLOWED_GROWTH), [size >> 20 for size in sizes]
