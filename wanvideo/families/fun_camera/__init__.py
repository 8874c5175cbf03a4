"""Fun Camera: rays of a moving camera added to the tokens."""
