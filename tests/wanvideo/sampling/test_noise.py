import pytest
import torch
from comfyui_wanvideo.wanvideo.errors import InputError
from comfyui_wanvideo.wanvideo.sampling.noise import (
    NoiseSource,
    draw_noise,
    fit_samples,
    seeded_generator,
    start_latent,
)

SHAPE = (1, 16, 5, 6, 8)


@pytest.fixture
def samples():
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(9))


def test_the_noise_of_a_seed_is_core_s(comfyui_path):
    from comfy.sample import prepare_noise

    shape = (1, 16, 21, 60, 104)
    expected = prepare_noise(torch.zeros(shape), 0)
    assert isinstance(expected, torch.Tensor)
    assert torch.equal(draw_noise(shape, seeded_generator(0)), expected)


def test_a_batch_of_one_holds_the_numbers_of_no_batch():
    expected = torch.randn(SHAPE[1:], generator=torch.Generator().manual_seed(42))
    assert torch.equal(draw_noise(SHAPE, seeded_generator(42))[0], expected)


def test_the_first_sample_of_a_batch_is_that_of_a_batch_of_one():
    batch = draw_noise((3, *SHAPE[1:]), seeded_generator(42))
    assert torch.equal(batch[:1], draw_noise(SHAPE, seeded_generator(42)))


@pytest.mark.parametrize("seed", [0, 2**63, 2**64 - 1])
def test_every_seed_of_the_widget_works(seed):
    assert draw_noise((4,), seeded_generator(seed)).isfinite().all()


def test_a_source_draws_in_the_dtype_of_the_latent():
    source = NoiseSource(seeded_generator(1), torch.zeros(SHAPE, dtype=torch.bfloat16))
    expected = draw_noise(SHAPE, seeded_generator(1))
    assert torch.equal(source(), expected.bfloat16())


class TestStartLatent:
    def test_without_samples_it_is_the_noise_of_the_seed(self):
        start = start_latent(SHAPE, 7)
        assert torch.equal(start.x, draw_noise(SHAPE, seeded_generator(7)))

    def test_the_generator_goes_on_after_the_noise(self):
        start = start_latent(SHAPE, 7)
        expected = seeded_generator(7)
        draw_noise(SHAPE, expected)
        assert torch.equal(start.generator.get_state(), expected.get_state())

    def test_samples_are_taken_as_they_are(self, samples):
        assert torch.equal(start_latent(SHAPE, 7, samples=samples).x, samples)

    def test_samples_are_noised_to_a_timestep(self, samples):
        noise = draw_noise(SHAPE, seeded_generator(7))
        found = start_latent(SHAPE, 7, samples=samples, noise_to=937.0).x
        assert torch.allclose(found, 0.937 * noise + 0.063 * samples, atol=1e-6)

    def test_noising_to_0_keeps_the_samples(self, samples):
        assert torch.equal(start_latent(SHAPE, 7, samples=samples, noise_to=0.0).x, samples)

    def test_the_noise_is_of_the_seed_and_the_rest_of_the_stream_of_the_state(self, samples):
        other = torch.Generator().manual_seed(123)
        start = start_latent(SHAPE, 7, samples=samples, generator_state=other.get_state(), noise_to=500.0)
        assert torch.equal(start.noise, draw_noise(SHAPE, seeded_generator(7)))
        assert torch.equal(draw_noise(SHAPE, start.generator), draw_noise(SHAPE, other))

    def test_a_damaged_state_is_refused(self, samples):
        with pytest.raises(InputError, match=r"samples: .*random state"):
            start_latent(SHAPE, 7, samples=samples, generator_state=torch.zeros(3))


class TestFitSamples:
    def test_missing_frames_are_the_first_one_repeated_in_front(self, samples):
        found = fit_samples(samples[:, :, :3], SHAPE)
        expected = torch.cat([samples[:, :, :1], samples[:, :, :1], samples[:, :, :3]], dim=2)
        assert torch.equal(found, expected)

    def test_half_precision_becomes_float32(self, samples):
        assert fit_samples(samples.half(), SHAPE).dtype == torch.float32

    @pytest.mark.parametrize(
        "shape",
        [
            (1, 16, 6, 6, 8),
            (1, 48, 5, 6, 8),
            (2, 16, 5, 6, 8),
            (1, 16, 5, 8, 8),
            (1, 16, 5, 6, 6),
            (16, 5, 6, 8),
        ],
    )
    def test_another_size_names_the_input_and_both_sizes(self, shape):
        with pytest.raises(InputError) as error:
            fit_samples(torch.zeros(shape), SHAPE)
        message = str(error.value)
        assert message.startswith("samples: ")
        assert " x ".join(str(n) for n in shape) in message
        assert "1 x 16 x 5 x 6 x 8" in message
