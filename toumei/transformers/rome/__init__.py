"""Where a language model stores a fact, and edits of it (Meng et al., 2022 and 2023)."""
