"""EfficientNet as in the paper: Table 1, blocks, variants and compound scaling."""
