import math
from dataclasses import replace

import pytest
import torch
from comfyui_wanvideo.wanvideo.sampling.filters import (
    RAAG,
    CFGZeroStar,
    Filter,
    FreSca,
    Pair,
    TangentialCFG,
    TemporalScoreRescaling,
    ZeroInit,
    ordered,
)
from comfyui_wanvideo.wanvideo.sampling.guidance import cascade, cfg_guidance, guided_velocity

C = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 1, 1, 1, 4)
U = torch.tensor([2.0, 0.0, 1.0, -1.0]).view(1, 1, 1, 1, 4)
X = torch.tensor([0.5, -0.5, 1.0, 0.0]).view(1, 1, 1, 1, 4)
PAIR = Pair(C, U, 5.0)
PAIR_FILTERS = [CFGZeroStar(), TangentialCFG(), RAAG(), FreSca(cutoff=2)]


def random_pair(dtype=torch.float32, batch=1):
    shape = (2, batch, 4, 3, 8, 10)
    positive, negative = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    return Pair(positive, positive * 0.5 + negative, 5.0)


def difference(pair):
    assert pair.difference is not None
    return pair.difference


class TestCFGZeroStar:
    def test_the_recorded_value(self):
        found = CFGZeroStar().pair(PAIR).combined().flatten().tolist()
        assert found == pytest.approx([3.66667, 10, 14.33333, 20.66667], abs=1e-5)

    def test_the_scaled_negative_is_the_closest_to_the_positive(self):
        pair = random_pair()
        scaled = CFGZeroStar().pair(pair)
        assert torch.dot((pair.positive - scaled.negative).flatten(), pair.negative.flatten()).abs() < 1e-2

    def test_a_batch_is_scaled_sample_by_sample(self):
        pair = random_pair(batch=2)
        whole = CFGZeroStar().pair(pair).negative
        second = CFGZeroStar().pair(Pair(pair.positive[1:], pair.negative[1:], 5.0)).negative
        assert torch.allclose(whole[1:], second)


class TestZeroInit:
    @pytest.mark.parametrize(("last", "skipped"), [(0, [True, False, False]), (1, [True, True, False])])
    def test_it_skips_up_to_its_last_step(self, last, skipped):
        assert [ZeroInit(last).skips(step) for step in range(3)] == skipped


class TestTangentialCFG:
    def test_the_recorded_value(self):
        filtered = TangentialCFG().pair(PAIR)
        projected = filtered.negative.flatten().tolist()
        assert projected == pytest.approx([0.0450, 0.0830, 0.1263, 0.1644], abs=6e-5)
        expected = [4.8201, 9.6678, 14.4948, 19.3425]
        assert filtered.combined().flatten().tolist() == pytest.approx(expected, abs=1e-4)

    def test_it_is_the_projection_by_singular_values_in_every_channel(self):
        pair = random_pair()
        stacked = torch.stack([pair.positive, pair.negative], dim=2).flatten(3)  # [B, C, 2, T*H*W]
        left, values, right = torch.linalg.svd(stacked, full_matrices=False)
        kept = left[..., :1] * values[..., None, :1] @ right[..., :1, :]
        expected = kept[:, :, 1].view_as(pair.negative)
        assert torch.allclose(TangentialCFG().pair(pair).negative, expected, atol=2e-5)

    def test_equal_passes_stay_equal(self):
        pair = random_pair()
        filtered = TangentialCFG().pair(replace(pair, negative=pair.positive))
        assert torch.allclose(filtered.negative, pair.positive, atol=1e-5)

    def test_a_negative_pass_of_zeros_stays_zero(self):
        pair = random_pair()
        filtered = TangentialCFG().pair(replace(pair, negative=torch.zeros_like(pair.negative)))
        assert torch.equal(filtered.negative, torch.zeros_like(pair.negative))

    def test_a_positive_pass_of_zeros_keeps_the_negative(self):
        pair = random_pair()
        filtered = TangentialCFG().pair(replace(pair, positive=torch.zeros_like(pair.positive)))
        assert torch.allclose(filtered.negative, pair.negative, atol=1e-5)


class TestRAAG:
    def test_the_recorded_scale(self):
        assert float(RAAG(1.0).pair(PAIR).scale) == pytest.approx(1.370026, abs=1e-5)

    def test_the_ratio_is_the_mean_over_channels(self):
        pair = random_pair()
        ratios = [
            (pair.positive[:, c] - pair.negative[:, c]).norm() / pair.negative[:, c].norm() for c in range(4)
        ]
        expected = 1 + 4 * math.exp(-0.7 * float(sum(ratios)) / 4)
        assert float(RAAG(0.7).pair(pair).scale) == pytest.approx(expected, rel=1e-5)


