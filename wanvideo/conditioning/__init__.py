"""What a generation is conditioned on: geometry, text, images, family inputs."""
