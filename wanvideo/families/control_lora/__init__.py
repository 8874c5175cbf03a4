"""Control LoRA: a text-to-video model widened by a LoRA to take a control video."""
