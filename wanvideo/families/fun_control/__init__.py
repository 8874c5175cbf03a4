"""Fun Control: a control video as channels, a reference picture as tokens before the video."""
