"""Memory over many runs."""

from .graphs import text_to_images

RUNS = 20
WARM_UP = 5
ALLOWED_GROWTH = 0.03


def test_a_queue_of_twenty_runs_leaves_memory_flat(comfy):
    """Each with another seed, so that nothing but the loaders comes from the cache."""
    sizes = []
    for number in range(WARM_UP + RUNS):
        run = comfy.run(text_to_images(seed=1000 + number, steps=1), keep={"x": ["decode", 0]})
        assert run.status == "success", run.message
        if number >= WARM_UP - 1:
            sizes.append(comfy.resident_bytes())
    assert max(sizes[-3:]) <= sizes[0] * (1 + ALLOWED_GROWTH), [size >> 20 for size in sizes]
