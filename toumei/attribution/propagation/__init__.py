"""Attribution by rules that pass contributions backwards, operation by operation."""
