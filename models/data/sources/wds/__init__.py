"""WebDataset shards that others wrote."""
