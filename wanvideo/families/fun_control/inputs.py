"""The reference picture of Fun Control 1.1 and 2.2."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor
from typing_extensions import Self

from ...conditioning.conditioning import FamilyInput
from ...conditioning.geometry import VideoGeometry
from ...conditioning.run_setup import RunSetup

log = logging.getLogger(__name__)

FUN_REFERENCE = "fun_reference"


@dataclass(frozen=True)
class FunReferenceInput(FamilyInput):
    """A picture whose look the video takes over.

    Args:
        latent: ``[1, C, T, h, w]``, un-normalised; the first frame is used. Prepared: ``[1, C, h, w]``.
    """

    needs: ClassVar[str] = (
        "Wan 2.1 Fun Control 1.1 or Wan 2.2 Fun Control (their files have ref_conv); otherwise disconnect "
        "fun_ref_image"
    )

    latent: Tensor

    def extra_tokens(self, geometry: VideoGeometry) -> int:
        """Those of one frame."""
        _, rows, columns = geometry.token_grid
        return rows * columns

    def check(self, setup: RunSetup) -> None:
        """Refuse a latent of another VAE.

        Raises:
            InputError: it names the VAE to use.
        """
        setup.check_latent(self.latent, input_name="fun_ref_image")

    def prepared(self, setup: RunSetup) -> Self:
        """One frame of the picture size of the run, normalised."""
        frames = self.latent.shape[2]
        if frames > 1:
            log.warning("fun_ref_image: of %d latent frames the first is used", frames)
        latent = setup.fitted(self.latent[:, :, :1], input_name="fun_ref_image")
        return replace(self, latent=latent[:, :, 0])
