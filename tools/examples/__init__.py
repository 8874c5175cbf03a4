"""The shipped example workflows: described once, written as UI graph and as API prompt."""
