"""What `import toumei` adds to `import torch`: fresh processes in turns, medians (wanted: at most 0.2 s).

python benchmarks/import_time.py
"""

import statistics
import subprocess
import sys
import time


def main(rounds: int = 9) -> float:
    commands = {"import torch": "import torch", "import torch, toumei": "import torch, toumei"}
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, code in commands.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True)
            times[name].append(time.perf_counter() - start)
    pairs = zip(times["import torch, toumei"], times["import torch"], strict=True)
    added = statistics.median(both - torch_alone for both, torch_alone in pairs)
    print(f"import torch {statistics.median(times['import torch']):.2f} s; toumei adds {added:.3f} s")
    return added


if __name__ == "__main__":
    main()