class TestFreSca:
    def test_equal_factors_scale_everything(self):
        pair = random_pair()
        found = difference(FreSca(1.5, 1.5, 3).pair(pair))
        assert torch.allclose(found, 1.5 * (pair.positive - pair.negative), atol=1e-5)

    @pytest.mark.parametrize("cutoff", [5, 20, 1000])
    def test_a_cut_off_beyond_the_latent_is_all_low(self, cutoff):
        pair = random_pair()
        found = difference(FreSca(0.5, 3.0, cutoff).pair(pair))
        assert torch.allclose(found, 0.5 * (pair.positive - pair.negative), atol=1e-5)

    def test_a_flat_difference_is_low_and_a_checkerboard_high(self):
        ones = torch.ones(1, 1, 1, 8, 8)
        board = ones.clone()
        board[..., ::2, 1::2] = board[..., 1::2, ::2] = -1
        kept = FreSca(2.0, 3.0, 2)
        assert torch.allclose(kept.single(ones), 2 * ones, atol=1e-5)
        assert torch.allclose(kept.single(board), 3 * board, atol=1e-5)

    def test_it_is_core_s_filter(self, comfyui_path):
        from comfy_extras.nodes_fresca import Fourier_filter

        value = random_pair().positive
        expected = Fourier_filter(value, scale_low=0.8, scale_high=1.3, freq_cutoff=3)
        assert torch.allclose(FreSca(0.8, 1.3, 3).single(value), expected, atol=1e-5)

    def test_without_guidance_the_prediction_is_filtered(self):
        value = random_pair().positive
        found = guided_velocity(lambda name: value, cfg_guidance(1.0, 1), 0, filters=[FreSca(0.5, 0.5)])
        assert torch.allclose(found, 0.5 * value, atol=1e-5)

    def test_after_cfg_zero_star_the_difference_gets_its_gain_once_more(self):
        pair = random_pair()
        filters = [CFGZeroStar(), FreSca(1.0, 1.0)]
        guidance = cfg_guidance(5.0, 1)
        found = guided_velocity(lambda name: getattr(pair, name), guidance, 0, filters=filters)
        zero = CFGZeroStar().pair(pair)
        assert zero.gain is not None
        expected = zero.negative + 5 * zero.gain * (pair.positive - zero.negative)
        assert torch.allclose(found, expected, atol=1e-4)


class TestTemporalScoreRescaling:
    def test_the_recorded_value(self):
        found = TemporalScoreRescaling(0.95, 1.0).rescaled(C, X, 500.0).flatten().tolist()
        assert found == pytest.approx([0.9487, 1.9744, 2.8718, 3.8974], abs=1e-4)

    def test_pure_noise_is_left_alone(self):
        assert torch.equal(TemporalScoreRescaling().rescaled(C, X, 1000.0), C)

    def test_at_0_the_ratio_is_k(self):
        found = TemporalScoreRescaling(0.9, 1.0).rescaled(C, X, 0.0)
        assert torch.allclose(found, 0.9 * C - 0.1 * X, atol=1e-6)

    def test_k_1_changes_nothing(self):
        assert torch.allclose(TemporalScoreRescaling(1.0, 1.0).rescaled(C, X, 300.0), C, atol=1e-6)

    def test_it_scales_the_score(self):
        """With x = (1-t) clean + t noise the score is -noise / t; the noise estimate gets the ratio."""
        t, velocity = 0.3, C
        snr = ((1 - t) / t) ** 2
        ratio = (snr + 1) / (snr / 0.95 + 1)
        rescaled = TemporalScoreRescaling(0.95, 1.0).rescaled(velocity, X, 300.0)
        noise, new_noise = X + (1 - t) * velocity, X + (1 - t) * rescaled
        assert torch.allclose(new_noise, ratio * noise, atol=1e-5)


class TestOrder:
    def test_they_are_applied_as_the_wrapper_does(self):
        shuffled = [TemporalScoreRescaling(), FreSca(), ZeroInit(), RAAG(), CFGZeroStar(), TangentialCFG()]
        names = [type(each).__name__ for each in ordered(shuffled)]
        assert names == [
            "CFGZeroStar",
            "ZeroInit",
            "TangentialCFG",
            "RAAG",
            "FreSca",
            "TemporalScoreRescaling",
        ]

    def test_three_passes_are_not_filtered(self):
        p: dict[str, torch.Tensor] = dict(zip(("p0", "p1", "p2"), torch.randn(3, 1, 2, 2, 4, 4), strict=True))
        guidance = cascade(tuple(p), ((2.0,), (5.0,)))
        plain = guided_velocity(p.__getitem__, guidance, 0)
        assert torch.equal(guided_velocity(p.__getitem__, guidance, 0, filters=PAIR_FILTERS), plain)


@pytest.mark.parametrize("each", [Filter(), *PAIR_FILTERS, ZeroInit(), TemporalScoreRescaling()], ids=repr)
class TestEveryFilter:
    def test_the_predictions_given_stay_as_they_are(self, each):
        pair = random_pair()
        positive, negative = pair.positive.clone(), pair.negative.clone()
        each.pair(pair).combined()
        each.rescaled(each.single(pair.positive), pair.negative, 400.0)
        assert torch.equal(pair.positive, positive)
        assert torch.equal(pair.negative, negative)

    def test_bf16_is_close_to_float32(self, each):
        pair, half = random_pair(), random_pair(torch.bfloat16)
        exact = each.rescaled(each.pair(pair).combined(), pair.positive, 400.0)
        found = each.rescaled(each.pair(half).combined(), half.positive, 400.0)
        assert (found.float() - exact).norm() / exact.norm() < 2e-2
