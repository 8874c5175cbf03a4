"""Encoders that turn user inputs into conditioning: text, images, audio."""
