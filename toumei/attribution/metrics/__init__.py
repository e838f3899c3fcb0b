"""How well attributions do: faithfulness, localization, sanity checks, comparisons."""
