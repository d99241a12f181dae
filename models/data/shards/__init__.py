"""WebDataset shards: layout, validation of every image, writing, and the manifest."""
