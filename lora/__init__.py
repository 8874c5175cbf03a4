"""LoRA: key names, adapters, stacks and the ways to apply them; knows linear layers only."""
