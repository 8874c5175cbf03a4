"""ReCamMaster: an existing video seen by a camera that moves differently."""
