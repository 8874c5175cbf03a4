"""Memory over many runs."""

from comfyui_wanvideo.tools.tiny import make

from .graphs import node, text_to_images

RUNS = 20
WARM_UP = 6
ALLOWED_GROWTH = 0.03
GGUF_MODEL = "tiny_wan21_t2v_q8_0.gguf"


def prompt_of(number):
    """Every second run has a model in GGUF and another block swap; so each loads its model anew."""
    seed = 1000 + number
    if number % 2:
        return text_to_images(seed=seed, steps=1)
    prompt = text_to_images(seed=seed, steps=1, model=GGUF_MODEL, loader={"block_swap_args": ["swap", 0]})
    swap = {"blocks_to_swap": number // 2 % 5, "offload_img_emb": False, "offload_txt_emb": True}
    return {**prompt, "swap": node("WanVideoBlockSwap", **swap)}


def test_a_queue_of_twenty_runs_leaves_memory_flat(comfy):
    make.write(comfy.base / "models", (GGUF_MODEL,))
    sizes = []
    for number in range(WARM_UP + RUNS):
        run = comfy.run(prompt_of(number), keep={"x": ["decode", 0]})
        assert run.status == "success", run.message
        if number >= WARM_UP - 1:
            sizes.append(comfy.resident_bytes())
    assert max(sizes[-3:]) <= sizes[0] * (1 + ALLOWED_GROWTH), [size >> 20 for size in sizes]
