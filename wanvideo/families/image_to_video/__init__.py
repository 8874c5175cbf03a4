"""Image to video: known pictures as channels, CLIP rows of a picture, clean first frames."""
