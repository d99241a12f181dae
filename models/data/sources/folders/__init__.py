"""A user's images as a tree: which folders are classes, splits, or neither."""
