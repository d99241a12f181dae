"""The paper's network: Table 1, blocks, family, counts."""
