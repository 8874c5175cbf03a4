"""Time-to-Move: a video that follows the movement of a crude one."""
