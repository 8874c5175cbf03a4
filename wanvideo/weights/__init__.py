"""From a checkpoint file to a model with weights."""
