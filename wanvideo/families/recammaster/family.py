"""ReCamMaster as the engine sees it; its model extension is not here yet, see README.md."""

from __future__ import annotations

from ..family import Family


class ReCamMaster(Family):
    """Recognises nothing, so that no checkpoint is loaded as if its camera modules were used."""

    name = "recammaster"


FAMILY = ReCamMaster()
